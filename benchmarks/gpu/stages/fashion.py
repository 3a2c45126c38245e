"""fashion-32: BOOT, then a correction, at a batch that no CPU has patience for.

The teacher is packed; feature space and reference are the package's own ``fashion``. What was learned of the settings
is in docs/log.md: the path from t = 0.93, L1, steps of 0.1, and for the correction three updates of the fake denoiser
to one of the student, high noise levels and a fifth of BOOT's loss.
"""

from __future__ import annotations

from pathlib import Path

from context import PACKED, Context
from students import Recipe, train_and_measure

from bootdiff.evaluation.references import find_reference
from bootdiff.evaluation.tally import Judges
from bootdiff.metrics.onnx_features import OnnxFeatures

BATCH = 512
PATH = {"distance": "l1", "delta": 0.1, "boundary_every": 4, "null_class": 10, "mixed_precision": "bf16"}
BOOT = {"learning_rate": 1e-3, "lr_schedule": "cosine", "warmup_steps": 30, "ema_decay": 0.99}
CORRECTION = {
    "learning_rate": 1.5e-4,
    "fake_learning_rate": 4e-4,
    "lr_schedule": "cosine",
    "ema_decay": 0.97,
    "fake_updates": 3,
    "fake_warmup": 20,
    "beta1": 0.5,
    "boot_weight": 0.2,
    "noise_levels": [0.3, 0.97],
}
RECIPE = Recipe(BOOT, {**CORRECTION, **PATH, "t_max": 0.93, "batch_size": BATCH}, reserve=65.0)


def run(context: Context) -> None:
    """The tables of ``train_and_measure``."""
    folder = toy_teacher(context.work / "teacher") if context.toy else PACKED / "teachers" / "fashion-32"
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"no teacher in {folder}; run benchmarks/gpu/pack.sh first, which puts it there.")
    features = OnnxFeatures.fashion()
    train_and_measure(context, folder, Judges(features, find_reference("fashion", features)), RECIPE)


def toy_teacher(folder: Path, channels: int = 1) -> Path:
    """A random class-conditional U-Net of a few thousand parameters for 32×32 images."""
    if not (folder / "model_index.json").is_file():
        from diffusers import DDPMPipeline, DDPMScheduler

        from tiny_unet import tiny_unet

        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=True)
        network = tiny_unet(channels, sample_size=32, num_class_embeds=11)
        DDPMPipeline(network, scheduler).save_pretrained(folder)
    return folder
