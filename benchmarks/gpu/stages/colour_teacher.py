"""A class-conditional teacher of colour images: 6.5 M parameters, 32×32, trained here on the packed part of CIFAR-10.

The package's own ``Denoising`` objective and loop, in bf16, on the images and their mirror images. It is not compiled:
that would take a quarter of the stage. What is kept is in float16, 13 MB, and every figure is measured on that.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import torch
from classifier import ColourFeatures, save_onnx, train_classifier
from common import device, steps, synchronise
from context import MARGIN, PACKED, Context, below
from sheets import read_sheets
from students import CLASSES, NOISE_SEED, Measurer
from torch import Tensor

from bootdiff import TeacherSettings, load_teacher
from bootdiff.data.conditions import Classes
from bootdiff.data.pictures import grid, to_unit
from bootdiff.data.sources import Images
from bootdiff.evaluation.references import Reference
from bootdiff.evaluation.tally import Judges
from bootdiff.methods.base import Learner, sampled
from bootdiff.methods.denoising import Denoiser, Denoising
from bootdiff.metrics.frechet import Accumulator, Statistics, frechet_distance
from bootdiff.samplers.base import noise_batches
from bootdiff.samplers.rows import ddim_sampler
from bootdiff.solvers import Heun, even_times, solve, trailing_times
from bootdiff.storage.files import remove, write_json, write_whole
from bootdiff.teachers.loading.parts import LABELS
from bootdiff.teaching.untrained import UNTRAINED, Data, Untrained
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop, averaged

#: the folder of the teacher, its features and reference
NAME = "colour"
CLASSIFYING = 22.0
#: seconds for everything beside the training
RESERVE = 50.0
MOST, SAMPLES = 20_000, 5000
SETTINGS: dict[str, Any] = {
    "kind": "classes",
    "channels": [64, 128, 128],
    "attention_levels": [1],
    "layers_per_block": 2,
    "prediction": "v_prediction",
    "schedule": "cosine",
    "batch_size": 512,
    "learning_rate": 8e-4,
    "lr_schedule": "cosine",
    "warmup_steps": 200,
    "ema_decay": 0.9993,
    "mixed_precision": "bf16",
    "sample_every": 0,
    "log_every": 50,
}
CARD = """# colour: a class-conditional teacher of 32×32 colour images

{parameters:,} parameters in float16; v-prediction, cosine betas; labels 0–9, 10 = no class (10 % of training). Trained
by `python benchmarks/gpu/run.py colour-teacher` for {steps:,} steps of {batch} ({epochs} epochs) on a class-balanced
part of CIFAR-10, re-encoded with losses: good for comparing a student with its teacher, not with published figures.

`features.onnx`: a small classifier, `images` (b, 3, 32, 32) in [−1, 1] to `features` (b, 128) and `logits` (b, 10).
`reference.npz`: mean and covariance of the training images' features. Figures: docs/records/gpu-colour-teacher.json.
"""
TOY: dict[str, Any] = {"channels": [8, 16], "attention_levels": [], "layers_per_block": 1, "batch_size": 4,
                       "mixed_precision": "no", "warmup_steps": 0}  # fmt: skip


def run(context: Context) -> None:
    """Tables ``data``, ``plan`` and ``samplers``; the teacher's folder, a picture, and the archive."""
    folder = context.work / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (pixels, labels), held_out = toy_images() if context.toy else images()
    judges = feature_space(context, folder, pixels, labels, held_out)
    words = SETTINGS | (TOY if context.toy else {})
    doubled = Data(torch.cat([pixels, pixels.flip(3)]), labels=torch.cat([labels, labels]))
    plan = context.remembered("plan", lambda: planned(context, doubled, words))
    context.put("plan", [plan])
    context.say(", ".join(f"{key} {value}" for key, value in plan.items()))
    if not (folder / "model_index.json").is_file():
        untrained, loop = training(context.work / "run", doubled, words, plan["steps"])
        with averaged(loop.run()):
            save_half(untrained, folder)
        (folder / "README.md").write_text(CARD.format(**plan), encoding="utf-8")
    archive(context, folder)
    measure(context, folder, judges)
    archive(context, folder)


def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(pixels, labels) to train on, and those held out."""
    folder = PACKED / "images"
    return read_sheets(folder, "train"), read_sheets(folder, "test")


def toy_images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Noise around ten colours."""
    labels = torch.arange(10).repeat(4)
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 216, (10, 3, 1, 1), generator=generator)
    noise = torch.randint(-30, 30, (40, 3, 32, 32), generator=generator)
    pixels = (colours[labels] + noise).to(torch.uint8)
    return (pixels, labels), (pixels[:20], labels[:20])


def feature_space(
    context: Context, folder: Path, pixels: Tensor, labels: Tensor, held_out: tuple[Tensor, Tensor]
) -> Judges:
    """The classifier's features and the images' statistics, made once; table ``data`` says how good they are."""
    path, began = folder / "features.onnx", time.perf_counter()
    if not path.exists():
        network = train_classifier(pixels, labels, 1.0 if context.toy else CLASSIFYING)
        write_whole(path, lambda temporary: save_onnx(network, temporary))
    features = ColourFeatures(path)
    reference, _ = statistics(features, pixels)
    real, logits = statistics(features, held_out[0])
    reference.save(folder / "reference.npz", features.name)
    right = float((logits.argmax(1) == held_out[1]).float().mean())
    context.put("data", [{
        "images": len(pixels), "held out": len(held_out[0]), "classifier, right of held out": right,
        "Fréchet distance of the held out": frechet_distance(real, reference),
        "onnxruntime − torch": onnx_gap(path, features, to_unit(held_out[0][:64])),
        "seconds": round(time.perf_counter() - began, 1),
    }])  # fmt: skip
    return Judges(features, Reference(reference, None, NAME, features.name))


