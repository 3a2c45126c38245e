"""A small method of the tests' own that learns a source's samples: what a method on pairs or images will be."""

from __future__ import annotations

from bootdiff.config.mixins import Sourcing, StoredTrajectories
from bootdiff.methods.base import Loss, OneLearner, learner_of
from bootdiff.methods.method import method
from bootdiff.methods.settings import DistillationSettings


class ToySettings(Sourcing, StoredTrajectories, DistillationSettings):
    """The settings of the toy."""


@method("toy", ToySettings, sources=("pairs", "trajectories", "images"))
class Toy(OneLearner):
    """L2 between the student's image of a noise and the sample that belongs to it."""

    def __init__(self, student, source):
        self.student, self.source = student, source

    @classmethod
    def from_settings(cls, teacher, settings, source, student):
        return cls(learner_of(student, settings), source)

    def losses(self, networks, turn, batch):
        return [lambda: Loss((self.image(networks, batch) - batch.data).square().mean())]


#: where the registry finds it, once a test has put it there
PLACE = "toy_direct:Toy"
