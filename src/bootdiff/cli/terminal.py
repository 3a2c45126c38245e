"""Output to terminals that cannot show every character: such characters are replaced."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

#: the ASCII text that replaces each sign that the package prints, where the sign cannot be shown
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
    """Return the replacement of characters that cannot be encoded, and where to go on, as codecs expect it.

    A character becomes its letter without accents, a sign that resembles it, or a question mark.
    """
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
