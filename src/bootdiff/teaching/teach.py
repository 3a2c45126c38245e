"""The training of a teacher on images, which becomes a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.data_set import Data, hash_data
from bootdiff.data.pictures import grid
from bootdiff.data.sources import Images
from bootdiff.solvers import ddim, trailing_times
from bootdiff.storage.files import write_json, write_parts, write_whole
from bootdiff.storage.lock import lock
from bootdiff.storage.reading import folder_named
from bootdiff.storage.runs import Run
from bootdiff.system.notes import note
from bootdiff.system.processes import word_of_first
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.parts import LABELS
from bootdiff.teaching.settings import FORMER, TeacherSettings
from bootdiff.teaching.training_data import load_data
from bootdiff.teaching.untrained import UNTRAINED, Untrained

if TYPE_CHECKING:
    from bootdiff.methods import Denoiser, Denoising
    from bootdiff.methods.boot import BootSettings
    from bootdiff.training.loop import Preview

#: the file that is written last for a student beside its teacher
ONE_STEP = "one-step/student/model_index.json"


def train_teacher(data: str, output: Path | str, settings: TeacherSettings, report_to: str | None = None) -> bool:
    """Train a small pipeline on images, with their labels or captions, and save it at ``output``.

    Returns:
        True if it was trained; False if the folder already holds the finished teacher.

    Raises:
        BootdiffError: if the data cannot be read or do not fit the network, or the folder holds something else.
    """
    from bootdiff.teaching.student_settings import student_settings

    output = folder_named(output)
    known = load_data(data, settings)
    asked = student_settings(settings)
    run = Run(output)
    config = {"task": "train-teacher", "data": data, "settings": settings.of_its_kind}
    sources = {"data": hash_data(known)}
    former = FORMER[settings.kind]
    run.check(config, sources, former)
    if word_of_first(_finished(output, asked)):
        run.tidy()
        return False
    from bootdiff.training.accelerator import own_state

    with own_state(), lock(output):
        run.check(config, sources, former)  # another process may have been there since
        if word_of_first(_finished(output, asked)):
            return False
        for key in sorted(former & settings.model_fields_set):
            note(f"a teacher of kind {settings.kind} has no {key}, so it has no effect; leave it out.")
        _train(known, run, settings, asked, (config, sources), report_to)
    return True


def _finished(output: Path, asked: BootSettings | None) -> bool:
    return all((output / part).exists() for part in ("model_index.json", *([] if asked is None else [ONE_STEP])))


def _train(
    known: Data,
    run: Run,
    settings: TeacherSettings,
    asked: BootSettings | None,
    words: tuple[dict[str, Any], dict[str, str]],
    report_to: str | None,
) -> None:
    """Train and save a teacher, in a folder that no other process uses.

    Args:
        asked: how a student beside the teacher learns, if there is one.
        words: what the run's files hold: what was asked, and hashes of what the run reads.
    """
    from bootdiff.teaching.joint import check_beside, save_beside, with_student
    from bootdiff.training.accelerator import end_training, make_accelerator, start_tracker
    from bootdiff.training.loop import Loop, averaged

    output = run.folder
    accelerator = make_accelerator(settings, output, report_to)
    torch.manual_seed(settings.seed)
    with quietly():
        untrained = UNTRAINED[settings.kind](known, settings)
    if asked is not None:
        check_beside(untrained, settings, asked, accelerator.num_processes)
    if accelerator.is_main_process:
        run.start(*words)
    accelerator.wait_for_everyone()  # the autoencoder's folder lies in the run's
    values = _values(untrained, known.pixels, output, settings)
    start_tracker(accelerator, settings)
    denoising = _denoising(untrained, values, settings)
    student, objective = (None, denoising) if asked is None else with_student(denoising, settings, asked)
    preview = _preview(denoising, untrained.shown, output)
    learners = Loop(objective, settings, output, accelerator, preview).run()
    if accelerator.is_main_process:
        with averaged(learners):
            _save(untrained, output, known.names)
            if student is not None:
                save_beside(student, output, settings)
    accelerator.wait_for_everyone()
    end_training(accelerator)


def _values(untrained: Untrained, pixels: Tensor, output: Path, settings: TeacherSettings) -> Tensor:
    """Return what the denoiser learns: the pixels, or the latents of an autoencoder that is trained first."""
    vae = getattr(untrained.pipeline, "vae", None)
    if vae is None:
        return pixels
    from bootdiff.teaching.autoencoder import train_autoencoder

    return train_autoencoder(vae, pixels, output / "autoencoder", settings)


def _denoising(untrained: Untrained, values: Tensor, settings: TeacherSettings) -> Denoising:
    """Return the objective: the network, and the text encoder that learns with it if there is one."""
    from bootdiff.methods import Denoiser, Denoising, Learner
    from bootdiff.methods.base import sampled

    reading = untrained.reading()
    denoiser = Denoiser(reading, untrained.encoder)
    learner = Learner(
        denoiser, settings.learning_rate, weight_decay=settings.weight_decay, averages=sampled(settings.ema_decay)
    )
    return Denoising(reading, Images(values, untrained.description), learner)


def _preview(denoising: Denoising, asked: Condition, output: Path) -> Preview:
    """Return a function that draws samples: ten DDIM steps from fixed noises, with the averaged weights.

    Args:
        asked: the conditions of the samples.
    """
    from bootdiff.teachers import Limited

    reading: Any = denoising.reading
    denoiser = cast("Denoiser", denoising.teacher.module)
    noise = sample_noise(0, 0, 64, reading.shape)

    def preview(step: int, networks: dict[str, Any]) -> None:
        device = next(reading.network.parameters()).device
        shown = denoiser.embed(asked.to(device))
        images = ddim(Limited(reading), noise.to(device), trailing_times(10, *reading.t_range), shown)
        images = reading.adapter.decode(images).cpu()
        write_whole(output / "samples" / f"step-{step:08d}.png", grid(images).save)

    return preview


def _save(untrained: Untrained, output: Path, names: Sequence[str]) -> None:
    """Save the pipeline; model_index.json is written last, so that a folder that has it is whole."""
    pipeline = untrained.pipeline.to("cpu")
    null = {} if untrained.null_class is None else {"null_class": untrained.null_class}
    if null or names:
        write_json(output / LABELS, {**null, **({"names": list(names)} if names else {})})

    def write(folder: Path) -> None:
        with quietly():
            pipeline.save_pretrained(folder, safe_serialization=True)

    write_parts(output, write, "model_index.json")
