"""Features of the teacher's own network, at its middle and its end, by which samples are compared without data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.device import device_of
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers.base import NetworkTeacher, Teacher
from bootdiff.teachers.pipeline import adapter_of, blank_condition

#: layers whose channels are the last dimension of what they make, and those whose channels are the one after the batch
LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)


@dataclass(frozen=True)
class TeacherFeatures:
    """The activations of a block in the middle of the teacher's network, averaged over positions.

    A denoiser knows what its images show (Baranchuk et al., arXiv 2112.03126). These features show how often each shape
    occurs, which pixels hardly show, and which a correction changes.

    Args:
        teacher: the teacher, without guidance and limits.
        middle: the block in the middle, one of the modules of the teacher's network.
        last: the network's last block, which sees what the middle does not: texture, and the blur of a mean.
        time: the time at which the network is shown images: that of an image, where noise is least.
    """

    teacher: NetworkTeacher
    middle: nn.Module
    time: float
    last: nn.Module | None = None

    @classmethod
    def of(cls, teacher: Teacher, time: float) -> TeacherFeatures | None:
        """Return the features of a teacher whose network is a U-Net or a transformer as diffusers writes them.

        For any other teacher it returns None.
        """
        denoiser = teacher.denoiser
        if not isinstance(denoiser, NetworkTeacher) or adapter_of(teacher) is None:
            return None
        found = _middle_and_last(denoiser.network)
        return None if found is None else cls(denoiser, found[0], time, found[1])

    @classmethod
    def of_any(cls, teacher: Teacher, time: float, condition: Condition | None = None) -> TeacherFeatures:
        """Return the features of a teacher with any network; of one of an unknown kind, those of its middle layer.

        That is the layer before which half of the network's layers run, of those that answer differently for different
        images.

        Args:
            condition: of one image or more, to ask a network of an unknown kind with; None is zeros in a pipeline's
                shapes, and nothing for any other network.

        Raises:
            BootdiffError: if the teacher has no network, if that fails without its conditions, or if none of its layers
                answers so.
        """
        denoiser = teacher.denoiser
        if not isinstance(denoiser, NetworkTeacher):
            raise BootdiffError(f"{teacher.name} has no network, so there are no features to read.")
        found = _middle_and_last(denoiser.network) or (_middle_layer(denoiser, time, condition), None)
        return cls(denoiser, found[0], time, found[1])

    @torch.no_grad()
    def read(self, samples: Tensor, condition: Condition) -> Tensor:
        """Return the features of images or latents (n, *shape), (n, channels) in float32."""
        with self._uncompiled(), _caught(self.middle) as caught:
            self.teacher.x0(samples, torch.full((len(samples),), self.time, device=samples.device), condition)
        return caught[-1]

    def shown(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return what the middle makes of noisy samples at times t, (b, positions, channels), and x_0, (b, *shape).

        Nothing is averaged, and gradients reach ``x_t``.
        """
        with self._uncompiled(), _caught(self.middle, _by_position) as caught:
            x_0 = self.teacher.x0(x_t, t, condition)
        return caught[-1], x_0

    def textures(self) -> AbstractContextManager[list[Tensor]]:
        """Return a context in which a list collects what the last block makes of every batch that ``read`` shows.

        Each entry is (n, channels).
        """
        return nullcontext([]) if self.last is None else _caught(self.last)

    def _uncompiled(self):
        """Return a context in which a compiled network runs uncompiled.

        A compiled network does not see the hook.
        """
        compiled = getattr(self.teacher.network, "_compiled_call_impl", None) is not None
        return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _images_of(output: Any) -> Tensor:
    """Return what a block makes of images, in float32; blocks of a text-to-image transformer answer for text, too."""
    return (output if isinstance(output, Tensor) else output[-1]).float()  # images come last


def _channels_last(block: nn.Module, seen: Tensor) -> bool:
    """Return whether a block's channels are the last dimension; a block of many layers is as diffusers writes it."""
    return seen.ndim == 3 if not isinstance(block, (*LAST, *FIRST)) else isinstance(block, LAST)


def _by_position(block: nn.Module, output: Any) -> Tensor:
    """Return what a block makes of images as (b, positions, channels)."""
    seen = _images_of(output)
    if seen.ndim == 2:  # a layer without positions
        return seen[:, None]
    return seen.flatten(1, -2) if _channels_last(block, seen) else seen.flatten(2).transpose(1, 2)


def _pooled(block: nn.Module, output: Any) -> Tensor:
    """Return what a block makes of images, averaged over positions, (b, channels)."""
    seen = _images_of(output)
    if seen.ndim == 2:  # a layer without positions
        return seen
    return seen.flatten(1, -2).mean(1) if _channels_last(block, seen) else seen.flatten(2).mean(2)


@contextmanager
def _caught(block: nn.Module, kept: Callable[[nn.Module, Any], Tensor] = _pooled) -> Iterator[list[Tensor]]:
    """Give a list that collects a block's outputs, averaged over positions, in float32."""
    caught: list[Tensor] = []
    hook = block.register_forward_hook(lambda module, inputs, output: caught.append(kept(module, output)))
    try:
        yield caught
    finally:
        hook.remove()


@torch.no_grad()
def _middle_layer(denoiser: NetworkTeacher, time: float, condition: Condition | None) -> nn.Module:
    """Return the middle one of the layers that have weights and see the image, in the order in which they run."""
    ran: list[nn.Module] = []

    def remember(module: nn.Module, inputs: Any, output: Any) -> None:
        rows = isinstance(output, Tensor) and output.ndim >= 2 and len(output) == 2
        if rows and not torch.equal(*output) and module not in ran:  # layers of the time alone answer equally
            ran.append(module)

    layers = [m for m in denoiser.network.modules() if not list(m.children()) and list(m.parameters())]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    device = device_of(denoiser)
    asked = blank_condition(denoiser, 1) if condition is None else condition.index(slice(1))
    try:
        # Two images at one time and under one condition: only what sees the image answers differently.
        x = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(0)).to(device)
        denoiser.x0(x, torch.full((2,), time, device=device), asked.repeat(2).to(device))
    except BootdiffError:
        raise
    except (Exception, SystemExit) as error:  # a network may raise anything
        let_pass(error)
        raise BootdiffError(
            f"the network of {denoiser.name} cannot be asked for its features ({first_line(error)})."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise BootdiffError(f"no layer of {denoiser.name} answers with a row for each image, so it has no features.")
    return ran[len(ran) // 2]


def _middle_and_last(network: nn.Module) -> tuple[nn.Module, nn.Module | None] | None:
    lists = [getattr(network, name, None) for name in ("transformer_blocks", "single_transformer_blocks")]
    blocks = [block for part in lists if isinstance(part, nn.ModuleList) for block in part]
    if blocks:
        return blocks[len(blocks) // 2], blocks[-1]
    middle, ups = getattr(network, "mid_block", None), getattr(network, "up_blocks", None)
    if not isinstance(middle, nn.Module):
        return None
    return middle, ups[-1] if isinstance(ups, nn.ModuleList) and len(ups) else None
