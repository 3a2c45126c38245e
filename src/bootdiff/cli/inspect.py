"""The work of ``bootdiff inspect``: it shows what a teacher is and what distilling it costs."""

from __future__ import annotations

import json as json_module
import sys
import time
from contextlib import redirect_stdout
from typing import Any

import torch

from bootdiff.config.settings import make_settings
from bootdiff.distillation.memory import memory_need, weights_need
from bootdiff.methods.boot import BootSettings
from bootdiff.teachers import NetworkTeacher, Teacher, adapter_of, blank_condition
from bootdiff.teachers.probe import check_answers
from bootdiff.training.planned import passes_a_step

PROBE = 64
#: the parameters below which a probe has PROBE samples; above, it has an eighth of them
SMALL = 10_000_000
#: the parameters from which a probe has one sample
LARGE = 100_000_000


def inspect_teacher(teacher: Teacher, batch_size: int = 128) -> dict[str, Any]:
    """Return a teacher's network, size, prediction, schedule, conditions and costs, ready to be written as JSON."""
    check_answers(teacher)
    denoiser = teacher.denoiser
    read = denoiser if isinstance(denoiser, NetworkTeacher) else None
    low, high = teacher.t_range
    alpha, sigma = teacher.schedule.alpha_sigma(torch.tensor([low, high]))
    config = getattr(denoiser, "scheduler_config", None) or {}
    return {
        "teacher": teacher.name,
        "supported": True,
        "network": type(read.network).__name__ if read else type(denoiser).__name__,
        **(denoiser.origin.options if denoiser.origin else {}),
        "parameters": sum(p.numel() for p in teacher.parameters()),
        "shape": list(teacher.shape),
        "prediction": read.prediction.name if read else "sample",
        "scheduler": config.get("_class_name"),
        "beta_schedule": config.get("beta_schedule"),
        "timesteps": teacher.schedule.num_timesteps,
        "integer_timesteps": teacher.schedule.integer_timesteps,
        "start_scale": teacher.schedule.start_scale(high),
        "limit": repr(teacher.limit),
        "t_min": low,
        "t_max": high,
        "alpha_at_t_max": alpha[1].item(),
        "sigma_at_t_min": sigma[0].item(),
        **conditions(teacher),
        "batch_size": batch_size,
        **estimate(teacher, batch_size),
    }


@torch.no_grad()
def estimate(teacher: Teacher, batch_size: int) -> dict[str, float]:
    """Return the memory of a BOOT step in GiB, and the seconds of a pass and of a step.

    Memory and passes are counted; the time comes from one small pass, measured on this machine's CPU.
    """
    parameters = sum(p.numel() for p in teacher.parameters())
    # A small network's few samples would mostly measure what a call costs anyhow.
    probe = min(batch_size, PROBE) if parameters < SMALL else PROBE // 8 if parameters < LARGE else 1
    x, t = torch.zeros(probe, *teacher.shape), torch.full((probe,), teacher.t_range[1])
    for _ in range(2 if parameters < LARGE else 1):  # the first call makes ready what the next ones find
        started = time.perf_counter()
        teacher.x0(x, t, blank_condition(teacher, probe))
        seconds = time.perf_counter() - started
    a_pass = seconds / probe * batch_size
    usual = make_settings(BootSettings)
    need = memory_need(teacher, usual)
    memory = weights_need(teacher, usual) if need is None else need.weights + need.sample * batch_size
    return {"memory_gib": memory / 2**30, "pass_seconds": a_pass, "step_seconds": passes_a_step(usual) * a_pass}


def conditions(teacher: Teacher) -> dict[str, Any]:
    """Return what a teacher is conditioned on, and how guidance enters."""
    adapter = adapter_of(teacher)
    if adapter is None:
        return {"conditions": []}
    entries = {name: list(value.shape[1:]) for name, value in adapter.blank(1).items()}
    facts: dict[str, Any] = {
        "pipeline": adapter.parts.pipeline_class,
        "latent": adapter.latent,
        "conditions": [f"{name} {shape}" if shape else name for name, shape in entries.items()],
        "guidance": adapter.guidance,
    }
    if adapter.takes == "classes":
        facts.update(classes=adapter.classes, null_class=adapter.null_class)
        names = adapter.parts.class_names
        facts.update({"class_names": names} if names else {})
    return facts


def print_inspection(teacher: Teacher, as_json: bool) -> None:
    """Print what a teacher is, as a table or as JSON."""
    with redirect_stdout(sys.stderr):  # where a network of one's own may print; standard output is the answer
        facts = inspect_teacher(teacher)
    if as_json:
        print(json_module.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    units = {"memory_gib": "GiB", "pass_seconds": "s", "step_seconds": "s"}
    for key, value in facts.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value) if value != [] else "none"
        if key == "class_names":
            text = ", ".join(f"{label} {name}" for label, name in enumerate(value))
        table.add_row(key.removesuffix("_gib").removesuffix("_seconds"), f"{text} {units.get(key, '')}".strip())
    Console().print(table)
