"""What a run is going to cost in passes, counted before it begins.

The method's own turns are run once each on a stand-in for the teacher, two numbers in and two out, as the loop would
run them. So the count is the method's, whatever it does, and a teacher of any size costs nothing.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from bootdiff.config.mixins import STORED, StoredPairs
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.passes import counting
from bootdiff.core.randomness import Draw
from bootdiff.core.turn import Turn
from bootdiff.data.conditions import Conditions, Unconditional, Weighted
from bootdiff.data.sources import Batch, Noise
from bootdiff.methods.base import Objective
from bootdiff.methods.method import Method, Stage
from bootdiff.methods.registry import find_method, method_of
from bootdiff.methods.settings import DistillationSettings
from bootdiff.methods.staged import TwoStages
from bootdiff.schedules import Cosine
from bootdiff.students.card import StudentCard
from bootdiff.students.kinds import student_kind
from bootdiff.teachers import CallableTeacher, Teacher
from bootdiff.teachers.guidance import guided
from bootdiff.training.passes import counter_of, told

if TYPE_CHECKING:
    from bootdiff.students import Student

SHAPE = (2,)
#: what the stand-in has otherwise than the teacher; no number of passes depends on it
OTHERWISE = {"t_min": 0.02, "t_max": 0.98, "distance": "l2", "target_limit": "teacher", "student": None, "start": None}


def planned_passes(settings: DistillationSettings, answers: int = 1, share: float = 1.0) -> dict[str, float]:
    """Return the passes of a run to its last step, by network, and in all as ``"all"``, over all of its stages.

    Those of the samples that it stores are its source's.

    A perceptual distance, and text encoders or a base stage within the loop, are left out.

    Args:
        answers: how often the teacher's network is evaluated for one answer: twice with guidance, else once.
        share: what a pass of the student's network counts, where that is another than the teacher's.
    """
    total: Counter[str] = Counter()
    known, stages = _stages(settings)
    sharing = [stage for stage in stages if not stage.own_samples]
    makers = [stage for stage in stages if stage.own_samples]  # rounds that share their samples make them once
    makers += [max(sharing, key=lambda stage: getattr(stage.settings, "making", 0))] if sharing else []
    for stage in stages:
        total.update(_run_of(stage.settings, _answers(stage, answers)))
    for stage in makers:
        if isinstance(stage.settings, StoredPairs) and stage.settings.making:
            kind = getattr(stage.settings, "source", None) or known.sources[0]
            maker = _answers(stage, answers) if stage.own_samples else answers
            total[kind if kind in STORED else "pairs"] += maker * stage.settings.making
    known_passes: dict[str, float] = {**total, "student": share * total["student"]}
    return told({name: value for name, value in known_passes.items() if value})


def _stages(settings: DistillationSettings) -> tuple[Method, Sequence[Stage]]:
    """Return the method whose settings these are, and the stages of a run with them."""
    known = find_method(settings.method_name) if isinstance(settings, TwoStages) else method_of(settings)
    return known, known.stages_of(settings)


def _answers(stage: Stage, answers: int) -> int:
    """Return how often a network is evaluated for an answer of a stage's teacher; students have learned guidance."""
    return answers if stage.learns_from is None else 1


def passes_a_step(settings: DistillationSettings, answers: int = 1) -> float:
    """Return the passes of a step in units of the batch, on average over the stage's steps."""
    return sum(_run_of(settings, answers).values()) / (settings.steps * settings.batch_size)


def calls_of(method: Method) -> str:
    """Return how often the student of a method is evaluated for an image, by its defaults: "1", or "1 or more"."""
    last = method.stages_of(method.settings())[-1].settings
    student = cast("Student", _objective(last, 1).learners()["student"].module)
    return f"{student.calls} or more" if student.any_calls else f"{student.calls * student.evaluations}"


