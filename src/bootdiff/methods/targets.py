"""The target network theta⁻: an average of the student's weights, from whose answers the student learns.

Consistency models (arXiv 2303.01469) and TRACT (arXiv 2303.04248) have one. Source: docs/method.md, "Consistency
distillation".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bootdiff.methods.base import Decay, Learner, Networks

#: the name of the average whose answers are the targets
TARGET = "target"


def with_target(learner: Learner, decay: Decay | None) -> Learner:
    """Return a learner that keeps theta⁻ too, with this decay; without one theta⁻ is theta itself."""
    return learner if decay is None else replace(learner, averages={**learner.averages, TARGET: decay})


@torch.no_grad()
def target_of(networks: Networks, student: Learner, *inputs: object) -> Tensor:
    """Return the answer of theta⁻ to inputs of the student, (b, *shape), through which no gradient flows."""
    answer: Tensor = networks[f"student@{TARGET}" if TARGET in student.averages else "student"](*inputs)
    return answer
