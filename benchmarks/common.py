"""Timing in one run: what is compared is measured in turns, so that a machine's moods fall on both alike."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.teachers import Teacher, load_teacher
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop


def arguments(what: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--teacher", default="digits", help="a name for load_teacher, or cifar: 35.7 M, 32×32, random")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    return parser


def open_teacher(name: str) -> Teacher:
    """A teacher on the best device; ``cifar`` is DDPM's CIFAR-10 network with random weights."""
    if name != "cifar":
        return load_teacher(name).to(device())
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
    )
    return teacher_around(network, DDPMScheduler(), "cifar")


def teacher_around(network: Any, scheduler: Any, name: str) -> Teacher:
    """A UNet2DModel in memory as a teacher on the best device, without its scheduler's limit of x_0."""
    from diffusers import DDPMPipeline

    teacher = load_teacher(DDPMPipeline(network, scheduler)).denoiser
    teacher.name = name
    return teacher.to(device())


def device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_loop(teacher: Teacher, batch_size: int, **settings: Any) -> tuple[Loop, Boot]:
    """A training loop whose turns can be called one by one."""
    usual = {"steps": 10**6, "sample_every": 0, "checkpoint_every": 10**6, "log_every": 10**6, "gradient_clip": 1.0}
    words = BootSettings(batch_size=batch_size, **{**usual, **settings})
    folder = Path(tempfile.mkdtemp())
    objective = Boot.from_settings(teacher, words)
    return Loop(objective, words, folder, make_accelerator(words, folder)), objective


def steps(loop: Loop, count: int) -> None:
    """``count`` training steps, every learner's turns, without checkpoints."""
    for _ in range(count):
        turns = list(loop.objective.turns(loop.step))
        for number, name in enumerate(turns):
            loop._turn(name, turns[:number].count(name))
        loop.step += 1


def measure(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each candidate, ``repeats`` times, in turns; one turn first that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, call in candidates.items():
            synchronise()
            started = time.perf_counter()
            call()
            synchronise()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """(median, smallest, largest) of the quotients of the same repeats."""
    quotients = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(quotients), min(quotients), max(quotients)


def synchronise() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> None:
    """A markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(map(str, row)) + " |")


def quotient(name: str, above: Sequence[float], below: Sequence[float], asked: str) -> list[str]:
    """A row: name, median, spread, what was asked."""
    median, low, high = ratios(above, below)
    return [name, f"{median:.3f}", f"{low:.3f} – {high:.3f}", asked]


def save(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures and the machine."""
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    words = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": machine}
    if path is not None:
        path.write_text(json.dumps({**words, **figures}, indent=2) + "\n")
