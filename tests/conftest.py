"""Shared fixtures: tiny teachers built here, and the command line called as a user calls it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, here and in what tests start: bitwise comparisons need the same number everywhere, the networks are too
# small for two, and two workers share two cores. A thread that waits must not burn the other worker's core.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

import pytest
import torch

from tiny_unet import save_teacher

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """References that tests compute are not kept in the user's cache."""
    os.environ["BOOTDIFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def true_sync() -> Iterator[Callable[[Path], None]]:
    """Tests do not wait for the disk; it gives what it replaces, for the test that looks at it."""
    from bootdiff.storage import whole

    replaced = whole._sync_one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "_sync_one", lambda path: None)
        yield replaced


@pytest.fixture(autouse=True, scope="session")
def few_teacher_steps() -> Iterator[dict[str, object]]:
    """The pictures of a report take 150 calls of the teacher, and many tests write a report: here they take six.

    It gives what it replaces, for the test that counts the calls.
    """
    from bootdiff.samplers.rows import reference_path
    from bootdiff.sampling import gallery

    replaced = {"TEACHER_STEPS": gallery.TEACHER_STEPS, "reference_path": gallery.reference_path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "TEACHER_STEPS", 2)
        patch.setattr(gallery, "reference_path", lambda *ends: reference_path(*ends, steps=2))
        yield replaced


@pytest.fixture(autouse=True, scope="session")
def few_rows() -> Iterator[tuple[int, ...]]:
    """A table's DDIM rows are of 1 and 4 steps here, and not also of 10 and 50.

    It gives what it replaces, for the test of the paper's rows.
    """
    from bootdiff.evaluation import curve

    replaced = curve.PAPER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "PAPER", (1, 4))
        yield replaced


@pytest.fixture(autouse=True, scope="session")
def signals_are_heard() -> Iterator[None]:
    """Also where the tests were started under nohup or in the background, which makes processes deaf to some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
