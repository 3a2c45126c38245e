"""Whether a run has converged, judged without data: the verdict on its looks, in one word and a sentence.

A loss that bootstraps from itself only oscillates, so it tells nothing. A look compares what the student makes from
fixed noises with what the teacher's path makes from them, and that falls until the run has converged.

Source: docs/method.md, "Looking without data".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bootdiff.monitoring.alarms import alarm_of
from bootdiff.storage.files import read_json
from bootdiff.storage.runs import Run, read_done
from bootdiff.training.log import read_log

#: the file in a run's folder that holds its looks, one JSON line each
FILE = "watch.jsonl"
#: the fewest looks from which a verdict is made
FEWEST = 4
#: a figure is still falling if the median of the last third of the looks is below the best before by this share
FALLING = 0.05
#: a run is unstable if both figures are so many times their best
UNSTABLE = 2.0
#: a student has collapsed if its diversity is below this share of the teacher's and not on the way up
COLLAPSED = 0.75
#: a run drifts if its share of saturated values exceeds the teacher's by so much, or its distance is so many times
#: its best
SATURATED, DRIFTED = 0.05, 1.3
FRECHET, PATH = "frechet_distance", "path_error"
#: figures that differ by less than this share of the teacher's variance count as equal, unless a look says otherwise
NOISE = {FRECHET: 0.01, PATH: 0.003}

#: samples are no images any more if the path error exceeds the squared difference of two of the teacher's samples
#: by this factor
FARTHER_THAN_OTHERS = 1.5
#: relative distances of looks at n samples differ by chance by less than this number divided by n (docs/log.md)
NOISE_OF_A_SAMPLE = 1.3
#: relative distances also differ by chance by this share of themselves
WANDERING = 0.1
#: a student whose path error is this many times another's has learned less of the path
FAR_OFF = 2.0

Word = Literal[
    "still falling",
    "converged",
    "drifting",
    "brightness drift",
    "saturation drift",
    "growing variance",
    "collapsing",
    "unstable",
    "unknown",
]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run: one word, and a sentence that says why."""

    word: Word
    sentence: str


def read_watch(folder: Path) -> list[dict[str, Any]]:
    """Return the looks of a run, the oldest first; an empty list if it was not watched.

    Of a damaged file it returns the lines that can be read.
    """
    return read_log(folder / FILE)


def is_look(values: Mapping[str, Any]) -> bool:
    """Return whether these are the figures of a look: the ones that every verdict needs are numbers."""
    asked = ("step", PATH, FRECHET, "diversity", "teacher_diversity", "teacher_variance")
    return all(isinstance(values.get(name), int | float) for name in asked)


def judge(looks: Sequence[Mapping[str, Any]]) -> Verdict:
    """Return the verdict on these looks: the gravest that applies, from "unstable" to "converged".

    One look is enough for "unstable".
    """
    if looks and (diverged := _diverged(looks[-1])) is not None:
        return diverged
    if len(looks) < FEWEST:
        return Verdict("unknown", f"{len(looks)} looks are too few to tell; a verdict needs {FEWEST}.")
    # The alarms first: what walks away is soon many times farther off than at best, and its name says more.
    tests = (_alarmed, _unstable, _collapsing, _drifting, _still_falling)
    return next((verdict for test in tests if (verdict := test(looks)) is not None), _converged(looks))


def verdict_of(run: Path) -> Verdict:
    """Return the verdict on a run's folder: on its looks, or without looks on how it ended.

    Without looks it also asks how the run's earlier stages ended.
    """
    if (told := _divergence(run)) is not None:
        return Verdict("unstable", f"{told}; lower the learning rate.")
    looks, path = [look for look in read_watch(run) if is_look(look)], run / "done.json"
    if looks:
        return _with_student(judge(looks), looks, read_done(run).get("student_step") if path.is_file() else None)
    for number, stage in enumerate(Run(run).earlier):
        if (told := _divergence(stage.folder)) is not None:
            name = "the first stage" if number == 0 else f"the stage {stage.folder.name}"
            return Verdict("unstable", f"in {name} {told}; lower its learning rate.")
    if path.is_file() and read_done(run).get("teacher_free"):
        return Verdict("unknown", "its method asks no teacher, so no look could compare with the teacher's path.")
    return Verdict("unknown", "this run was too short to be looked at; --set watch_every=N looks at it anyway.")


