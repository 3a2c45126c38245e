"""How fast images are made: one call, and the teacher's DDIM with 10 and 50 calls.

The 36 M U-Net of CIFAR-10's size is asked through the package (a folded student, and ``ddim``). Networks of Stable
Diffusion's and SDXL's published shapes have random weights and are built on the GPU in bf16; of them the network alone
is timed, with random text embeddings and without decoding. Every call is one pass: a student has its guidance folded
in, and a guided teacher's call would be two.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from common import device, open_teacher, synchronise
from context import Context, OutOfTime, said
from torch import Tensor, nn

from bootdiff.schedules import BetaTable
from bootdiff.solvers import ddim, trailing_times
from bootdiff.students import Student
from bootdiff.students.one_step import OneStep
from bootdiff.teachers import CallableTeacher, Teacher
from stages.step import small_teacher, tf32

CALLS = (1, 10, 50)
PIXELS = "36 M U-Net, 3×32×32"
#: seconds that are spent on one figure, and those that compiling may take
SPENT, COMPILING = 0.5, 40.0
#: with fewer seconds nothing is compiled
FEWEST = 8.0
#: no figure takes longer, in seconds: of many calls at a large batch the rate is known from one
LONGEST = 3.5
SD: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}


@dataclass(frozen=True)
class Maker:
    """Makes images of a batch size: ``prepare(size)`` gives a function of the number of calls."""

    network: str
    precision: str
    prepare: Callable[[int], Callable[[int], object]]
    sizes: tuple[int, ...]
    calls: tuple[int, ...] = CALLS


def run(context: Context) -> None:
    """Table ``images a second``: batch 1 and the best of a sweep, by network, precision and number of calls."""
    toy = context.toy
    teacher = small_teacher() if toy else open_teacher("cifar")
    kinds = (
        ("bf16", (1, 16, 128, 512, 1024), CALLS),
        ("float32, TF32", (1, 128, 512), CALLS),
        ("float32, no TF32", (1, 512), CALLS[:1]),
    )
    for precision, tried, calls in kinds[: 1 if toy else None]:
        sizes = (1, 2) if toy else tried
        of_teacher(context, Maker(PIXELS, precision, pixels(in_precision(teacher, precision)), sizes, calls))
    for name, config, tried in (
        ("SD-shaped, 4×64×64", SD, (1, 4, 16, 32)),
        ("SDXL-shaped, 4×128×128", SDXL, (1, 4, 8)),
    ):
        clear()
        try:
            network = built(TINY if toy else config)
        except Exception as error:
            context.add("images a second", {"network": name, "what": f"failed: {said(error)}"})
            continue
        of_teacher(context, Maker(name, "bf16", latents(network), (1, 2) if toy else tried))
        del network
    clear()
    compiled(context, teacher)


def of_teacher(context: Context, maker: Maker) -> None:
    """Rows of one network in one precision."""
    tf32(maker.precision)
    try:
        single = {size: rate(maker, size, 1, context.toy) for size in maker.sizes}
        known = {size: value for size, value in single.items() if value is not None}
        best = max(known, key=lambda size: known[size])
        for size in dict.fromkeys((1, best)):
            for calls in maker.calls:
                row = {"network": maker.network, "precision": maker.precision, "batch": size, "calls": calls}
                expected = calls * size / known[size]
                if calls > 1 and expected > min(LONGEST, 0.2 * context.left):
                    context.add("images a second", {**row, "what": f"not measured: it would take {expected:.0f} s"})
                    continue
                found = known[size] if calls == 1 else rate(maker, size, calls, context.toy)
                context.add("images a second", {**row, "images/s": found})
        lost = [str(size) for size, value in single.items() if value is None]
        if lost:
            context.add("images a second", {"network": maker.network, "precision": maker.precision,
                                            "what": f"out of memory at batch {', '.join(lost)}"})  # fmt: skip
    except Exception as error:
        words = f"failed: {said(error)}"
        context.add("images a second", {"network": maker.network, "precision": maker.precision, "what": words})
    finally:
        tf32("TF32")


def rate(maker: Maker, size: int, calls: int, toy: bool) -> float | None:
    """Images a second, the median over half a second or so; None where the memory does not suffice."""
    try:
        make = maker.prepare(size)
        for _ in range(1 if toy else 3):  # also where calls are many: the shapes are those of one
            make(1)
        seconds: list[float] = []
        while not seconds or (sum(seconds) < SPENT and len(seconds) < 50 and not toy):
            synchronise()
            started = time.perf_counter()
            make(calls)
            synchronise()
            seconds.append(time.perf_counter() - started)
        return size / statistics.median(seconds)
    except torch.OutOfMemoryError:
        clear()
        return None


def in_precision(teacher: Teacher, precision: str) -> Teacher:
    """The teacher, or a copy whose network is in bf16, as ``load_teacher(name, dtype="bfloat16")`` has it."""
    if not precision.startswith("bf16"):
        return teacher
    denoiser: Any = copy.deepcopy(teacher)
    denoiser.network.to(torch.bfloat16)
    return denoiser


def folded(teacher: Teacher) -> OneStep:
    """A new student's one call, in the precision of its teacher."""
    denoiser: Any = teacher.denoiser
    one = Student.from_teacher(teacher).to(device()).one_step().to(device())
    one.network.to(next(denoiser.network.parameters()).dtype)
    return one


