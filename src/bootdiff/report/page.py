"""The page of a report: HTML that needs nothing from outside and holds no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from bootdiff import __version__
from bootdiff.core.errors import BootdiffError
from bootdiff.report.privacy import sentence_without_places
from bootdiff.storage.reading import check_regular

HERE = Path(__file__).parent
#: the mark in the head of every report, by which it is known as one
MARK = '<meta name="generator" content="bootdiff'


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; ``parts`` are HTML, and empty ones are left out."""
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    style = (HERE / "page.css").read_text(encoding="utf-8")
    body = "\n".join(part for part in parts if part)
    return template.substitute(mark=f'{MARK} {__version__}">', title=html.escape(title), style=style, body=body)


def check_output(path: Path) -> None:
    """Refuse to write a report over something else.

    Raises:
        BootdiffError: if the name is not that of a page, or another file has it.
    """
    if path.suffix not in (".html", ".htm"):
        raise BootdiffError(f"--output {path}: expected a file that ends in .html.")
    if path.is_dir():
        raise BootdiffError(f"{path} is a folder; expected a file to write, so choose another --output.")
    if not path.exists():
        return
    check_regular(path, "page")
    with path.open(encoding="utf-8", errors="replace") as file:
        ours = MARK in file.read(2000)
    if not ours:
        raise BootdiffError(f"{path} exists and is no bootdiff report; choose another --output.")


def section(title: str, *parts: str) -> str:
    """Return a heading and the HTML that follows it; nothing if nothing follows."""
    body = "".join(parts)
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>" if body else ""


def note(words: str) -> str:
    """Return a soft paragraph of these words, without the places of files."""
    return f'<p class="soft">{html.escape(sentence_without_places(words))}</p>'


def notes(lines: Sequence[str]) -> str:
    """Return a soft list of these lines, without the places of files; nothing if there are no lines."""
    items = "".join(f"<li>{html.escape(sentence_without_places(line))}</li>" for line in lines)
    return f'<ul class="soft">{items}</ul>' if items else ""


def picture(source: str, alt: str, kind: str = "") -> str:
    """Return an image from a ``data:`` address."""
    return f'<img src="{source}" alt="{html.escape(alt)}"{_kind(kind)}>'


def figure(body: str, caption: str, title: str = "") -> str:
    """Return pictures with a caption below them, and a title above if there is one."""
    head = f"<h3>{html.escape(title)}</h3>" if title else ""
    return f"<figure>{head}{body}<figcaption>{html.escape(caption)}</figcaption></figure>"


def cell(words: str, small: str = "") -> str:
    """Return a cell of a table; ``small`` stands below its words."""
    below = f"<small>{html.escape(small)}</small>" if small else ""
    return f"<td>{html.escape(words)}{below}</td>"


def table(heads: Sequence[str], rows: Iterable[str], about: str) -> str:
    """Return a table that scrolls within its box.

    Args:
        heads: the header rows, as HTML.
        rows: the body rows, as HTML.
        about: what the table shows, for readers who hear the page.
    """
    inner = f"<thead>{''.join(heads)}</thead><tbody>{''.join(rows)}</tbody>"
    label = html.escape(about)
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>{inner}</table></div>'


def head_row(names: Iterable[str]) -> str:
    """Return a header row with one cell for each column."""
    return "<tr>" + "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names) + "</tr>"


def row(name: str, cells: Iterable[str], kind: str = "") -> str:
    """Return a body row; ``cells`` are HTML."""
    return f'<tr{_kind(kind)}><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>'


def command(words: str) -> str:
    """Return a command line as a paragraph."""
    return f"<p><code>{html.escape(words)}</code></p>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
