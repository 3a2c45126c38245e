"""Call equivalence: how many of its teacher's best calls a student's one call is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bootdiff.samplers.rows import PATH, is_student, sampler_name

#: with these words the last line of ``evaluate`` and of the quickstart begins
ONE_CALL_IS_WORTH = "One call is worth"


@dataclass(frozen=True)
class Point:
    """A row of the teacher's curve.

    Args:
        calls: of the network for one image.
        distance: Fréchet distance to the reference.
    """

    calls: int
    distance: float


def worth(distance: float, curve: Sequence[Point]) -> float:
    """The calls at which the running minimum of a curve meets a distance.

    Between two points the running minimum is linear in the logarithms of calls and distance.

    Args:
        curve: of the teacher's best rows, in any order.

    Returns:
        0 where the first point is already nearer; infinity where no point is as near.
    """
    points = _running_minimum(curve)
    if not points:
        return math.nan
    if distance > points[0].distance:
        return 0.0
    before = points[0]
    for point in points:
        if point.distance <= distance:
            return _between(before, point, distance)
        before = point
    return math.inf


def _running_minimum(curve: Sequence[Point]) -> list[Point]:
    best = math.inf
    points: list[Point] = []
    for point in sorted(curve, key=lambda point: (point.calls, point.distance)):
        best = min(best, point.distance)
        if not points or point.calls > points[-1].calls:
            points.append(Point(point.calls, best))
    return points


def _between(before: Point, after: Point, distance: float) -> float:
    if before.distance <= after.distance or distance <= 0 or after.distance <= 0:
        return float(after.calls)
    share = math.log(before.distance / distance) / math.log(before.distance / after.distance)
    return before.calls * (after.calls / before.calls) ** share


@dataclass(frozen=True)
class Equivalence:
    """What one call of a student is worth.

    Args:
        calls: of the teacher's best; None below its fewest, where it never gets there, or where it is not known.
        says: the same in words.
        low, high: the smallest and the largest over noise seeds, in words; None with one seed.
        seeds: how many noise seeds.
        beside: the teacher's row there, in words; None where it is not known.
        student_calls: calls of the student for one image.
        fewest: calls of the curve's first row.
    """

    calls: float | None
    says: str
    low: str | None
    high: str | None
    seeds: int
    beside: str | None
    student_calls: int
    fewest: int | None

    @property
    def sentence(self) -> str:
        """The line that a reader wants first."""
        if self.beside is None:
            return f"{ONE_CALL_IS_WORTH} {self.says}."
        told = [f"{ONE_CALL_IS_WORTH} {self.says} of the teacher's best calls: {self.beside}."]
        if self.low is not None:
            told.append(f"Over {self.seeds} noise seeds it is worth from {self.low} to {self.high}.")
        if self.student_calls > 1:
            told.append(f"The student makes an image in {self.student_calls} calls.")
        return " ".join(told)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready, with the sentence."""
        return {**asdict(self), "sentence": self.sentence}


def unknown(why: str) -> Equivalence:
    """The equivalence of a student that cannot be compared, with the reason."""
    says = f"a number of the teacher's calls that is not known: {why}"
    return Equivalence(None, says, low=None, high=None, seeds=0, beside=None, student_calls=1, fewest=None)


def equivalence(student: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Equivalence:
    """What a measured student's call is worth, by the measured rows of its teacher.

    Args:
        student: a row.
        rows: among them the teacher's best rows, and the path's exact end where it was measured.
    """
    curve = [row for row in rows if _is_on_the_curve(row)]
    if student["frechet_distance"] is None:
        return unknown("a Fréchet distance needs --features and --reference")
    if not curve:
        return unknown("no row of the teacher has a Fréchet distance")
    whole = any(row["sampler"] == PATH for row in curve)
    cost, fewest = student["calls"], min(row["calls"] for row in curve)
    found = worth(student["frechet_distance"], [Point(row["calls"], row["frechet_distance"]) for row in curve])
    seeds = [
        worth(own, [Point(row["calls"], row["frechet_distances"][number]) for row in curve])
        for number, own in enumerate(student["frechet_distances"])
    ]
    ordered = sorted(seeds)
    most = None if whole else max(row["calls"] for row in curve)
    several = len(seeds) > 1
    return Equivalence(
        found / cost if 0 < found < math.inf else None,
        _said(found, cost, fewest, most),
        _said(ordered[0], cost, fewest, most) if several else None,
        _said(ordered[-1], cost, fewest, most) if several else None,
        len(seeds),
        _beside(found, curve),
        cost,
        fewest,
    )


def _is_on_the_curve(row: Mapping[str, Any]) -> bool:
    """Every row of the teacher's own: the running minimum leaves the worse ones out."""
    return row["kind"] == "teacher" and row["start"] is None and row["frechet_distance"] is not None


def _said(calls: float, cost: int, fewest: int, most: int | None) -> str:
    """Calls in words; ``most`` are those of the longest row, where the curve does not go to the path's exact end."""
    if calls == math.inf:
        return "more than any number" if most is None else f"more than {most / cost:.3g}"
    if calls == 0:
        return "less than one" if fewest <= cost else f"less than {fewest / cost:.2g}"
    each = calls / cost
    return f"{each:.2g}" if each < 99.5 else f"{each:.0f}"


def _beside(calls: float, curve: Sequence[Mapping[str, Any]]) -> str:
    """The teacher's row that is meant: the first that reaches the student's distance, or else the nearest of all."""
    reached = [row for row in curve if row["calls"] >= calls]
    row = min(reached or curve, key=lambda row: (row["calls"] if reached else 0, row["frechet_distance"]))
    with_calls = "1 call" if row["calls"] == 1 else f"{row['calls']} calls"
    return (
        f"{sampler_name(row['sampler'])} with {with_calls} reaches a Fréchet distance of {row['frechet_distance']:.3g}"
    )


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a call of every student is worth; a finished student's own sentence comes last, and without its name.

    Args:
        rows: measured rows; those of the teacher are left out. Of several finished students each is named.
    """
    students = sorted((row for row in rows if row["kind"] == "student"), key=is_student)
    several = sum(map(is_student, students)) > 1
    return [
        row["call_equivalence"]["sentence"]
        if is_student(row) and not several
        else f"{row['name']}: {row['call_equivalence']['sentence']}"
        for row in students
    ]
