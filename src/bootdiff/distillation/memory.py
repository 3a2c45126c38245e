"""How much memory a distillation needs; it is counted on a network without weights, and nothing large is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bootdiff.methods.settings import DistillationSettings, calls_a_target, learned_weight
from bootdiff.teachers import PipelineTeacher, Teacher
from bootdiff.teachers.adapters.base import dtype_of
from bootdiff.training.planned import kept_passes

#: the sizes of the cards that a plan is checked against, in GB
CARDS = (24, 40, 80)
GIB = 2**30
#: the bytes kept free for a CUDA context, fragments, and the buffers of the largest operation
RESERVED = 2 * GIB


@dataclass(frozen=True)
class Need:
    """The memory that a distillation needs, in bytes.

    Args:
        weights: bytes of the teacher, student and fake denoiser, of gradients, AdamW's moments and the average.
        sample: bytes of the activations that one sample keeps for its backward pass, in the turn that keeps the most.
        checkpointed: the same as ``sample``, with gradient_checkpointing.
    """

    weights: int
    sample: int
    checkpointed: int

    def fitting(self, card: int, checkpointing: bool) -> int:
        """Return how many samples a pass can have on a card of this many GB; 0 if not even one fits."""
        free = card * 10**9 - RESERVED - self.weights
        return max(0, free // max(1, self.checkpointed if checkpointing else self.sample))


def memory_need(
    teacher: Teacher, settings: DistillationSettings, beside: int = 0, stem: Teacher | None = None
) -> Need | None:
    """Return the memory that distilling this teacher needs; None for teachers that are no pipelines.

    Args:
        beside: bytes of whatever else is on the card, such as a base stage or encoders that run in the loop.
        stem: what the student is grown from, where that is another network than the teacher's.
    """
    denoiser, grown = teacher.denoiser, (stem or teacher).denoiser
    if not isinstance(denoiser, PipelineTeacher) or not isinstance(grown, PipelineTeacher):
        return None
    weights = weights_need(denoiser.network, settings, grown.network) + beside
    sizes = activations(denoiser, settings)
    own = sizes if grown.architecture is None else activations(grown, settings)
    full, checkpointed = _kept(teacher, settings, sizes, own)
    if settings.mixed_precision != "no":
        full, checkpointed = full // 2, checkpointed // 2
    return Need(weights, full, checkpointed)


def _kept(
    teacher: Teacher, settings: DistillationSettings, sizes: tuple[int, int], own: tuple[int, int]
) -> tuple[int, int]:
    """Return the bytes kept for a sample by all networks that its gradients pass through.

    The two numbers are those without and with gradient checkpointing.

    Only networks that learn are checkpointed: not a teacher that gradients pass through, nor one whose low-rank updates
    are a fake denoiser.

    Args:
        sizes: the bytes of a pass of the teacher's network, or a fake denoiser, without and with checkpointing.
        own: those of the student's.
    """
    plain = {"teacher", "critic", *(["fake"] if getattr(settings, "fake_rank", 0) > 0 else [])}
    terms = kept_passes(settings, calls_a_target(settings, teacher))

    def most(checkpointing: bool) -> int:
        def size(name: str) -> int:
            return (own if name == "student" else sizes)[checkpointing and name not in plain]

        return max(sum(count * size(name) for name, count in term.items()) for term in terms)

    return most(False), most(True)


def weights_need(network: nn.Module, settings: DistillationSettings, own: nn.Module | None = None) -> int:
    """Return the bytes of a teacher's network, its student and a fake denoiser, with all that learning keeps.

    Args:
        network: the teacher's network, or a module that holds it.
        own: the student's network; None for one of the teacher's size.
    """
    parameters = list(network.parameters())
    count, of_teacher = sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)  # a closed form has none
    learned = count if own is None else sum(p.numel() for p in own.parameters())
    student = 4 * learned * (4 + bool(settings.ema_decay))  # weights, gradients, two moments, average
    cast = 2 * learned if settings.mixed_precision != "no" else 0  # autocast keeps a copy of the weights for a pass
    fake = 4 * count * 4 if getattr(settings, "fake_rank", None) == 0 else 0  # a correction's other network
    return of_teacher + student + fake + cast


def activations(teacher: PipelineTeacher, settings: DistillationSettings) -> tuple[int, int]:
    """Return the bytes, in float32, that a pass of one sample keeps, without and with gradient checkpointing."""
    adapter: Any = teacher.adapter
    kind: Any = type(teacher.network)
    with torch.device("meta"):
        network = kind.from_config(teacher.network.config)
        x, t = torch.empty(1, *teacher.shape), torch.empty(1)
    condition = adapter.blank(1)
    if adapter.guidance == "embedded" or learned_weight(settings, teacher).is_range:
        condition = condition.add(guidance=torch.ones(1))
    if dtype_of(network) != torch.float32:
        network = network.float()
    counter = _Counter(network)
    if network._supports_gradient_checkpointing:
        network.enable_gradient_checkpointing(counter.segment)
    t = t.long() if teacher.schedule.integer_timesteps else t
    with counter.counting():
        adapter.call(network, x, t, condition.to("meta"))
    return counter.outside + counter.inside, counter.outside + counter.inputs + counter.largest


class _Counter:
    """Counts the bytes that autograd keeps, and those that it would keep with checkpointed blocks."""

    def __init__(self, network: nn.Module) -> None:
        # Storages, not tensors: views of one are kept once, and those of weights are there anyway.
        self.seen = {p.untyped_storage()._cdata for p in network.parameters()}
        self.outside = self.inside = self.inputs = self.largest = 0

    def counting(self, add: Callable[[int], None] | None = None) -> Any:
        """Return a context in which everything that is kept for the backward pass is counted once."""

        def pack(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                (add or self._add_outside)(storage.nbytes())
            return value

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value)

    def segment(self, block: Callable[..., Any], *inputs: Any, **words: Any) -> Any:
        """Run a block once in place of torch's checkpoint, and count what checkpointing would not keep."""
        here = [0]

        def add(size: int) -> None:
            here[0] += size

        with self.counting(add):
            result = block(*inputs, **words)
        self.inside += here[0]
        self.largest = max(self.largest, here[0])
        self.inputs += sum(v.numel() * v.element_size() for v in inputs if isinstance(v, Tensor))
        return result

    def _add_outside(self, size: int) -> None:
        self.outside += size


def describe_memory(need: Need, settings: DistillationSettings) -> list[str]:
    """Return lines of text: the need, and what to set for each size of card."""
    lines = [
        f"memory: {need.weights / GIB:.3g} GiB of weights, gradients and optimiser; a sample keeps "
        f"{need.sample / GIB:.3g} GiB of activations, {need.checkpointed / GIB:.3g} with gradient_checkpointing"
    ]
    for card in CARDS:
        fitting = need.fitting(card, settings.gradient_checkpointing)
        parts = next((n for n in range(1, settings.batch_size + 1) if _divides(n, settings.batch_size, fitting)), None)
        if parts is None:
            lines.append(f"  {card} GB card: does not fit, not even one sample at a time")
        elif parts == 1:
            lines.append(f"  {card} GB card: fits as it is")
        else:
            each = settings.batch_size // parts
            lines.append(f"  {card} GB card: fits with gradient_accumulation={parts} ({each} samples a pass)")
    return lines


def _divides(parts: int, batch: int, fitting: int) -> bool:
    return batch % parts == 0 and batch // parts <= fitting
