"""What all data-free corrections share: a student, a fake denoiser that follows its samples, and BOOT's loss.

A correction moves the distribution of the student's images towards the teacher's. BOOT decides which noise makes which
image, and its loss, which is kept with the weight ``boot_weight``, holds on to that.

Source: docs/method.md, "Corrections" and "Settings that corrections share".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bootdiff.core.condition import Condition
from bootdiff.core.turn import Turn
from bootdiff.data.sources import Batch, Noise, Source
from bootdiff.losses.distances import Distance, SquaredError, make_distance
from bootdiff.methods.base import Learner, Loss, Networks, Stateless, example_of, learner_of, sampled
from bootdiff.methods.boot import Boot
from bootdiff.methods.corrections.critic import Critic
from bootdiff.methods.corrections.fake import Fake
from bootdiff.methods.corrections.settings import CorrectionSettings
from bootdiff.methods.settings import target_limit
from bootdiff.schedules import expand
from bootdiff.solvers import noisy
from bootdiff.students import PathStudent, Student
from bootdiff.teachers import Teacher, guided_within, limit_of, limited


@dataclass
class Correction(Stateless):
    """The objective of a correction, in which the fake denoiser and the student learn in turns.

    Args:
        student: the raw learner; any student that makes an image in one call.
        source: noise and the samples' conditions.
        teacher: f, with which the fake is compared: with guidance, and limited as the fake is.
        fake: the fake denoiser f_psi as a raw learner, with its optimiser settings.
        fake_updates: the number of the fake's turns before each turn of the student.
        fake_warmup: the number of first steps in which the fake alone learns. A fake that still equals the teacher
            would send the student nowhere, and an optimiser that scales its gradients would do so at full speed.
        boot: BOOT's objective for the same student, if that is a path student; its loss is kept with ``boot_weight``.
        boot_weight: the weight of the BOOT loss that is kept.
        levels: the lowest and the highest time r at which teacher and fake are compared.
        critic: a discriminator as a raw learner, which tells the student's samples from the teacher's; None for none.
        critic_weight: the weight of its loss for the student.
        pair_weight: the weight of a regression on the teacher's stored samples.
        distance: the regression's.
        noise_scale: the deviation of the noise from which the student learns; its images are asked of noise of 1.
    """

    student: Learner
    source: Source
    teacher: Teacher
    fake: Learner
    boot: Boot | None = None
    fake_updates: int = 2
    fake_warmup: int = 0
    boot_weight: float = 0.5
    levels: tuple[float, float] = (0.02, 0.98)
    critic: Learner | None = None
    critic_weight: float = 0.0
    pair_weight: float = 0.0
    distance: Distance = field(default_factory=SquaredError)
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        self.schedule, self.limit = self.teacher.schedule, limit_of(self.teacher)
        low, high = self.teacher.t_range
        #: the lowest and highest r at which the fake learns (without noise there is nothing to learn); it is compared
        #: at levels within them
        self.fake_levels = max(low, 1e-3), high
        self.levels = max(self.levels[0], self.fake_levels[0]), min(self.levels[1], high)

    @classmethod
    def from_settings(
        cls,
        teacher: Teacher,
        settings: CorrectionSettings,
        source: Source | None = None,
        student: Student | None = None,
    ) -> Self:
        """Return the objective: a student, its fake, and the objects that the settings' words stand for.

        Args:
            student: the student to correct; it is grown from the teacher where none is given.
        """
        student = student or Boot.method.new_student(teacher, settings)
        if student.several:
            student.made_for(1)  # whatever it could before: the correction asks it once
        source, student.target_limit = source or Noise(teacher.shape), target_limit(settings, teacher)
        boot = Boot.from_settings(teacher, settings, source, student) if isinstance(student, PathStudent) else None
        compared = limited(teacher, student.target_limit) if boot is None else boot.teacher
        betas = (settings.beta1, 0.999)
        averages = sampled(settings.ema_decay, settings.ema_from_start)
        learner = replace(learner_of(student, settings), betas=betas, averages=averages, starts=settings.fake_warmup)
        fake = Fake.from_teacher(teacher, student.learned.is_range, settings.fake_rank)
        return cls(
            learner,
            source,
            guided_within(compared, settings.guidance_interval),
            Learner(fake, settings.fake_learning_rate, betas),
            boot,
            settings.fake_updates,
            settings.fake_warmup,
            settings.boot_weight if boot is not None else 0.0,
            (settings.noise_levels[0], settings.noise_levels[1]),
            noise_scale=settings.noise_scale,
            **critic_of(teacher, settings, betas, source),
            **regression_of(teacher, settings, boot),
            **settings.own,
        )

    def learners(self) -> Mapping[str, Learner]:
        """Return the learners by name: the student, the fake, and the critic where there is one."""
        judges = {} if self.critic is None else {"critic": self.critic}
        return {"student": self.student, "fake": self.fake, **judges}

    def frozen(self) -> Sequence[nn.Module]:
        """Return the compared teacher, and the networks that BOOT asks or a perceptual distance."""
        asked = self.boot.frozen() if self.boot is not None else (self.distance,)
        return (self.teacher, *(one for one in asked if isinstance(one, nn.Module)))

    def turns(self, step: int) -> Sequence[str]:
        """Return the names of a step's turns: the fake's first, so that it knows the student that it judges."""
        fake = ["fake"] * self.fake_updates + ([] if self.critic is None else ["critic"])
        return fake if step < self.fake_warmup else [*fake, "student"]

    def losses(self, networks: Networks, turn: Turn, batch: Batch) -> Sequence[Callable[[], Loss]]:
        """Return the terms of the turn's loss.

        The fake learns to denoise the student's samples. The student learns from the correction, from BOOT's loss and
        from the teacher's stored samples.
        """
        pairs = self.scaled(batch)
        if self.critic is not None or self.pair_weight:  # with stored samples, too, all else learns from fresh noises
            batch = replace(batch, noise=turn.draw.normal("fresh", self.teacher.shape).to(batch.noise))
        batch = self.scaled(batch)
        if turn.name == "critic":
            return [lambda: self.telling(networks, turn, batch)]
        if turn.name == "fake":
            return [lambda: self.denoising(networks, turn, batch)]
        terms = [lambda: self.correction(networks, turn, batch)]
        if self.boot is not None and self.boot_weight > 0:
            kept = self.boot.losses(networks, turn, batch)
            terms.extend(partial(self._kept, term) for term in kept)
        if self.pair_weight:
            terms.append(lambda: self.regression(networks, pairs))
        return terms

    def scaled(self, batch: Batch) -> Batch:
        """Return the batch with noise of the deviation from which the student learns, Eq. C7."""
        return batch if self.noise_scale == 1 else replace(batch, noise=self.noise_scale * batch.noise)

    def denoising(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """Return E w(r) ‖f_psi(x_r, r) − x‖² for samples x = y_theta(eps, t_min), to which fresh noise is added."""
        fake, draw = networks["fake"], turn.draw
        with torch.no_grad():
            x = self.sample(networks, batch.noise, batch.condition)
        low, high = self.fake_levels
        r = low + (high - low) * draw.uniform("r")
        x_r = noisy(x, draw.normal("renoise", self.teacher.shape), r, self.schedule)
        error = (fake(x_r, r, batch.condition) - x).square().flatten(1).mean(1)
        weighted = cast("Fake", self.fake.module).weight(r) * error
        return Loss(weighted.mean(), {"fake": weighted.mean().detach()}, {"fake": (r, weighted.detach())})

    def correction(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """Return the loss made of the difference between teacher and fake at the student's noised samples.

        The noise levels r are drawn here.
        """
        x = self.sample(networks, batch.noise, batch.condition)
        r = self.draw_levels(turn)
        x_r = noisy(x, turn.draw.normal("renoise", self.teacher.shape), r, self.schedule)
        loss, difference = self.compare(networks, x, x_r, r, batch.condition)
        scalars = {"correction": difference.mean()}
        if self.critic is not None:
            judged = softplus(-networks["critic"](x_r, r, batch.condition)).mean()
            loss, scalars = loss + self.critic_weight * judged, {**scalars, "judged": judged.detach()}
        return Loss(loss, scalars, {"correction": (r, difference)})

    def telling(self, networks: Networks, turn: Turn, batch: Batch) -> Loss:
        """Return E softplus(−D(y_r)) + softplus(D(x_r)) for the teacher's samples y and the student's x, Eq. C6."""
        with torch.no_grad():
            x = self.sample(networks, batch.noise, batch.condition)
        r, own, theirs = (
            self.draw_levels(turn),
            *(turn.draw.normal(name, self.teacher.shape) for name in ("own", "theirs")),
        )
        x_r, y_r = (noisy(z, noise, r, self.schedule) for z, noise in ((x, own), (batch.data, theirs)))
        made, real = (networks["critic"](z_r, r, batch.condition) for z_r in (x_r, y_r))
        loss = softplus(-real).mean() + softplus(made).mean()
        right = torch.cat([real > 0, made < 0]).float().mean()
        return Loss(loss, {"critic": loss.detach(), "critic is right": right})

    def regression(self, networks: Networks, pairs: Batch) -> Loss:
        """Return w E d(y_theta(c eps, t_min), y) for noises c eps and the teacher's samples y of eps, Eq. C8."""
        error = self.distance(self.sample(networks, pairs.noise, pairs.condition), pairs.data).mean()
        return Loss(self.pair_weight * error, {"regression": error.detach()})

    @abstractmethod
    def compare(
        self, networks: Networks, x: Tensor, x_r: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Return the scalar whose gradient corrects the samples x, and the denoisers' mean squared difference.

        The difference, (b,), is detached. x and x_r, the noised samples, are (b, *shape); r is (b,).
        """

    def draw_levels(self, turn: Turn) -> Tensor:
        """Return noise levels r ~ U(levels), (b,)."""
        low, high = self.levels
        return low + (high - low) * turn.draw.uniform("r")

    def sample(self, networks: Networks, eps: Tensor, condition: Condition) -> Tensor:
        """Return samples x, the student's images of noises eps in one call, (b, *shape).

        They are not limited: values that leave the range of pixels must be pulled back.
        """
        return networks["student"](*cast("Student", self.student.module).image_inputs(eps), condition)

    def answers(self, networks: Networks, x_r: Tensor, r: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return f and f_psi at x_r, each (b, *shape), both limited in the same way."""
        return self.teacher.x0(x_r, r, condition), self.limit(networks["fake"](x_r, r, condition))

    def _kept(self, term: Callable[[], Loss]) -> Loss:
        loss = term()
        return replace(loss, total=self.boot_weight * loss.total)


def critic_of(
    teacher: Teacher, settings: CorrectionSettings, betas: tuple[float, float], source: Source
) -> dict[str, Any]:
    """Return a critic as a learner and its weight, by the objective's fields; nothing where none is asked for."""
    if not settings.reads_features:
        return {}
    critic = Critic(teacher, example_of(teacher, source))
    rate, weight = settings.critic_learning_rate, settings.critic_weight  # type: ignore[attr-defined]
    return {"critic": Learner(critic, rate, betas), "critic_weight": weight}


def regression_of(teacher: Teacher, settings: CorrectionSettings, boot: Boot | None) -> dict[str, Any]:
    """Return the weight and the distance of a regression on stored samples, by field; nothing without a weight.

    The distance is BOOT's own where there is BOOT's objective: a perceptual one is a network.
    """
    weight = getattr(settings, "pair_weight", 0.0)
    if not weight:
        return {}
    if boot is not None:
        return {"pair_weight": weight, "distance": boot.distance}
    return {"pair_weight": weight, "distance": make_distance(settings.distance, teacher.shape, settings.lpips_weights)}


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return the normaliser mean |x − f| of each sample, floored and detached, in a shape that fits ``like``.

    Source: docs/method.md, "Distribution matching (C1)".
    """
    return expand(values.detach().abs().flatten(1).mean(1).clamp(min=1e-5), like)
