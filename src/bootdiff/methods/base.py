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

#: the loop's networks by the learner's name. They are prepared (wrapped for several processes), never raw: a backward
#: pass through a raw module leaves gradients unsynchronised without a word.
Networks = Mapping[str, nn.Module]


@dataclass
class Learner:
    """A network that is trained, with its own optimiser settings.

    Args:
        module: the raw network, not wrapped for several processes.
        learning_rate: AdamW's rate before its schedule.
        betas: AdamW's betas.
        ema_decay: the decay of the averaged copy that is sampled and exported; 0 keeps no such copy.
        ema_from_start: whether the average has that decay from the start; otherwise the decay rises to it, so that the
            average soon forgets how training began.
        starts: the first step in which it learns, from which its rate warms up.
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
        total: the scalar to differentiate, a mean over the slice of the batch; the terms of a turn are added up.
        scalars: values to log by name, detached.
        by_time: values of each sample to log by time bin: (times (b,), values (b,)) for each name, detached.
    """

    total: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    by_time: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """An order to start a learner's optimiser, rate schedule and EMA anew, as in progressive distillation's rounds."""

    learner: str


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

    def after_step(self, networks: Networks, step: int) -> Iterable[Reset]:
        """Do what follows a step, such as moving an EMA target; return the learners that must start anew."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that the objective itself must find again after a resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        ...


class Stateless:
    """The defaults of an objective that keeps no state of its own."""

    def after_step(self, networks: Networks, step: int) -> Iterable[Reset]:
        """Do nothing between steps, and start no learner anew."""
        return ()

    def state_dict(self) -> dict[str, Tensor]:
        """Return no tensors, because there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ignore the tensors, because there is no state."""