def _divergence(run: Path) -> str | None:
    """Return how a run without looks went wrong, as a part of a sentence; None if it did not."""
    done = run / "done.json"
    if done.is_file():
        return read_done(run).get("diverged")
    failure = first_failure(run)
    return None if failure is None else f"the {failure['what']} is not finite at step {failure['step']}"


def first_failure(run: Path) -> Mapping[str, Any] | None:
    """Return what is known of a run's first loss or gradient that was not finite; None if all were finite."""
    path = next(iter(sorted(run.glob("failure-step-*/failure-*.json"))), None)
    return None if path is None else read_json(path)


def _with_student(verdict: Verdict, looks: Sequence[Mapping[str, Any]], step: int | None) -> Verdict:
    """Return the verdict with a sentence that says which step the student is from, where that is known."""
    at = next((look for look in looks if look["step"] == step), None)
    if at is None:
        return verdict
    times = relative_distance(looks[-1]) / max(relative_distance(at), 1e-12)
    best = f"the best look, {times:.3g} times nearer to the teacher's samples than the last"
    words = f"The student is that of step {step}, {'the last' if step == looks[-1]['step'] else best}."
    return Verdict(verdict.word, f"{verdict.sentence} {words}")


def relative_diversity(look: Mapping[str, Any]) -> float:
    """Return the student's diversity over seeds as a share of the teacher's."""
    return look["diversity"] / max(look["teacher_diversity"], 1e-12)


def excess_saturation(look: Mapping[str, Any]) -> float:
    """Return how much the share of saturated values exceeds the teacher's, in the channel where it does most."""
    return max(s - t for s, t in zip(look["saturation"], look["teacher_saturation"], strict=True))