def pixels(teacher: Teacher) -> Callable[[int], Callable[[int], object]]:
    """The package's own ways to an image: a folded student's call, or DDIM."""
    one, times = folded(teacher), teacher.t_range

    def prepare(size: int) -> Callable[[int], object]:
        eps = torch.randn(size, *teacher.shape, device=device())
        return lambda calls: one(eps) if calls == 1 else ddim(teacher, eps, trailing_times(calls, *times))

    return prepare


class Told(nn.Module):
    """A text-conditional network that is given its text with the batch: (x, t) to the output in float32."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.words: dict[str, Any] = {}

    def tell(self, size: int) -> None:
        """Random embeddings for a batch, and SDXL's sizes."""
        config, weight = self.network.config, next(self.network.parameters())
        text = torch.randn(size, 77, config.cross_attention_dim, device=weight.device, dtype=weight.dtype)
        self.words = {"encoder_hidden_states": text}
        if config.addition_embed_type == "text_time":
            width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            pooled = torch.randn(size, width, device=weight.device, dtype=weight.dtype)
            ids = torch.full((size, 6), 1024.0, device=weight.device, dtype=weight.dtype)
            self.words["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's output, (b, 4, h, w)."""
        dtype = next(self.network.parameters()).dtype
        return self.network(x.to(dtype), t, **self.words).sample.float()


def built(config: dict[str, Any]) -> Told:
    """A UNet2DConditionModel with random weights, made where it is used and as it is used: in bf16 on the GPU."""
    from diffusers import UNet2DConditionModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device():
            network = UNet2DConditionModel(**config)
    finally:
        torch.set_default_dtype(before)
    return Told(network.requires_grad_(False).eval())


def latents(told: Told) -> Callable[[int], Callable[[int], object]]:
    """DDIM of one or more calls on latents; with one call that is what a folded student computes."""
    side = told.network.config.sample_size
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    teacher = CallableTeacher(told, BetaTable(betas), "epsilon", (4, side, side))

    def prepare(size: int) -> Callable[[int], object]:
        told.tell(size)
        eps = torch.randn(size, 4, side, side, device=device())
        return lambda calls: ddim(teacher, eps, trailing_times(calls, 0.0, 0.999))

    return prepare


def compiled(context: Context, teacher: Teacher) -> None:
    """One call of the 36 M U-Net in bf16 with torch.compile, where that comes to its end in the time that is left."""
    row: dict[str, Any] = {"network": PIXELS, "precision": "bf16, compiled", "calls": 1}
    if context.toy:
        context.add("images a second", {**row, "what": "not tried at toy size"})
        return
    one = folded(in_precision(teacher, "bf16"))
    one.network.compile(mode="reduce-overhead")  # CUDA graphs: a small batch is a matter of launching kernels

    def prepare(size: int) -> Callable[[int], object]:
        eps = torch.randn(size, *teacher.shape, device=device())

        def make(calls: int) -> object:
            torch.compiler.cudagraph_mark_step_begin()
            return one(eps)

        return make

    maker = Maker(row["network"], row["precision"], prepare, (1, 512))
    began = time.perf_counter()
    for size in maker.sizes:
        room = min(COMPILING - (time.perf_counter() - began), context.left - 4)
        context.add("images a second", {**row, "batch": size, **compiled_rate(context, maker, size, room)})


def compiled_rate(context: Context, maker: Maker, size: int, room: float) -> dict[str, Any]:
    """Images a second once it is compiled, or why there are none, in ``room`` seconds."""
    if room < FEWEST:
        return {"what": f"not tried: {max(0.0, room):.0f} s are left"}
    try:
        with context.limited(room):
            started = time.perf_counter()
            found = rate(maker, size, 1, context.toy)
            return {"images/s": found, "seconds with compiling": time.perf_counter() - started}
    except OutOfTime:
        return {"what": f"not compiled within {room:.0f} s"}
    except Exception as error:
        return {"what": f"failed: {said(error)}"}


def clear() -> None:
    """Give back what nobody holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