def kept_passes(settings: DistillationSettings, answers: int = 1) -> list[dict[str, int]]:
    """Return the passes with gradients that every term of a run's losses keeps for one sample, by network.

    Args:
        answers: as in ``planned_passes``.
    """
    kept: list[dict[str, int]] = []
    for stage in _stages(settings)[1]:
        asked = stage.settings
        objective = _objective(asked, _answers(stage, answers))
        for step in (0, asked.steps - 1):  # a fake denoiser may learn alone at first
            for turn in dict.fromkeys(objective.turns(step)):
                kept += [{n: -(-v // (2 * asked.batch_size)) for n, v in term.items()}
                         for term in _turn(objective, asked, step, turn)[1]]  # fmt: skip
    return kept


def _run_of(settings: DistillationSettings, answers: int) -> Counter[str]:
    """Return the passes of one stage by network.

    Steps are alike if their turns are, and if both have a boundary or none.
    """
    objective, every = _objective(settings, answers), getattr(settings, "boundary_every", 1)
    alike: dict[tuple[Sequence[str], bool], list[int]] = {}
    for step in range(settings.steps):
        alike.setdefault((tuple(objective.turns(step)), step % every == 0), [step, 0])[1] += 1
    total: Counter[str] = Counter()
    for (turns, _), (step, times) in alike.items():
        for name, again in Counter(turns).items():
            passes = _turn(objective, settings, step, name)[0]
            total.update({network: times * again * value for network, value in passes.items()})
    return Counter({name: total[name] for name in counter_of(objective).names if total[name]})


def _turn(
    objective: Objective, settings: DistillationSettings, step: int, name: str
) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Return the passes of a learner's turn, and of every term those that gradients went back through; by network."""
    networks = WithCopies({name: learner.module for name, learner in objective.learners().items()})
    for other, module in networks.items():
        module.requires_grad_(other == name)
    draw = Draw(settings.seed, step, name, 0, settings.batch_size, settings.batch_size)
    counter, terms = counter_of(objective), []
    with torch.enable_grad(), counter.attached(), counting():
        for term in objective.losses(networks, Turn(name, step, 0.0, draw), objective.source.batch(draw)):
            before = counter.backward.copy()
            term().total.backward()
            terms.append(_by_name(counter.backward - before))
    return _by_name(counter.forward + counter.backward), terms


def _by_name(counted: Mapping[tuple[str, int], int]) -> dict[str, int]:
    passes: Counter[str] = Counter()
    for (name, _), samples in counted.items():
        passes[name] += samples
    return dict(passes)


def _objective(settings: DistillationSettings, answers: int) -> Objective:
    """Return the method's objective for a stand-in, with the program's random numbers left as they were."""
    with torch.random.fork_rng(devices=[]):
        teacher: Teacher = CallableTeacher(StandIn(), Cosine(), "sample", SHAPE)
        if answers > 1:
            weight = None if settings.guidance_range is not None else settings.guidance_scale or 1.0
            teacher = guided(teacher, Condition(), weight)
        conditions: Any = Unconditional()
        if settings.guidance_range is not None:
            low, high = settings.guidance_range
            conditions = Weighted(conditions, low, high, low)
        asked = settings.model_copy(update=OTHERWISE)
        return method_of(settings).build(
            teacher, asked, AnySource(conditions, getattr(settings, "trajectory_times", 2))
        )


def rehearsed(
    method: Method, settings: DistillationSettings, teacher: Teacher, start: Student | None = None
) -> Student | None:
    """Return the student of a stage as it is when its training begins, with a stand-in for all networks.

    Args:
        teacher: only its shape and its schedule are used.
        start: the student that the stage goes on from, with a stand-in as well; None for a new one.

    Returns:
        The student; None where a method of another package reads of its teacher what a stand-in has not.

    Raises:
        BootdiffError: if the method refuses the settings, the schedule or the student.
    """
    asked = settings.model_copy(update={"distance": "l2", "target_limit": "teacher", "student": None})
    source = AnySource(Unconditional(), getattr(settings, "trajectory_times", 2))
    with torch.random.fork_rng(devices=[]):
        try:
            objective = method.build(_stand_in_of(teacher), asked, source, start)
        except BootdiffError:
            raise
        except Exception:
            return None
    return cast("Student", objective.learners()["student"].module)


def rehearsed_start(card: StudentCard, teacher: Teacher) -> Student:
    """Return the student of a card, with a stand-in for its network; only the teacher's shape and schedule are used."""
    with torch.random.fork_rng(devices=[]):
        student = student_kind(card.kind).from_teacher(_stand_in_of(teacher), *card.times, card.weight.plain)
    student.take(card.facts)
    student.calls, student.any_calls = card.calls, card.any_calls and student.several
    student.continued = True
    return student


def _stand_in_of(teacher: Teacher) -> Teacher:
    return CallableTeacher(StandIn(), teacher.schedule, "sample", teacher.shape)


class WithCopies(dict[str, nn.Module]):
    """The learners' networks by name, and under ``learner@average`` a copy that only answers, as an average does."""

    def __missing__(self, name: str) -> nn.Module:
        self[name] = copy.deepcopy(self[name.partition("@")[0]]).requires_grad_(False)
        return self[name]


class AnySource(Noise):
    """A source whose batches hold everything that any method reads; what it is does not matter for a count."""

    def __init__(self, conditions: Conditions, states: int) -> None:
        super().__init__(SHAPE, conditions)
        self.states = states

    def batch(self, draw: Draw) -> Batch:
        """Return noises (b, 2) that are samples and states as well."""
        noise = super().batch(draw)
        states = noise.noise[:, None].expand(-1, self.states, *SHAPE)
        return replace(noise, data=noise.noise, states=states, times=torch.linspace(0.98, 0.02, self.states))


class StandIn(nn.Module):
    """A network that stands for a teacher's where only its calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)  # of every value, so that it fits any shape

    def forward(self, x: Tensor, timestep: Tensor, **condition: Tensor) -> Tensor:
        """Return values like x, (b, *shape), whatever the condition."""
        return self.layer(x.flatten(1)[..., None]).reshape(x.shape)
