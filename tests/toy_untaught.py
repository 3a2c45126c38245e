"""A small method of the tests' own that asks no teacher: denoising of images by a denoising student."""

from __future__ import annotations

from bootdiff.config.mixins import Sourcing, StoredPairs, Untaught
from bootdiff.methods.base import Loss, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.solvers import noisy


class UntaughtSettings(Untaught, Sourcing, StoredPairs, DistillationSettings):
    """The settings of the toy."""


@method("untaught", UntaughtSettings, ("images", "noise", "pairs"), needs_teacher=False, student="denoising")
class UntaughtToy(OneLearner):
    """L2 between what the student makes of a noised sample and the sample; of noise alone that is an image of zeros."""

    def __init__(self, student, source):
        self.student, self.source = student, source

    @classmethod
    def from_settings(cls, teacher, settings, source, student):
        return cls(learner_of(student, settings), source)

    def losses(self, networks, turn, batch):
        module, data = self.student.module, batch.data if batch.data.numel() else batch.noise.new_zeros(())
        t = module.t_min + (module.t_max - module.t_min) * turn.draw.uniform("t")
        x_t = noisy(data.expand_as(batch.noise), batch.noise, t, module.schedule)
        return [lambda: Loss((networks["student"](x_t, t, batch.condition) - data).square().mean())]


#: where the registry finds it, once a test has put it there
PLACE = "toy_untaught:UntaughtToy"
