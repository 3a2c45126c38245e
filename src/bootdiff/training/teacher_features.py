"""A space to compare samples in, without data: what the teacher's own network makes of them half way through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bootdiff.condition import Condition
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of


@dataclass(frozen=True)
class TeacherFeatures:
    """Activations of a block in the middle of the network, averaged over positions.

    A denoiser knows what its images show (Baranchuk et al., arXiv 2112.03126): the shares of shapes that pixels hardly
    tell apart, and a correction moves, are seen here.

    Args:
        teacher: without guidance and limits.
        middle: the block, one of the modules of its network.
        time: at which images are shown to it: that of the image, where noise is least.
    """

    teacher: NetworkTeacher
    middle: nn.Module
    time: float

    @classmethod
    def of(cls, teacher: Teacher, time: float) -> TeacherFeatures | None:
        """Those of a pipeline whose network is a U-Net or a transformer as diffusers writes them; None of any other."""
        denoiser = teacher.denoiser
        if not isinstance(denoiser, NetworkTeacher) or adapter_of(teacher) is None:
            return None
        middle = _middle(denoiser.network)
        return None if middle is None else cls(denoiser, middle, time)

    @torch.no_grad()
    def read(self, samples: Tensor, condition: Condition) -> Tensor:
        """Of images or latents (n, *shape): (n, channels), in float32."""
        with self._uncompiled(), self._caught() as caught:
            self.teacher.x0(samples, torch.full((len(samples),), self.time, device=samples.device), condition)
        # Blocks of a text-to-image transformer answer for the text, too; images come last.
        seen = (caught[-1] if isinstance(caught[-1], Tensor) else caught[-1][-1]).float()
        return seen.flatten(2).mean(2) if seen.ndim == 4 else seen.mean(1)

    @contextmanager
    def _caught(self) -> Iterator[list]:
        caught: list = []
        hook = self.middle.register_forward_hook(lambda module, inputs, output: caught.append(output))
        try:
            yield caught
        finally:
            hook.remove()

    def _uncompiled(self):
        """A compiled network does not see the hook."""
        compiled = getattr(self.teacher.network, "_compiled_call_impl", None) is not None
        return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _middle(network: nn.Module) -> nn.Module | None:
    lists = [getattr(network, name, None) for name in ("transformer_blocks", "single_transformer_blocks")]
    blocks = [block for part in lists if isinstance(part, nn.ModuleList) for block in part]
    if blocks:
        return blocks[len(blocks) // 2]
    middle = getattr(network, "mid_block", None)
    return middle if isinstance(middle, nn.Module) else None
