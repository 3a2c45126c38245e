"""Call equivalence: how many of its teacher's best calls one call of a student is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bootdiff.samplers.rows import PATH, is_student, sampler_name

#: the words with which the last line of ``evaluate`` and of the quickstart begins
ONE_CALL_IS_WORTH = "One call is worth"


@dataclass(frozen=True)
class Point:
    """A point of the teacher's curve, made from one of its rows.

    Args:
        calls: network calls for one image.
        distance: the Fréchet distance to the reference.
    """

    calls: int
    distance: float


def worth(distance: float, curve: Sequence[Point]) -> float:
    """Return the number of calls at which the running minimum of a curve reaches a distance.

    Between two points the running minimum is linear in the logarithms of calls and distance.

    Args:
        curve: the teacher's best rows, in any order.

    Returns:
        The number of calls: 0 if the first point is already nearer, infinity if no point is as near, nan if there are
        no points.
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
    """How much one call of a student is worth.

    Args:
        calls: the number of the teacher's best calls; None if it is below the teacher's fewest, if the teacher never
            gets there, or if it is not known.
        says: the number of calls in words.
        low, high: the smallest and the largest number over noise seeds, in words; None with one seed.
        seeds: the number of noise seeds.
        beside: the teacher's row at that number of calls, in words; None if it is not known.
        student_calls: the student's calls for one image.
        fewest: the calls of the first row of the teacher's curve.
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
        """Return the sentence that a reader wants first."""
        if self.beside is None:
            return f"{ONE_CALL_IS_WORTH} {self.says}."
        told = [f"{ONE_CALL_IS_WORTH} {self.says} of the teacher's best calls: {self.beside}."]
        if self.low is not None:
            told.append(f"Over {self.seeds} noise seeds it is worth from {self.low} to {self.high}.")
        if self.student_calls > 1:
            told.append(f"The student makes an image in {self.student_calls} calls.")
        return " ".join(told)

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the sentence as a dictionary that can be written as JSON."""
        return {**asdict(self), "sentence": self.sentence}


def unknown(why: str) -> Equivalence:
    """Return the equivalence of a student that cannot be compared, with the reason."""
    says = f"a number of the teacher's calls that is not known: {why}"
    return Equivalence(None, says, low=None, high=None, seeds=0, beside=None, student_calls=1, fewest=None)


def equivalence(student: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Equivalence:
    """Return what a measured student's call is worth, by the measured rows of its teacher.

    Args:
        student: the student's measured row.
        rows: measured rows; among them are the teacher's best, and the path's exact end if it was measured.
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
    """Return whether a row is one of the teacher's own, with a Fréchet distance.

    The running minimum leaves the worse ones out.
    """
    return row["kind"] == "teacher" and row["start"] is None and row["frechet_distance"] is not None


def _said(calls: float, cost: int, fewest: int, most: int | None) -> str:
    """Return a number of calls in words.

    ``most`` are the calls of the longest row; None if the curve goes to the path's exact end.
    """
    if calls == math.inf:
        return "more than any number" if most is None else f"more than {most / cost:.3g}"
    if calls == 0:
        return "less than one" if fewest <= cost else f"less than {fewest / cost:.2g}"
    each = calls / cost
    return f"{each:.2g}" if each < 99.5 else f"{each:.0f}"


def _beside(calls: float, curve: Sequence[Mapping[str, Any]]) -> str:
    """Return in words the first row that reaches the student's distance, or else the nearest of all."""
    reached = [row for row in curve if row["calls"] >= calls]
    row = min(reached or curve, key=lambda row: (row["calls"] if reached else 0, row["frechet_distance"]))
    with_calls = "1 call" if row["calls"] == 1 else f"{row['calls']} calls"
    return (
        f"{sampler_name(row['sampler'])} with {with_calls} reaches a Fréchet distance of {row['frechet_distance']:.3g}"
    )


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return sentences on what a call of every student is worth.

    A single finished student's sentence comes last, without its name.

    Args:
        rows: measured rows, of which those of the teacher are left out. Several finished students are named.
    """
    students = sorted((row for row in rows if row["kind"] == "student"), key=is_student)
    several = sum(map(is_student, students)) > 1
    return [
        row["call_equivalence"]["sentence"]
        if is_student(row) and not several
        else f"{row['name']}: {row['call_equivalence']['sentence']}"
        for row in students
    ]
