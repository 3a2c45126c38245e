"""The passes of a training run: which networks of an objective are counted, and their totals over all processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from torch import nn

from bootdiff.core.passes import PassCounter
from bootdiff.methods.base import Objective
from bootdiff.methods.denoising import Denoiser, TextEncoder
from bootdiff.students.growth import GrownNetwork
from bootdiff.students.lora import LowRank
from bootdiff.students.one_step import OneStep
from bootdiff.students.pipeline import GrownPipelineNetwork
from bootdiff.system.processes import gathered
from bootdiff.teachers import NetworkTeacher, Teacher

#: the entry of the totals that adds up all others
ALL = "all"


class RunPasses:
    """The passes of a run since its first step, over all processes and resumes.

    Args:
        counter: what counts in this process.
    """

    def __init__(self, counter: PassCounter) -> None:
        self.counter = counter
        #: what was counted before this process began; None in a run of an earlier version, which counted nothing
        self.before: dict[str, float] | None = {}

    @classmethod
    def of(cls, objective: Objective) -> RunPasses:
        """Return what counts the passes of an objective's networks."""
        return cls(counter_of(objective))

    def attached(self) -> AbstractContextManager[None]:
        """Return a context in which passes are counted wherever ``counting`` asks for it."""
        return self.counter.attached()

    def state(self) -> dict[str, float] | None:
        """Return the passes by name, over all processes, which must all ask; None if they are not known."""
        everybody = gathered(self.counter.counted())
        if self.before is None:
            return None
        known = [self.before, *everybody]
        return {name: total for name in self._names(known) if (total := sum(c.get(name, 0.0) for c in known))}

    def restore(self, state: Mapping[str, float] | None) -> None:
        """Go on from what ``state`` returned."""
        self.before = None if state is None else dict(state)

    def totals(self) -> dict[str, float] | None:
        """Return ``state`` for people: rounded, and with the sum as ``"all"``; every process must ask."""
        state = self.state()
        return None if state is None else told(state)

    def _names(self, known: Sequence[Mapping[str, float]]) -> list[str]:
        """Return all names, those of networks first, in an order that a resume does not change."""
        others = sorted({name for counted in known for name in counted})
        return list(dict.fromkeys([*self.counter.names, *others]))


def told(passes: Mapping[str, float]) -> dict[str, float]:
    """Return passes by name, rounded to thousandths, and their sum as ``"all"``; whole numbers are ints."""
    both = {**passes, ALL: sum(passes.values())}
    return {name: int(value) if value == int(value) else round(value, 3) for name, value in both.items()}


def counter_of(objective: Objective) -> PassCounter:
    """Return what counts the passes of an objective's networks.

    Their names are ``teacher``, the learners', and those of their classes for what else is asked: a perceptual
    distance, text encoders, and ``base`` for a cascade's first stage. An analytic teacher counts one for each answer,
    and then the first learner takes the place of the network of the teacher's size.
    """
    learners = {name: learner.module for name, learner in objective.learners().items()}
    asked = [*objective.frozen(), *objective.source.modules()]
    # One that both the losses and the source ask is counted once.
    teachers = list({id(module.denoiser): module.denoiser for module in asked if isinstance(module, Teacher)}.values())
    inside = {name: list(_networks(module)) for name, module in learners.items()}
    candidates = [teacher.network for teacher in teachers if isinstance(teacher, NetworkTeacher)]
    candidates += [network for networks in inside.values() for network in networks]
    reference = candidates[0] if candidates else None
    counter = PassCounter(reference)
    for teacher in teachers:
        if isinstance(teacher, NetworkTeacher):
            counter.add("teacher", teacher.network, _differs(teacher.network, reference))
        else:
            counter.add("teacher", teacher, method="x0")
    for name, networks in inside.items():
        for network in networks:
            counter.add(name, network, _differs(network, reference))
    parts = [part for module in learners.values() for part in module.modules()]
    encoders = [part.model for part in parts if isinstance(part, TextEncoder)]
    for module in [*(module for module in asked if not isinstance(module, Teacher)), *encoders]:
        network, name = (module.network, "base") if isinstance(module, OneStep) else (module, _name(module))
        counter.add(name, network, _differs(network, reference))
    return counter


def _name(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks of a learner: those that were grown or denoise, or else the learner itself."""
    denoising = [part.network for part in module.modules() if isinstance(part, Denoiser)]
    found = [*denoising, *(part for part in module.modules() if isinstance(part, GrownNetwork))]
    yield from found or [module]


def _differs(network: nn.Module, reference: nn.Module | None) -> bool:
    """Return whether a network is another one than the reference, and none that was grown from it."""
    if network is reference or reference is None or isinstance(network, LowRank):
        return False
    own, its = _shapes(network), _shapes(reference)
    if isinstance(network, GrownPipelineNetwork):  # beside its own slots a grown one has at most that of a weight
        return not its <= own or (_shapes(network.network) - its).total() > 1
    return not its <= own if isinstance(network, GrownNetwork) else its != own


def _shapes(network: nn.Module) -> Counter[tuple[int, ...]]:
    return Counter(tuple(parameter.shape) for parameter in network.parameters())
