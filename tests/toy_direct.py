"""A small method of the tests' own that learns a source's samples: what a method on pairs or images will be."""

from __future__ import annotations

from typing import ClassVar

import torch

from bootdiff.config.mixins import Sourcing
from bootdiff.methods import Learner, Loss, Stateless
from bootdiff.methods.settings import DistillationSettings, learned_weight
from bootdiff.students import Student


class ToySettings(Sourcing, DistillationSettings):
    """The settings of the toy."""


class Toy(Stateless):
    """L2 between the student's image of a noise and the sample that belongs to it."""

    sources: ClassVar[tuple[str, ...]] = ("pairs", "trajectories", "images")

    def __init__(self, student, source, settings):
        self.student, self.source = student, source
        self.learner = Learner(student, settings.learning_rate, ema_decay=settings.ema_decay)

    @classmethod
    def from_settings(cls, teacher, settings, conditions=None, student=None, source=None):
        weight = learned_weight(settings, teacher).plain
        return cls(student or Student.from_teacher(teacher, settings.t_min, settings.t_max, weight), source, settings)

    def learners(self):
        return {"student": self.learner}

    def frozen(self):
        return ()

    def turns(self, step):
        return ("student",)

    def losses(self, networks, turn, batch):
        t = torch.full((len(batch.noise),), self.student.t_min, device=batch.noise.device)
        return [lambda: Loss((networks["student"](batch.noise, t, batch.condition) - batch.data).square().mean())]


#: where the registry finds it, once a test has put it there
PLACE = "toy_direct:Toy:ToySettings"
