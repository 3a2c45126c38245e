"""The printing of measured rows on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.evaluation.comparison_files import table_cells
from bootdiff.evaluation.curve import is_shown
from bootdiff.evaluation.equivalence import sentences
from bootdiff.samplers.rows import sampler_name

#: the width assumed of a terminal that does not say how wide it is
WIDTH = 160


def print_table(result: Mapping[str, Any], everything: bool = False) -> None:
    """Print the rows, and in the last line what one call of the student is worth.

    Args:
        everything: whether to print also the teacher's best at every number of calls, and what it was chosen from.
    """
    rows = [row for row in result["rows"] if everything or is_shown(row)]
    head, cells = table_cells({**result, "rows": rows}, intervals=False)
    _print(head, cells, [row["kind"] == "student" for row in rows])
    if everything and result["choice"]:
        tried = result["choice"]
        body = [
            [sampler_name(t["sampler"]), str(t["steps"]), t["spacing"], str(t["calls"]), f"{t['num']:,}",
             "–" if t["frechet_distance"] is None else f"{t['frechet_distance']:.3f}"]
            for t in tried
        ]  # fmt: skip
        print("The teacher's samplers on other noises, by which its best was chosen:")
        _print(["sampler", "steps", "spacing", "calls", "samples", "Fréchet distance"], body, [False] * len(tried))
    print(
        "path error: mean squared difference to the path's exact end for the same noise, 50 Heun steps of the teacher; "
        "of a student from its own t_max."
    )
    if result.get("time_search"):
        print(_searched(result["time_search"]))
    for sentence in sentences(result["rows"]):
        print(sentence)


def _searched(search: Mapping[str, Any]) -> str:
    """Return what a search of times has found, as a sentence for the terminal."""
    times, single = ",".join(f"{time:.6g}" for time in search["times"]), all(search["single_minimum"])
    looked = f"{len(search['tried'])} sequences of times were looked at"
    shape = "the distance fell and then rose, as the search assumes"
    if not single:
        shape = "the search assumes that the distance has one minimum, and it has more"
    return f"Searched times of {search['calls']} calls: --times {times} ({looked}; {shape})."


def _print(head: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number == 0 else "right")
    for cells, strong in zip(rows, bold, strict=True):
        table.add_row(*cells, style="bold" if strong else None)
    Console(width=None if Console().is_terminal else WIDTH).print(table)
