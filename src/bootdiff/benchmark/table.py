"""The files of a benchmark: JSON, Markdown, a plot, and a picture with a row a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.ablation.pictures import look, rows_figure, teacher_strip
from bootdiff.benchmark.plan import FILE, MINUTES, PASSES, BenchmarkPlan
from bootdiff.benchmark.results import Result, rows_of, teacher_rows
from bootdiff.evaluation.comparison_files import quality_chart
from bootdiff.evaluation.figures import headings
from bootdiff.samplers.rows import sampler_name
from bootdiff.storage.files import write_json, write_text, write_whole
from bootdiff.storage.runs import environment
from bootdiff.system.invoked import command

DASH = "–"
#: what stands below tables without a Fréchet distance
UNJUDGED = (
    "Without --features and --reference there is no Fréchet distance, so the methods stand by their path errors. "
)
#: the figures that have a column, where they were measured
COLUMNS = (
    "frechet_distance", "precision", "recall", "inception_score", "faithfulness", "clip_score", "path_error",
)  # fmt: skip


def write_results(
    plan: BenchmarkPlan, results: Sequence[Result], reasons: Mapping[str, str], draws: bool = True
) -> None:
    """Write ``benchmark.json`` and ``benchmark.md``; and for each kind of budget a plot and a picture.

    Args:
        draws: whether plots and pictures are drawn anew.
        reasons: why runs have no figures, by their folders.
    """
    folder = plan.asked.output
    rows = list(rows_of(results))
    words = {"command": command(), "asked": dict(plan.identity), "failed": dict(reasons)}
    write_json(folder / FILE, {**words, "rows": rows, "teacher": list(teacher_rows(results)), **environment()})
    for kind in dict.fromkeys(result.kind for result in results) if draws else ():
        same = [result for result in results if result.kind == kind]
        _draw(plan, kind, same, [row["method"] for row in rows if row["budget"] == kind])
    write_text(folder / "benchmark.md", document(plan, rows, results, reasons))


def _draw(plan: BenchmarkPlan, kind: str, results: Sequence[Result], ranked: Sequence[str]) -> None:
    """Draw the plot and the picture of each method's first training seed, the best methods first."""
    folder, of = plan.asked.output, {result.method: result for result in reversed(results)}
    first = {method: of[method] for method in dict.fromkeys(ranked)}
    rows = [{**row, "title": result.method} for result in first.values() for row in result.rows if row["stage"] is None]
    if any(row["frechet_distance"] is not None for row in rows):
        chart = quality_chart([*teacher_rows(results), *rows], told=False)
        write_whole(folder / f"quality-{kind}.png", lambda path: chart.savefig(path, dpi=130))
    looks = {method: look(result.folder, plan.unnamed) for method, result in first.items()}
    strips = [(method, seen.samples) for method, seen in looks.items() if seen is not None]
    if strips:
        teacher = teacher_strip(next(iter(first.values())).folder, plan.unnamed)
        above = [] if teacher is None else [("teacher, DDIM 50", teacher)]
        picture = rows_figure([*above, *strips])
        write_whole(folder / f"samples-{kind}.png", lambda path: picture.savefig(path))


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of a table of rows; figures that no row has are left out."""
    known = headings()
    names = [name for name in COLUMNS if any(name in row["figures"] for row in rows)]
    compared = ["worth calls"] * ("frechet_distance" in names)
    head = ["method", *(known[name][0] for name in names), *compared, "images/s", "passes", "seconds", "memory"]
    table = []
    for row in rows:
        figures = [_figure(row["figures"].get(name), known[name][1]) for name in names]
        worth = [" / ".join(dict.fromkeys(word for word in row["worth"] if word)) or DASH] * len(compared)
        speed = DASH if row["images_per_second"] is None else f"{row['images_per_second']:.3g}"
        passes = DASH if row["passes"] is None else f"{row['passes']:,.0f}"
        memory = DASH if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:,.0f} MiB"
        table.append([row["method"], *figures, *worth, speed, passes, f"{row['seconds']:.0f}", memory])
    return [*head, "learned from"], [[*line, row["source"]] for line, row in zip(table, rows, strict=True)]


def _figure(figure: Mapping[str, Any] | None, form: str) -> str:
    if figure is None:
        return DASH
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return f"{value:{form}}" if low == high else f"{value:{form}} ({low:{form}} to {high:{form}})"


def titled(rows: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, int], list[Mapping[str, Any]]]:
    """Return the rows of each table, by kind of budget and number of calls."""
    tables: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault((row["budget"], row["calls"]), []).append(row)
    return tables


def title(plan: BenchmarkPlan, kind: str, calls: int) -> str:
    """Return the heading of a table."""
    budget = (plan.identity["budgets"] or {}).get(kind)
    size = "" if budget is None else f"{budget:,.0f} passes a run" if kind == PASSES else f"{budget:g} minutes a run"
    return f"{'One call' if calls == 1 else f'{calls} calls'}{', ' * bool(size)}{size}"


def document(
    plan: BenchmarkPlan, rows: Sequence[Mapping[str, Any]], results: Sequence[Result], reasons: Mapping[str, str]
) -> str:
    """Return the text of the Markdown file."""
    lines = [f"# Methods of distilling {plan.teacher.name}, at equal budgets", "", f"    {command()}", ""]
    for (kind, calls), same in titled(rows).items():
        lines += [f"## {title(plan, kind, calls)}", "", *markdown(*cells(same)), ""]
        pictures = [f"{name}-{kind}.png" for name in ("quality", "samples")]
        if calls == 1:
            lines += [line for name in pictures if (plan.asked.output / name).exists()
                      for line in (f"![{name}]({name})", "")]  # fmt: skip
    lines += [*_teacher(teacher_rows(results)), _about(plan, results), ""]
    lines += [f"- {folder} has no figures: {why}" for folder, why in reasons.items()]
    return "\n".join(lines) + "\n"


def markdown(head: Sequence[str], table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines in Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *table)]


def _teacher(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    best = [row for row in rows if row["best_of"] is not None]
    if not best:
        return []
    known = headings()
    names = [name for name in COLUMNS if any(name in row["figures"] for row in best)]
    body = [
        [f"{sampler_name(row['sampler'])}, {row['spacing']}", str(row["calls"]),
         *(_cell(row["figures"].get(name), known[name][1]) for name in names)]
        for row in best
    ]  # fmt: skip
    return ["## The teacher's best", "", *markdown(["sampler", "calls", *(known[n][0] for n in names)], body), ""]


def has_distances(results: Sequence[Result]) -> bool:
    """Return whether any student has a Fréchet distance."""
    return any("frechet_distance" in row["figures"] for result in results for row in result.rows)


def differing(results: Sequence[Result]) -> str:
    """Return a sentence where the methods' images have different guidance weights, which makes them no match."""
    weights = {result.method: result.weight for result in results}
    if len(set(weights.values())) < 2:
        return ""
    told = ", ".join(f"{method} {weight:g}" for method, weight in weights.items())
    return f"Their guidance weights differ, so their figures are of different things: {told}."


def _cell(figure: Mapping[str, Any] | None, form: str) -> str:
    return DASH if figure is None else f"{figure['value']:{form}}"


def _about(plan: BenchmarkPlan, results: Sequence[Result]) -> str:
    asked = plan.asked.measured
    trained = sorted({result.seed for result in results})
    seeds = ", ".join(map(str, trained))
    several = (
        "; figures are means, with the lowest and the highest in brackets; plot and picture are of the first seed alone"
        if len(trained) > 1 else ""
    )  # fmt: skip
    return (
        "A pass is one sample through a network of the teacher's size, and its way back counts two. The passes of "
        "teacher and learners count alike, and so does the making of pairs and trajectories; evaluation does not. "
        f"Training seeds {seeds}{several}. {asked.num:,} samples a noise seed, {asked.repeats} noise seed(s) from "
        f"{asked.seed}, the same noises for all. A dash: the method makes no image in so many calls. Each run has a "
        "process of its own; memory is the most that it held. Settings: "
        "`seed-N-settings.yaml` beside each run. "
        f"{'Minutes are of training, by the speed of a short run before. ' if MINUTES in plan.asked.budgets else ''}"
        f"{UNJUDGED if results and not has_distances(results) else ''}{differing(results)}"
    ).strip()