def _diverged(last: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict "unstable" if one look is enough for it; otherwise None.

    It is if figures are not finite, or if the samples are farther from the teacher's than those are from each other.
    """
    if not all(math.isfinite(last[name]) for name in (PATH, FRECHET)):
        return Verdict("unstable", f"figures are not finite at step {last['step']}; lower the learning rate.")
    apart = last["teacher_diversity"] ** 2
    if last[PATH] > FARTHER_THAN_OTHERS * apart > 0:
        return Verdict(
            "unstable",
            f"the samples are {last[PATH] / apart:.3g} times as far from the teacher's of the same noises as the "
            "teacher's are from each other; lower the learning rate.",
        )
    return None


def _unstable(looks: Sequence[Mapping[str, Any]]) -> Verdict | None:
    last = looks[-1]
    times = [last[name] / max(min(look[name] for look in looks), 1e-12) for name in (PATH, FRECHET)]
    if min(times) > UNSTABLE and _farther(looks, last[FRECHET]):
        return Verdict(
            "unstable",
            f"the path error is {times[0]:.3g} times its best and the distance to the teacher's samples "
            f"{times[1]:.3g} times; lower the learning rate.",
        )
    return None


def _collapsing(looks: Sequence[Mapping[str, Any]]) -> Verdict | None:
    shares = [relative_diversity(look) for look in looks]
    rising = shares[-1] > 1.02 * min(shares[-_third(looks) :]) and shares[-1] == max(shares)
    if shares[-1] >= COLLAPSED or rising:
        return None
    return Verdict(
        "collapsing",
        f"the samples of different seeds differ {shares[-1]:.0%} as much as the teacher's (at best {max(shares):.0%}); "
        "raise boundary_weight, or compute the boundary loss more often.",
    )


def _alarmed(looks: Sequence[Mapping[str, Any]]) -> Verdict | None:
    alarm = alarm_of(looks)
    return None if alarm is None else Verdict(alarm.name, alarm.sentence)


def _drifting(looks: Sequence[Mapping[str, Any]]) -> Verdict | None:
    now, before = excess_saturation(looks[-1]), min(excess_saturation(look) for look in looks)
    if now > SATURATED and now > before + SATURATED / 2:
        return Verdict(
            "drifting",
            f"{now:.1%} more of the values are saturated than the teacher's, {now - before:.1%} more than at best; "
            "limit the targets (target_limit), or lower the learning rate.",
        )
    distances = [look[FRECHET] for look in looks]
    recent = min(distances[-2:])
    if recent > DRIFTED * min(distances) and _farther(looks, recent):
        best = looks[distances.index(min(distances))]["step"]
        return Verdict(
            "drifting",
            f"the distance to the teacher's samples is {recent / min(distances):.3g} times what it was at step {best}; "
            "stop earlier, or let the rate fall.",
        )
    return None


def _still_falling(looks: Sequence[Mapping[str, Any]]) -> Verdict | None:
    share = relative_diversity(looks[-1])
    if share < COLLAPSED:  # and rising, or it would have collapsed
        words = f"the samples of different seeds differ {share:.0%} as much as the teacher's, and more with every look"
        return Verdict("still falling", f"{words}; go on longer.")
    fall = {"path error": _fall(looks, PATH), "distance to the teacher's samples": _fall(looks, FRECHET)}
    name, share = max(fall.items(), key=lambda item: item[1])
    if share <= FALLING:
        return None
    return Verdict("still falling", f"the {name} fell by {share:.0%} over the last third of the run; go on longer.")


def _converged(looks: Sequence[Mapping[str, Any]]) -> Verdict:
    last = looks[-1]
    return Verdict(
        "converged",
        f"neither the path error ({last['path_error']:.3g}) nor the distance to the teacher's samples "
        f"({last[FRECHET]:.3g}) fell by more than {FALLING:.0%} over the last third of the run. A longer schedule may "
        "still get lower.",
    )


def relative_distance(look: Mapping[str, Any]) -> float:
    """Return how far the student's samples are from the teacher's, as a share of the teacher's variance.

    It is the sum of two shares: the distance in the middle of the teacher's network, and that in its last block, where
    there is one. The middle alone hardly tells a blurred student from a corrected one.
    """
    texture = look.get("texture_distance", 0.0) / max(look.get("teacher_texture_variance", 1.0), 1e-12)
    return look[FRECHET] / max(look["teacher_variance"], 1e-12) + texture


def has_learned_less(look: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether a look's student is so much farther from the path's ends that its features cannot speak for it.

    A student that has learned next to nothing still gives the teacher's own first answers, whose features may be nearer
    to those of its samples than the features of a student on its way are.
    """
    return bool(look.get("path_error", 0.0) > FAR_OFF * other.get("path_error", math.inf))


def is_better(best: Mapping[str, Any], look: Mapping[str, Any]) -> bool:
    """Return whether the look ``best`` is nearer to the teacher's samples than ``look`` by more than noise.

    The noise follows from both looks' numbers of samples; a share of the distance is added, because figures vary more
    far from the teacher. A student that has learned less of the path is not better.
    """
    if has_learned_less(best, look):
        return False
    noise = sum(NOISE_OF_A_SAMPLE / each.get("count", 1) for each in (best, look))
    return relative_distance(look) - (1 + WANDERING) * relative_distance(best) > noise


def _farther(looks: Sequence[Mapping[str, Any]], distance: float) -> bool:
    """Return whether a distance exceeds the best one by more than noise."""
    return distance - min(look[FRECHET] for look in looks) > _noise(looks[-1], FRECHET)


def _noise(look: Mapping[str, Any], name: str) -> float:
    """Return the difference below which two values of a figure count as equal.

    The path error is a mean over values, whose variance is half the squared difference of two seeds.
    """
    if name == FRECHET:
        return look.get("distance_noise", NOISE[name]) * look["teacher_variance"]
    return NOISE[name] * look["teacher_diversity"] ** 2 / 2


def _third(looks: Sequence[Any]) -> int:
    return max(2, len(looks) // 3)


def _fall(looks: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the share by which the median of the last third is below the best before it; 0 within the noise."""
    count = _third(looks)
    before, after = min(look[name] for look in looks[:-count]), median(look[name] for look in looks[-count:])
    return 1 - after / before if before - after > _noise(looks[-1], name) else 0.0
