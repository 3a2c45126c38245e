"""The contract between a method and the loop that trains it.

An objective says which networks learn, in what turns, and what each turn's loss is. The loop knows nothing else, and
no method's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Source

#: the loop's networks by learner: prepared (wrapped for several processes), never raw, because a backward pass through
#: a raw module leaves gradients unsynchronised without a word
Networks = Mapping[str, nn.Module]


@dataclass
class Learner:
    """A network that is trained, with its own optimiser settings.

    Args:
        module: the raw network.
        learning_rate: AdamW's rate before its schedule.
        betas: AdamW's.
        ema_decay: of the averaged copy that is sampled and exported; 0 keeps none.
        ema_from_start: whether the average begins with that decay; otherwise it rises to it, to forget the start soon.
        starts: its first step, from which its rate warms up.
    """

    module: nn.Module
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    ema_decay: float = 0.0
    ema_from_start: bool = False
    starts: int = 0


@dataclass
class Loss:
    """One term of a turn's loss.

    Args:
        total: the scalar to differentiate, a mean over the slice; a turn's terms add up.
        scalars: named values to log, detached.
        by_time: per-sample values to log by time bin, (times (b,), values (b,)) a name, detached.
    """

    total: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    by_time: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """An event: a learner's optimiser, rate schedule and EMA start anew, as in progressive distillation's rounds."""

    learner: str


class Objective(Protocol):
    """One method. A new method is one file that implements this."""

    @property
    def source(self) -> Source:
        """What a batch holds: noise, stored pairs or images."""
        ...

    def learners(self) -> Mapping[str, Learner]:
        """The networks that learn; ``"student"`` is the one exported."""
        ...

    def frozen(self) -> Sequence[nn.Module]:
        """The networks that only answer, to be moved to the training device."""
        ...

    def turns(self, step: int) -> Sequence[str]:
        """The learners that update in this step, in order: ``("fake", "fake", "student")``."""
        ...

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """The terms of the turn's loss, each still to be computed; gradients reach the turn's own network only.

        What needs no gradients (targets) is made at once. A term is a pass with gradients: the loop differentiates one
        before it computes the next, so that the activations of one pass are alive at a time.
        """
        ...

    def after_step(self, networks: Networks, step: int) -> Iterable[Reset]:
        """Move an EMA target, hand the student over as the next teacher, …; return what must start anew."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What the objective itself must find again after a resume, as tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back ``state_dict``."""
        ...


class Stateless:
    """Defaults for an objective without a state of its own."""

    def after_step(self, networks: Networks, step: int) -> Iterable[Reset]:
        """Nothing happens between steps."""
        return ()

    def state_dict(self) -> dict[str, Tensor]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """No state."""
