"""What every kind of student shares: a network, the reading of its output, and what it remembers of its teacher.

Source: docs/method.md, "Kinds of students".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.guidance import GuidanceWeight, Plain
from bootdiff.schedules import check_times
from bootdiff.students.growth import GrownNetwork, network_for
from bootdiff.students.one_step import OneStep
from bootdiff.teachers.base import NO_CONDITION, Teacher
from bootdiff.teachers.limits import Limit
from bootdiff.teachers.one_call import OneCall
from bootdiff.teachers.pipeline import adapter_of, with_network


class Student(nn.Module, ABC):
    """A network that makes an image of noise in one call, and what is known of it.

    Each kind of student says what its network is told and how its output is read, a file each. ``Student.from_teacher``
    grows a path student, which is BOOT's; ``DenoisingStudent.from_teacher`` one of its own kind.

    Args:
        network: a network grown from the teacher's (``from_teacher`` does it), or any other for analytic teachers.
        teacher: the teacher, for the schedule, the shape and the limit of the images; its weights are not kept.
        t_min, t_max: the range of times that it learns, in [0, 1]; ``t_min`` is the image's.
        guidance: the guidance weight that it learned: None, one weight, or a range that it takes as an input.
    """

    #: the name of the kind on a student's card
    kind: ClassVar[str]
    #: whether its network has an input for a target time
    timed: ClassVar[bool]
    #: the names of the probes, besides its samples, by which looks judge it (``monitoring/probes.py``)
    probes: ClassVar[Sequence[str]] = ()
    #: whether it can be asked at several noisy samples, and so makes an image in several calls as well
    several: ClassVar[bool] = False
    #: the other kinds whose one call from noise a student of this kind can begin with (``begun_from``)
    begins_from: ClassVar[Sequence[str]] = ()

    def __init__(
        self, network: GrownNetwork, teacher: Teacher, t_min: float, t_max: float, guidance: Plain = None
    ) -> None:
        super().__init__()
        check_times(t_min, t_max)
        self.network = network
        self.t_min, self.t_max = t_min, t_max
        self.schedule, self.shape, self.limit = teacher.schedule, tuple(teacher.shape), teacher.limit
        self.reading = teacher.denoiser.reading
        # How the targets that it learned were limited; the images are limited as the teacher's scheduler says.
        self.target_limit: Limit = self.limit
        self.teacher_name, self.origin, self.adapter = teacher.name, teacher.denoiser.origin, adapter_of(teacher)
        # What its network is, where that is of another architecture than its teacher's.
        self.architecture = teacher.denoiser.architecture
        self.learned = GuidanceWeight.of(guidance)
        # What the distillation was asked of conditions: classes, negative prompt, noise level, …
        self.conditions: dict[str, Any] = {}
        # In how many calls its images are usually made, and whether any other number makes sense (``made_for``).
        self.calls, self.any_calls = 1, self.several
        # Whether it learned from noise and its teacher alone, without one image of a data set.
        self.data_free = True
        # Whether its training asked no teacher.
        self.teacher_free = False
        # Whether a training goes on from it as it is, and so takes over what its kind has besides the network.
        self.continued = False
        self.own_timestep = self.schedule.timestep(torch.tensor([t_max])).item()

    @classmethod
    def from_teacher(
        cls,
        teacher: Teacher,
        t_min: float | None = None,
        t_max: float | None = None,
        guidance: Plain = None,
    ) -> Self:
        """Grow a student that equals its teacher without guidance, and return it.

        The student of an analytic teacher gets a network of its own.

        Raises:
            BootdiffError: if the teacher's network cannot be grown, the time range is impossible, or the teacher cannot
                tell x_0 at t_max.
        """
        if cls is Student:
            from bootdiff.students.path import PathStudent

            return PathStudent.from_teacher(teacher, t_min, t_max, guidance)  # type: ignore[return-value]
        low, high = teacher.t_range
        low, high = low if t_min is None else t_min, high if t_max is None else t_max
        guided = GuidanceWeight.of(guidance).is_range
        network = network_for(teacher, (low, high), guided, cls.timed, moving=cls.several)
        return cls.grown(network, teacher, low, high, guidance)

    @classmethod
    def grown(cls, network: GrownNetwork, teacher: Teacher, t_min: float, t_max: float, guidance: Plain) -> Self:
        """Return the student of a network that was grown from the teacher's."""
        return cls(network, teacher, t_min, t_max, guidance)

    @classmethod
    def begun_from(cls, student: Student, stem: Teacher, t_max: float) -> Self:
        """Return a student of this kind that answers noise as a student of another kind does.

        It is grown from that student's network, with the image's time settled, in its teacher's place.

        Args:
            stem: what the other student was grown from.
            t_max: where the new student's path begins; the other's t_max, or a time near it.

        Raises:
            BootdiffError: if the other student's network is of a growth that cannot be settled.
        """
        target = student.schedule.timestep(torch.tensor([student.t_min])).item() if student.timed else None
        network = student.network.settled(target)
        return cls.from_teacher(with_network(stem, network), student.t_min, t_max, student.guidance)

    # --- what each kind says -----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def call(self) -> OneCall:
        """How the network's output is read as the image, in one call from pure noise."""

    @abstractmethod
    def image_inputs(self, eps: Tensor) -> tuple[Tensor, ...]:
        """Return what ``forward`` is given, before the condition, to answer with the image of noises (b, *shape)."""

    @abstractmethod
    def fold(self, weight: float | None = None) -> nn.Module:
        """Return a network of the teacher's class that makes the image in one call.

        Args:
            weight: the guidance weight to fold, for a student that learned a range; the range's middle where none is
                given.
        """

    def as_teacher(self) -> Teacher:
        """Return the student as a teacher, which answers x_0(x_t, t).

        Raises:
            BootdiffError: if it answers for noise only, and so cannot tell x_0 at any other x_t.
        """
        raise BootdiffError(
            f"a {self.kind} student answers for noise only, so it cannot be a teacher; take a denoising, jump or "
            "consistency student."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its card must hold beside every student's facts, by entry."""
        return {}

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take what ``facts`` gave, from a card."""
        return None

    @property
    def evaluations(self) -> int:
        """How often its network is evaluated for an image that is made as usual."""
        return self.calls

    def made_for(self, calls: int) -> None:
        """Say that its images are made in exactly so many calls: its method trained it at their times only."""
        self.calls, self.any_calls = calls, False

    # --- what all share ----------------------------------------------------------------------------------------------

    def told_weight(self, weight: float | None = None) -> float | None:
        """Return the guidance weight that the condition must hold as ``guidance``; None where the network takes none.

        Args:
            weight: a weight within the range that it learned; the range's middle where none is given.

        Raises:
            BootdiffError: for a weight that it did not learn.
        """
        usual = None if self.adapter is None else self.adapter.embedded_weight
        return self.learned.embedded(weight, usual)

    def weight(self, weight: float | None = None) -> float | None:
        """Return the guidance weight of its images: the one asked for, the one it learned, or the middle of its range.

        Raises:
            BootdiffError: for a weight that it did not learn.
        """
        return self.learned.served(weight)

    @property
    def guidance(self) -> float | tuple[float, float] | None:
        """The guidance weight that it learned: None, one weight, or (lowest, highest)."""
        return self.learned.plain

    @guidance.setter
    def guidance(self, plain: Plain) -> None:
        self.learned = GuidanceWeight.of(plain)

    def image(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return images (b, *shape) in one call, as the network makes them: with gradients, and not limited."""
        return self(*self.image_inputs(eps), condition)

    @torch.no_grad()
    def sample(self, eps: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return images (b, *shape) of noises (b, *shape) in one call, within the teacher's limit.

        Raises:
            BootdiffError: for noises of another shape, or a condition that does not fit.
        """
        self.check(eps, condition)
        return self.limit(self.image(eps, condition))

    def check(self, eps: Tensor, condition: Condition) -> None:
        """Refuse noises of another shape and conditions that do not fit.

        Raises:
            BootdiffError: if one is refused; the message says what was expected.
        """
        if not isinstance(eps, Tensor) or tuple(eps.shape[1:]) != self.shape:
            found = tuple(eps.shape) if isinstance(eps, Tensor) else f"a {type(eps).__name__}"
            raise BootdiffError(f"expected noises of shape (b, {', '.join(map(str, self.shape))}), got {found}.")
        self._check_condition(condition, len(eps))

    def _check_condition(self, condition: Condition, count: int) -> None:
        needed = set(self.adapter.blank(1)) if self.adapter is not None else set()
        if self.told_weight() is not None:
            needed.add("guidance")
        if self.adapter is not None and "classes" in condition and self.adapter.takes != "classes":
            raise BootdiffError(f"this student is conditioned on {self.adapter.takes}, not on classes; leave them out.")
        for name, value in condition.items():
            if len(value) != count:
                raise BootdiffError(f"expected a condition for {count} samples, got '{name}' for {len(value)}.")
        missing = sorted(needed - set(condition))
        if missing:
            raise BootdiffError(
                f"this student's condition should hold {', '.join(sorted(needed))}, and {', '.join(missing)} is "
                "missing; make one with bootdiff.Classes([0, 1]).listed(seed, start, stop), say, and .add(guidance=w)."
            )

    def one_step(self, weight: float | None = None) -> OneStep:
        """Return the fastest way to sample: a module of the folded network and two numbers."""
        return OneStep(self.fold(weight), self)

    def decode(self, sample: Tensor) -> Tensor:
        """Return images in [−1, 1] from samples; those of a latent teacher are decoded."""
        return sample if self.adapter is None else self.adapter.decode(sample)