def statistics(features: ColourFeatures, pixels: Tensor) -> tuple[Statistics, Tensor]:
    """Of the images' features, and their logits."""
    accumulator, logits = Accumulator(), []
    for part in pixels.split(2000):
        values, own = features.read(to_unit(part.to(device())))
        accumulator.add(values.cpu())
        logits.append(own.cpu())
    return accumulator.statistics(), torch.cat(logits)


def onnx_gap(path: Path, features: ColourFeatures, some: Tensor) -> float:
    """The largest difference of the file's features in onnxruntime to those here, relative to their largest."""
    from bootdiff.metrics.onnx_features import OnnxFeatures

    here = features(some.to(device())).cpu()
    return float((OnnxFeatures(path)(some) - here).abs().max() / here.abs().max())


def training(folder: Path, data: Data, words: dict[str, Any], count: int) -> tuple[Untrained, Loop]:
    """A stock pipeline with random weights, and the loop that trains it as ``train-teacher`` does."""
    settings = TeacherSettings(**words, steps=count, checkpoint_every=max(1, math.ceil(count / 3)), keep_last=1)
    torch.manual_seed(settings.seed)
    untrained = UNTRAINED[settings.kind](data, settings)
    reading = untrained.reading()
    learner = Learner(Denoiser(reading), settings.learning_rate, averages=sampled(settings.ema_decay))
    objective = Denoising(reading, Images(data.pixels, untrained.description), learner)
    return untrained, Loop(objective, settings, folder, make_accelerator(settings, folder))


def planned(context: Context, data: Data, words: dict[str, Any]) -> dict[str, Any]:
    """As many steps as fit into the time that is left, from the speed of a few."""
    untrained, loop = training(context.work / "speed", data, words, 1000)
    network: Any = untrained.pipeline.unet
    steps(loop, 2 if context.toy else 12)
    synchronise()
    began, count = time.perf_counter(), 2 if context.toy else 30
    steps(loop, count)
    synchronise()
    speed = (time.perf_counter() - began) / count
    room = (context.left - RESERVE) * (1 - MARGIN)
    chosen = 3 if context.toy else max(200, min(MOST, int(room / speed)))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "batch": words["batch_size"],
        "ms a step": round(1000 * speed, 2),
        "steps": chosen,
        "epochs": round(chosen * words["batch_size"] / len(data.pixels), 1),
    }


def save_half(untrained: Untrained, folder: Path) -> None:
    """The pipeline in float16, in shards of at most 14 MB; its index is moved last, so that it is whole where it is."""
    from diffusers import DDPMPipeline

    half = copy.deepcopy(untrained.pipeline.unet).to("cpu", torch.float16)
    temporary = folder / ".pipeline"
    remove(temporary)
    DDPMPipeline(half, untrained.pipeline.scheduler).save_pretrained(temporary, max_shard_size="14MB")
    write_json(folder / LABELS, {"null_class": untrained.null_class})
    for name in ("unet", "scheduler", "model_index.json"):
        remove(folder / name)
        (temporary / name).rename(folder / name)
    remove(temporary)


def measure(context: Context, folder: Path, judges: Judges) -> None:
    """The saved teacher's own samplers, and a picture."""
    teacher = load_teacher(str(folder)).to(device())
    low, high = teacher.t_range
    measurer = Measurer(teacher, judges, 16 if context.toy else SAMPLES)
    rows: dict[str, tuple[int, Any]] = {
        f"DDIM {count}": (count, ddim_sampler(teacher, trailing_times(count, low, high)))
        for count in ((2,) if context.toy else (10, 50))
    }
    if not context.toy:
        times = even_times(25, low, high)
        rows["Heun 25"] = 50, lambda eps, condition: solve(teacher, eps, times, Heun(), condition)[-1]
    name, (calls, sample) = next(iter(rows.items()))
    eps = next(noise_batches(NOISE_SEED, 100, teacher.shape, 100))
    made = sample(eps, Classes(CLASSES).listed(0, 0, 100).to(eps.device))
    grid(made.cpu(), columns=len(CLASSES)).save(context.work / f"samples-{name.replace(' ', '-').lower()}.png")
    for name, (calls, sample) in rows.items():
        context.add("samplers", measurer.row(name, calls, sample))


def archive(context: Context, folder: Path) -> None:
    """The teacher's folder, then what its training said."""
    pictures = {p.name: p for p in sorted(context.work.glob("*.png"))}
    more = {"log.jsonl": context.work / "run" / "log.jsonl", "plan.json": context.work / "plan.json", **pictures}
    left_out = context.archive({**below(folder, NAME), **{n: p for n, p in more.items() if p.exists()}})
    if left_out:
        context.say(f"no room in the archive for {', '.join(left_out)}")
