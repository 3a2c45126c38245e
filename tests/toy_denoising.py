"""A small method of the tests' own that trains a denoising student on pairs: what progressive distillation will be."""

from __future__ import annotations

from bootdiff.config.mixins import Rounds, StoredPairs
from bootdiff.methods.base import Loss, OneLearner, learner_of
from bootdiff.methods.method import method, rounds
from bootdiff.methods.settings import DistillationSettings
from bootdiff.solvers import noisy
from bootdiff.students.denoising import DenoisingStudent


class ToySettings(StoredPairs, DistillationSettings):
    """The settings of the toy."""


@method("toy-denoising", ToySettings, sources=("pairs",), student="denoising")
class ToyDenoising(OneLearner):
    """L2 between x_0(x_t, t) and the sample of a pair, to which its own noise is added."""

    def __init__(self, student, source):
        self.student, self.source = student, source

    @classmethod
    def from_settings(cls, teacher, settings, source, student):
        return cls(learner_of(student, settings), source)

    def losses(self, networks, turn, batch):
        own = self.student.module
        t = own.t_min + (own.t_max - own.t_min) * turn.draw.uniform("t")
        x_t = noisy(batch.data, batch.noise, t, own.schedule)
        return [lambda: Loss((networks["student"](x_t, t, batch.condition) - batch.data).square().mean())]


class ToyRoundsSettings(Rounds, StoredPairs, DistillationSettings):
    """The settings of the toy in rounds."""


def stages(settings):
    """Three rounds, in each of which the student of the round before is the teacher."""
    return rounds("toy-rounds", settings, {name: {} for name in ("n4", "n2", "n1")}, DenoisingStudent.as_teacher)


@method("toy-rounds", ToyRoundsSettings, sources=("pairs",), student="denoising", stages=stages)
class ToyRounds(ToyDenoising):
    """The toy in rounds."""


@method("toy-average", ToySettings, sources=("pairs",), student="denoising")
class ToyAverage(ToyDenoising):
    """The toy, whose targets are its own average's answers: what consistency distillation will ask."""

    def losses(self, networks, turn, batch):
        t = self.student.module.t_min + 0.5 * turn.draw.uniform("t")
        x_t = noisy(batch.data, batch.noise, t, self.student.module.schedule)
        goal = networks["student@ema"](x_t, t, batch.condition)
        return [lambda: Loss((networks["student"](x_t, t, batch.condition) - goal - 1).square().mean())]
