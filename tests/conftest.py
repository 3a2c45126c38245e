"""Shared fixtures: tiny teachers built here, and the command line called as a user calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, here and in what tests start: bitwise comparisons need the same number everywhere, the networks are too
# small for two, and two workers share two cores. A thread that waits must not burn the other worker's core.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """References that tests compute are not kept in the user's cache."""
    os.environ["BOOTDIFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def few_teacher_steps() -> Iterator[dict[str, object]]:
    """The pictures of a report take 150 calls of the teacher, and many tests write a report: here they take six.

    It gives what it replaces, for the test that counts the calls.
    """
    from bootdiff.evaluation.rows import reference_path
    from bootdiff.report import samples

    replaced = {"TEACHER_STEPS": samples.TEACHER_STEPS, "reference_path": samples.reference_path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "TEACHER_STEPS", 2)
        patch.setattr(samples, "reference_path", lambda *ends: reference_path(*ends, steps=2))
        yield replaced


def tiny_unet(channels: int = 1, seed: int = 0, **fields):
    """A random UNet2DModel of a few thousand parameters for 8×8 images."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    config = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    return UNet2DModel(**{**config, **fields}).eval()


def save_teacher(
    folder: Path, channels: int = 1, seed: int = 0, unet: dict | None = None, scheduler: dict | None = None, **fields
) -> Path:
    """Save a random DDPM pipeline as a teacher's folder.

    ``fields`` are the scheduler's; ``scheduler`` is written over its config as it is, whatever it says.
    """
    from diffusers import DDPMPipeline, DDPMScheduler

    usual = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": True}
    pipeline = DDPMPipeline(tiny_unet(channels, seed, **(unet or {})), DDPMScheduler(**{**usual, **fields}))
    pipeline.save_pretrained(folder)
    if scheduler is not None:
        path = folder / "scheduler" / "scheduler_config.json"
        kept = {} if "_class_name" in scheduler else json.loads(path.read_text())
        path.write_text(json.dumps({**kept, **scheduler}))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher's folder; tests must not change it."""
    return save_teacher(tmp_path_factory.mktemp("teachers") / "tiny")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP model's folder; tests must not change it."""
    from tiny_pipelines import save_clip_model

    return save_clip_model(tmp_path_factory.mktemp("clip") / "tiny-clip")


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``bootdiff ARGS`` in this process and return its exit code and words."""
    from bootdiff.cli.main import run

    def call(*args: object) -> Result:
        monkeypatch.setattr("sys.argv", ["bootdiff", *map(str, args)])
        capsys.readouterr()
        try:
            run()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        words = capsys.readouterr()
        return Result(code, words.out, words.err)

    return call
