"""docs/method.md holds what the code cites, and names only what the code has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/method.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEADINGS = re.findall(r"^#+ (.+)$", PAGE, re.M)
#: of the paper; those of other papers follow a name and a year
CITED_EQUATIONS = re.compile(r"(et al\.,? \(?\d{4}\)?, )?\bEqs?\. (\d+(?:,? (?:and |or )?\d+)*)")
CITED_HEADINGS = re.compile(r'docs/method\.md, ("[^"]+"(?:(?:,| and) "[^"]+")*)')


def words(path: Path) -> str:
    """A source file as one line, without what comments begin with: a citation may go over two."""
    return re.sub(r"\s+(?:#:? )?", " ", path.read_text(encoding="utf-8"))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, a row a list."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


EQUATIONS, SYMBOLS = rows("Equations and where they are"), rows("Symbols and their names")


def test_every_cited_heading_is_one_of_the_pages():
    cited = {
        (heading, path.name)
        for path in SOURCES
        for listed in CITED_HEADINGS.findall(words(path))
        for heading in re.findall(r'"([^"]+)"', listed)
    }
    assert len(cited) > 10
    assert not {(heading, name) for heading, name in cited if heading not in HEADINGS}


def test_the_page_is_cited_with_a_heading():
    for path in SOURCES:
        text = words(path)
        assert text.count("docs/method.md") == len(CITED_HEADINGS.findall(text)), path


def test_every_cited_equation_of_the_paper_is_in_the_table():
    known = {int(number) for equation, *_ in EQUATIONS for number in re.findall(r"\((\d+)\)", equation)}
    cited = {
        (int(number), path.name)
        for path in SOURCES
        for other, numbers in CITED_EQUATIONS.findall(words(path))
        if not other
        for number in re.findall(r"\d+", numbers)
    }
    assert {2, 5, 6, 9, 10, 16} <= {number for number, _ in cited}
    assert not {(number, name) for number, name in cited if number not in known}


def test_every_equation_of_the_page_is_in_the_table_and_the_other_way_round():
    tags = re.findall(r"\\tag\{(\w+)\}", PAGE)
    assert len(tags) == len(set(tags))
    listed = {label for equation, *_ in EQUATIONS for label in re.findall(r"\(([A-E]?\d+)\)", equation)}
    # The appendix repeats equations of the text.
    assert listed - {"11", "12", "13", "14", "15"} == set(tags)


def members(body: list[ast.stmt]) -> Iterator[str]:
    """What a module or a class defines, and what its methods keep on ``self``."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))
        if isinstance(node, ast.FunctionDef):
            yield from (
                inner.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            )


@pytest.fixture(scope="module")
def defined() -> set[str]:
    """``name`` of all that stands at the top of a module, and ``Class.member``, inherited or not, wherever in src."""
    found: set[str] = set()
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.update(members(tree.body))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                own[node.name] = {*members(node.body)}
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def held(name: str) -> set[str]:
        return own.get(name, set()).union(*(held(base) for base in bases.get(name, []) if base != name))

    return found | {f"{name}.{member}" for name in own for member in held(name)}


@pytest.mark.parametrize("row", [*EQUATIONS, *SYMBOLS], ids=lambda row: row[0])
def test_what_a_row_names_is_in_the_code(row, defined):
    names = re.findall(r"`([^`]+)`", row[-1])
    assert names and not [name for name in names if name not in defined]


def test_markdown_leaves_the_formulas_alone():
    """GitHub reads emphasis, escapes and lists before it reads formulas."""
    text = re.sub(r"`[^`\n]*`", "", PAGE)
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.S)
    assert len(formulas) > 100 and text.count("$") % 2 == 0
    for formula in map("".join, formulas):
        # An underscore after a bracket opens emphasis; a backslash before punctuation is an escape.
        assert not re.search(r"[^\w\s]_|\*|\\[^a-zA-Z]|^\s*[-+=] ", formula, re.M), formula
