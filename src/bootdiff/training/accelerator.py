"""What accelerate is told of processes, precision and trackers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType, GradientState

from bootdiff.config.settings import TrainingSettings
from bootdiff.core.errors import BootdiffError
from bootdiff.system import presence
from bootdiff.system.processes import group_is_ours, place, several, told_when_lost


@contextmanager
def own_state() -> Iterator[None]:
    """Give a run its own copy of what the whole process shares, and restore a host program's values after it.

    That is accelerate's state (the precision, the accumulation), PyTorch's random numbers, and the attention that
    several processes pay to each other.
    """
    kinds = (AcceleratorState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with presence.kept(), told_when_lost(), torch.random.fork_rng(devices=list(gpus)):
            yield
    finally:
        for kind, values in zip(kinds, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(values)


def end_training(accelerator: Accelerator, last: bool = True) -> None:
    """Close trackers and, after the last stage, the processes' group, unless a host program opened that group."""
    if last and group_is_ours():
        accelerator.end_training()
    else:
        for tracker in accelerator.trackers:
            tracker.finish()


def make_accelerator(settings: TrainingSettings, folder: Path, report_to: str | None = None) -> Accelerator:
    """Return an accelerator for this run, before anything is written.

    Raises:
        BootdiffError: if the batch cannot be split evenly, the tracker is not installed, or the device cannot do what
            is asked.
    """
    # A second run in the same process may ask for another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    try:
        place()
        accelerator = Accelerator(
            cpu=several() and not torch.accelerator.is_available(),
            mixed_precision=settings.mixed_precision,
            log_with=report_to,
            project_dir=folder if report_to else None,
        )
    except (ValueError, ImportError) as error:
        raise BootdiffError(f"{error}".splitlines()[0]) from error
    if report_to and not accelerator.log_with:
        raise BootdiffError(f"--report-to {report_to}: {report_to} is not installed; install it with pip.")
    if settings.mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise BootdiffError("mixed_precision fp16 needs a CUDA device, found none; use bf16 or no.")
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise BootdiffError(
            f"accelerate is set to {accelerator.distributed_type.value}; expected one process, or several with "
            "plain data parallelism (no FSDP, no DeepSpeed)."
        )
    parts = accelerator.num_processes * settings.gradient_accumulation
    if settings.batch_size % parts:
        raise BootdiffError(
            f"batch_size {settings.batch_size} cannot be split evenly over {accelerator.num_processes} processes and "
            f"{settings.gradient_accumulation} accumulation steps; choose a multiple of {parts}."
        )
    return accelerator


def start_tracker(accelerator: Accelerator, settings: TrainingSettings) -> None:
    """Open the tracker that the accelerator was made with, if any, and give it the settings.

    Trackers take only numbers and words.
    """
    if accelerator.log_with:
        values = settings.model_dump().items()
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in values}
        accelerator.init_trackers("bootdiff", config=plain)
