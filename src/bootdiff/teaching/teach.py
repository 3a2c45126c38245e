"""Training a teacher on images: a diffusers pipeline of one's own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import sample_noise
from bootdiff.data.images import load_images
from bootdiff.data.labels import load_captions, load_class_names, load_labels
from bootdiff.data.pictures import grid
from bootdiff.data.sources import Images
from bootdiff.solvers import ddim, trailing_times
from bootdiff.storage.files import write_json, write_parts, write_whole
from bootdiff.storage.lock import lock
from bootdiff.storage.runs import Run
from bootdiff.system.notes import note
from bootdiff.system.processes import word_of_first
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.parts import LABELS
from bootdiff.teaching.settings import FORMER, TeacherSettings
from bootdiff.teaching.untrained import UNTRAINED, Data, Untrained

if TYPE_CHECKING:
    from bootdiff.methods.boot import BootSettings

#: the last thing that is written of a student beside its teacher
ONE_STEP = "one-step/student/model_index.json"
#: of BOOT's settings, those of a student that is trained with its teacher
OF_A_STUDENT = (
    *("t_min", "t_max", "delta", "solver", "loss_weight", "distance", "lpips_weights"),
    *("time_sampling", "boundary_weight", "boundary_every"),
)


def train_teacher(data: str, output: Path | str, settings: TeacherSettings, report_to: str | None = None) -> bool:
    """Train a small pipeline on images, their labels or captions, and save it at ``output``.

    Returns:
        False if the folder already holds the finished teacher.

    Raises:
        BootdiffError: if the data cannot be read, do not fit the network, or the folder holds something else.
    """
    output = Path(output)
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
    """Train and save, in a folder that is ours alone.

    Args:
        asked: how a student beside the teacher learns, if one does.
        words: what the run says of itself: what was asked, and hashes of what it reads.
    """
    from bootdiff.methods import Denoiser, Denoising, Learner
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
    reading = untrained.reading()
    denoiser = Denoiser(reading, untrained.encoder)
    learner = Learner(
        denoiser, settings.learning_rate, weight_decay=settings.weight_decay, ema_decay=settings.ema_decay
    )
    denoising = Denoising(reading, Images(values, untrained.description), learner)
    student, objective = (None, denoising) if asked is None else with_student(denoising, settings, asked)
    learners = Loop(objective, settings, output, accelerator, _preview(denoiser, reading, untrained, output)).run()
    if accelerator.is_main_process:
        with averaged(learners):
            _save(untrained, output, known.names)
            if student is not None:
                save_beside(student, output, settings)
    accelerator.wait_for_everyone()
    end_training(accelerator)


def load_data(data: str, settings: TeacherSettings) -> Data:
    """Images of the size that is asked for, and what this kind of teacher must know of them.

    Raises:
        BootdiffError: if they cannot be read, say nothing of themselves, or do not fit the network.
    """
    pixels = prepare_images(load_images(data, settings.resize), settings)
    if settings.kind == "unconditional":
        return Data(pixels)
    if settings.kind == "classes":
        labels = load_labels(data)
        _check_count(data, len(pixels), len(labels), "labels")
        there = labels.unique()
        missing = (there != torch.arange(len(there))).nonzero()
        if len(missing):
            first = int(missing[0])
            raise BootdiffError(f"{data} has labels up to {int(labels.max())} but no image of {first}; renumber.")
        return Data(pixels, labels=labels, names=load_class_names(data))
    captions = load_captions(data)
    _check_count(data, len(pixels), len(captions.rows), "captions")
    return Data(pixels, captions=captions)


def _check_count(data: str, images: int, said: int, what: str) -> None:
    if images != said:
        raise BootdiffError(f"{data} has {images} images and {said} {what}; expected one for every image.")


def prepare_images(pixels: Tensor, settings: TeacherSettings) -> Tensor:
    """Resize, pad to ``image_size`` with black, and check that the networks can halve the images often enough.

    Raises:
        BootdiffError: if the images are not square, larger than ``image_size``, or not divisible.
    """
    height, width = pixels.shape[-2:]
    if height != width:
        raise BootdiffError(f"expected square images, got {width}×{height}; crop or pad them.")
    if settings.resize is not None and settings.resize != height:
        pixels = resized(pixels, settings.resize)
        height = settings.resize
    size = settings.image_size or height
    if size < height:
        raise BootdiffError(f"image_size is {size} but the images are {height}×{height}; resize them or raise it.")
    levels = len(settings.channels)
    if settings.kind == "stable-diffusion":  # its denoiser halves what its autoencoder has halved
        levels += len(settings.autoencoder_channels) - 1
    if size % 2 ** (levels - 1):
        raise BootdiffError(
            f"{levels} levels halve the image {levels - 1} times, and {size} cannot be; set image_size "
            f"to {math.ceil(size / 2 ** (levels - 1)) * 2 ** (levels - 1)} or use fewer channels."
        )
    before = (size - height) // 2
    return pad(pixels, (before, size - height - before) * 2)


def resized(pixels: Tensor, side: int) -> Tensor:
    """uint8 images (n, c, h, w) with another side: means of pixels where they shrink, cubic where they grow."""
    how = {"mode": "area"} if side < pixels.shape[-1] else {"mode": "bicubic", "align_corners": False}
    parts = [interpolate(part.float(), size=(side, side), **how) for part in pixels.split(4096)]  # type: ignore[arg-type]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def hash_data(data: Data) -> str:
    """A short hash of the pixels and of what is said of them."""
    digest = hashlib.blake2b(data.pixels.numpy().tobytes(), digest_size=8)
    if data.labels is not None:
        digest.update(data.labels.numpy().tobytes())
    if data.captions is not None:
        digest.update("\0".join(data.captions.texts).encode() + data.captions.rows.numpy().tobytes())
    return digest.hexdigest()


def _values(untrained: Untrained, pixels: Tensor, output: Path, settings: TeacherSettings) -> Tensor:
    """What the denoiser learns: the pixels, or the latents of an autoencoder that is trained first."""
    vae = getattr(untrained.pipeline, "vae", None)
    if vae is None:
        return pixels
    from bootdiff.teaching.autoencoder import train_autoencoder

    return train_autoencoder(vae, pixels, output / "autoencoder", settings)


def _preview(denoiser: Any, reading: Any, untrained: Untrained, output: Path) -> Any:
    """Ten DDIM steps from fixed noises, with the averaged weights."""
    from bootdiff.teachers import Limited

    noise = sample_noise(0, 0, 64, reading.shape)

    def preview(step: int, networks: dict[str, Any]) -> None:
        device = next(reading.network.parameters()).device
        shown: Condition = denoiser.embed(untrained.shown.to(device))
        images = ddim(Limited(reading), noise.to(device), trailing_times(10, *reading.t_range), shown)
        images = reading.adapter.decode(images).cpu()
        write_whole(output / "samples" / f"step-{step:08d}.png", grid(images).save)

    return preview


def student_settings(settings: TeacherSettings) -> BootSettings | None:
    """How the student beside the teacher learns; None where none does.

    Raises:
        BootdiffError: for settings that are none of BOOT's, or of a student that is not asked for.
    """
    from bootdiff.methods.boot import BootSettings

    if settings.with_student == "no":
        if settings.student:
            raise BootdiffError("student.… are settings of a student; ask for one with --with-student.")
        return None
    try:
        asked = BootSettings(**settings.student)
    except BootdiffError as error:
        raise BootdiffError(f"student: {error}") from error
    for key in settings.student:
        if key not in OF_A_STUDENT:
            raise BootdiffError(
                f"student.{key}: a student beside its teacher has the teacher's; its own are {', '.join(OF_A_STUDENT)}."
            )
    if settings.with_student == "shared" and settings.gradient_checkpointing:
        raise BootdiffError("with_student=shared and gradient_checkpointing exclude each other; leave one out.")
    return asked


def _save(untrained: Untrained, output: Path, names: Sequence[str]) -> None:
    """model_index.json is written last: a folder that has it is whole."""
    pipeline = untrained.pipeline.to("cpu")
    null = {} if untrained.null_class is None else {"null_class": untrained.null_class}
    if null or names:
        write_json(output / LABELS, {**null, **({"names": list(names)} if names else {})})

    def write(folder: Path) -> None:
        with quietly():
            pipeline.save_pretrained(folder, safe_serialization=True)

    write_parts(output, write, "model_index.json")
