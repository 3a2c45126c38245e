"""The contract between a method and the loop that trains it.

An objective says which networks learn, in what turns, and what each turn's loss is. The loop knows nothing else, and
no method's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from torch import Tensor, nn

from bootdiff.config.mixins import Optimiser
from bootdiff.core.condition import Condition
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source
from bootdiff.losses.distances import Distance
from bootdiff.teachers import Teacher, adapter_of

if TYPE_CHECKING:
    from bootdiff.students import Student

#: the loop's networks by the learner's name. They are prepared (wrapped for several processes), never raw: a backward
#: pass through a raw module leaves gradients unsynchronised without a word. ``student@target`` is the student with the
#: weights of its average of the name ``target``; it only answers, without gradients.
Networks = Mapping[str, nn.Module]
#: the decay of an average of weights, in [0, 1), as a function of the number of updates that it has seen
Decay = Callable[[int], float]
#: the name of the average that is sampled and exported, where a learner keeps one of this name
EMA = "ema"


@dataclass(frozen=True)
class Steady:
    """A decay that is the same from the first update on."""

    decay: float

    def __call__(self, updates: int) -> float:
        """Return the decay after so many updates."""
        return self.decay


@dataclass(frozen=True)
class Rising:
    """A decay that rises as (1 + n) / (10 + n), so that the average soon forgets how training began.

    Args:
        decay: the decay that it reaches.
    """

    decay: float

    def __call__(self, updates: int) -> float:
        """Return the decay after so many updates."""
        return min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0


def sampled(decay: float, from_start: bool = False) -> dict[str, Decay]:
    """Return the averages of a learner that keeps the sampled one at most.

    Args:
        decay: its decay; 0 for no average.
        from_start: whether it has that decay from the start, or rises to it.
    """
    return {EMA: Steady(decay) if from_start else Rising(decay)} if decay else {}


@dataclass
class Learner:
    """A network that is trained, with its own optimiser settings.

    Args:
        module: the raw network, not wrapped for several processes.
        learning_rate: AdamW's rate before its schedule.
        betas: AdamW's betas.
        averages: the averages of its weights that are kept, by name, each with its decay. The one named ``"ema"`` is
            sampled and exported; without it the weights themselves are. A loss may call any of them.
        starts: the first step in which it learns, from which its rate warms up.
    """

    module: nn.Module
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    averages: Mapping[str, Decay] = field(default_factory=dict)
    starts: int = 0


@dataclass
class Loss:
    """One term of a turn's loss.

    Args:
        total: the scalar to differentiate, a mean over the slice of the batch; the terms of a turn are added up.
        scalars: values to log by name, detached.
        by_time: values of each sample to log by time bin: (times (b,), values (b,)) for each name, detached.
    """

    total: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    by_time: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Objective(Protocol):
    """The contract of a method: which networks learn, in what turns, and with what loss.

    A new method is one file that implements this.
    """

    @property
    def source(self) -> Source:
        """Return the source of batches, which says what a batch holds: noise, stored pairs or images."""
        ...

    def learners(self) -> Mapping[str, Learner]:
        """Return the networks that learn, by name; the one named ``"student"`` is exported."""
        ...

    def frozen(self) -> Sequence[nn.Module]:
        """Return the networks that only answer and do not learn, so that they can be moved to the training device."""
        ...

    def turns(self, step: int) -> Sequence[str]:
        """Return the learners that update in this step, in order, such as ``("fake", "fake", "student")``."""
        ...

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the turn's loss, each still to be computed.

        Gradients reach the turn's own network only.

        What needs no gradients (the targets) is computed in this call. A term is one pass with gradients: the loop
        differentiates one term before it computes the next, so that only one pass's activations are alive at a time.
        """
        ...

    def after_step(self, networks: Networks, step: int) -> None:
        """Do what follows a step, such as measuring a scale for the next one."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that the objective itself must find again after a resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        ...


class Stateless:
    """The defaults of an objective that keeps no state of its own."""

    def after_step(self, networks: Networks, step: int) -> None:
        """Do nothing between steps."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return no tensors, because there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ignore the tensors, because there is no state."""


class OneLearner(Stateless):
    """The base of an objective in which one network learns, the student, in a turn a step.

    It has the fields ``student``, a learner, and ``distance``, and perhaps ``teacher``, which only answer.
    """

    #: what ``methods.method.method`` declares the class to be
    method: ClassVar[Any]
    student: Learner
    distance: Distance

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the student alone."""
        return {"student": self.student}

    def frozen(self) -> Sequence[nn.Module]:
        """Return the teacher, and the network of the distance, where it has them."""
        asked = (getattr(self, name, None) for name in ("teacher", "distance"))
        return [one for one in asked if isinstance(one, nn.Module)]

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: one, the student's."""
        return ("student",)

    def fresh(self, turn: Turn, batch: Batch) -> Tensor:
        """Return noises for the batch's samples, (b, *shape), that are not those of its pairs."""
        noise: Tensor = turn.draw.normal("noise", batch.data.shape[1:])
        return noise.to(batch.data.device)

    def regression(self, name: str, answers: Tensor, targets: Tensor, weight: Tensor | None = None) -> Loss:
        """Return E w d(answer, target), for answers and targets (b, *shape) and weights (b,), logged under ``name``."""
        each = self.distance(answers, targets)
        loss = (each if weight is None else weight * each).mean()
        return Loss(loss, {name: loss.detach()})

    def image(self, networks: Networks, batch: Batch) -> Tensor:
        """Return the student's images of the batch's noises in one call, (b, *shape), not limited."""
        inputs = cast("Student", self.student.module).image_inputs(batch.noise)
        images: Tensor = networks["student"](*inputs, batch.condition)
        return images


def learner_of(student: nn.Module, settings: Optimiser) -> Learner:
    """Return a student as a learner with the rate, the weight decay and the average that the settings ask for."""
    return Learner(
        student,
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        averages=sampled(settings.ema_decay),
    )


def example_of(teacher: Teacher, source: Source) -> Condition | None:
    """Return one condition such as a network without a pipeline will be given; None where a pipeline knows its shapes.

    It is the first of the source's conditions, where the source says which it has.
    """
    conditions = getattr(source, "conditions", None)
    if conditions is None or adapter_of(teacher) is not None:
        return None
    example: Condition = conditions.listed(0, 0, 1)
    return example
