"""The work of ``bootdiff methods``: it lists what each method says of itself."""

from __future__ import annotations

import sys

from bootdiff.methods.method import ANY, Method
from bootdiff.methods.registry import find_method, single_names
from bootdiff.training.planned import calls_of

HEAD = ("method", "learns from", "student", "calls", "what it is")


def print_methods() -> None:
    """Print a line for each method; those of other packages that are broken are left out with a note."""
    rows = [HEAD, *(_row(find_method(name)) for name in single_names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    for row in rows:
        print("  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[-1]]))
    print("Two run one after the other in one run where the second goes on from the first's student, as in boot+dm.")


def _row(method: Method) -> tuple[str, ...]:
    """Return the words of a method's line."""
    learns = " or ".join(method.sources) + ("" if method.needs_teacher else ", no teacher")
    student = "of any kind" if method.student == ANY else method.student
    try:
        calls = calls_of(method)
    except Exception:  # somebody else's method may raise anything, and is listed all the same
        calls = "–"
    # Ours are a file each, whose first line says in plain words what the method is.
    ours = method.objective.__module__.startswith("bootdiff.")
    told = getattr(sys.modules[method.objective.__module__] if ours else method.objective, "__doc__", None) or ""
    told = told.strip().partition("\n")[0]
    return method.name, learns, student, calls, told
