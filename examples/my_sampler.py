"""A sampler from outside the package: the mean of a student's images of a noise and of a noise near it, two calls."""

import torch


class Doubled:
    """Makes samples of starting noises, as every sampler does: it is called with noises and a condition.

    Args:
        student: a student, such as the result of ``bootdiff.load_student``.
        angle: how far the second noise is turned from the first, in radians.
    """

    #: evaluations of the network for one image, which tables tell
    calls = 2

    def __init__(self, student, angle=0.1):
        self.student, self.angle = student, torch.tensor(angle)
        self.shape, self.adapter = student.shape, student.adapter

    def __call__(self, eps, condition):
        """Return samples (b, *shape) of noises (b, *shape), on the noises' own device."""
        near = self.angle.cos() * eps + self.angle.sin() * eps.flip(-1)
        return (self.student.sample(eps, condition) + self.student.sample(near, condition)) / 2

    def told_weight(self, weight):
        """Return the guidance weight that its condition must hold; None where it holds none."""
        return self.student.told_weight(weight)
