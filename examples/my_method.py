"""A method from outside the package: the student's images are to have the mean of the teacher's samples, and their own.

It is direct distillation by the absolute error of blurred images, to show what a method is; it is no good one.
Import this file before it is asked for, or name its class as an entry point (docs/extending.md).
"""

from dataclasses import dataclass

from torch.nn.functional import avg_pool2d

import bootdiff
from bootdiff.config.mixins import StoredPairs
from bootdiff.data.sources import Source
from bootdiff.methods import DistillationSettings, Learner, Loss, OneLearner, learner_of, method


class BlurredSettings(StoredPairs, DistillationSettings):
    """The settings of every distillation, and those of stored pairs."""


@bootdiff.register_method
@method("blurred", BlurredSettings, sources=("pairs",))
@dataclass
class Blurred(OneLearner):
    """The objective E |blur(g(eps)) − blur(end of the teacher's path)|."""

    student: Learner
    source: Source

    @classmethod
    def from_settings(cls, teacher, settings, source, student):
        """Return the objective of a run with these settings."""
        return cls(learner_of(student, settings), source)

    def losses(self, networks, turn, batch):
        """Return the terms of a turn's loss, each still to be computed; here one."""
        return [lambda: Loss((avg_pool2d(self.image(networks, batch) - batch.data, 2)).abs().mean())]
