"""Terminals that cannot show every character get another one in its place."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

#: what stands for the signs that the package prints, where only ASCII can be shown
_SIGNS = {
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "↘": "\\",
    "✓": "ok",
    "✗": "x",
    "·": ".",
    "•": "*",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "─": "-",
    "━": "-",
    "│": "|",
    "╭": "+",
    "╮": "+",
    "╰": "+",
    "╯": "+",
    "²": "2",
    "½": "1/2",
    "ß": "ss",
    "ø": "o",
    "ł": "l",
    "æ": "ae",
}
HANDLER = "bootdiff.nearest"


def show_every_character() -> None:
    """Let standard output and standard error print any text, whatever the terminal's encoding."""
    codecs.register_error(HANDLER, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: the letter without its accents, a sign that resembles it, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = "".join(map(_plain, error.object[error.start : error.end]))
    return written, error.end


def _plain(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    letters = unicodedata.normalize("NFKD", character)
    return "".join(letter for letter in letters if letter.isascii()) or (
        "" if unicodedata.combining(character) else "?"
    )
