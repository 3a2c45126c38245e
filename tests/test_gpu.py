"""On a GPU: the CPU's samples, finite training, the same bits after a stop, reproducible draws.

Each test is a function of the device. On the CPU it proves that its own lines work; with CUDA it is the test.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from bootdiff.core.errors import Interrupted
from bootdiff.core.randomness import Draw, sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import BootSettings
from bootdiff.students import Student
from bootdiff.students.files import load_student
from bootdiff.teachers import load_teacher
from bootdiff.training.loop import Loop
from toys import same

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
WEIGHTS = Path("student-path/unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])])
def device(request, monkeypatch):
    """The device that trainings and samples are on; on a GPU, float32 means float32 and sums have one order."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(request.param == "cpu").lower())
    AcceleratorState._reset_state(reset_partial_state=True)  # it remembers the device of the first run in a process
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    sdp = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    yield request.param
    torch.backends.cuda.enable_flash_sdp(sdp[0])
    torch.backends.cuda.enable_mem_efficient_sdp(sdp[1])
    AcceleratorState._reset_state(reset_partial_state=True)


def settings(**fields) -> BootSettings:
    usual = {"steps": 6, "batch_size": 16, "learning_rate": 1e-3, "checkpoint_every": 3, "ema_decay": 0.9}
    return BootSettings(**{**usual, "sample_every": 0, "log_every": 1, **fields})


def test_one_step_samples_are_those_of_the_cpu(device, tiny):
    noise = sample_noise(0, 0, 32, load_teacher(str(tiny)).shape)
    samples = {}
    for where in ("cpu", device):
        student = Student.from_teacher(load_teacher(str(tiny)).to(where)).to(where)
        made = student.sample(noise.to(where))
        assert made.device.type == where and made.dtype == torch.float32
        samples[where] = made.detach().cpu()
    apart = torch.linalg.vector_norm(samples[device] - samples["cpu"])
    assert apart < 1e-3 * torch.linalg.vector_norm(samples["cpu"])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_some_steps_of_training_are_finite_and_leave_a_student(device, precision, tiny, tmp_path, monkeypatch):
    devices, original = set(), Loop._report

    def noted(self, bar):
        devices.add(self.accelerator.device.type)
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", noted)
    distill(str(tiny), tmp_path / "run", settings(mixed_precision=precision))
    assert devices == {device}
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(logged) == 6 and all(torch.tensor(line["loss"]).isfinite() for line in logged)
    weights, before = load_file(tmp_path / "run" / WEIGHTS), load_file(tiny / "unet" / WEIGHTS.name)
    assert all(value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(weights[name].float(), before[name]) for name in before), "nothing was learned"
    student = load_student(tmp_path / "run").to(device)
    assert student.sample(sample_noise(0, 0, 4, student.shape).to(device)).isfinite().all()


def test_a_run_that_was_stopped_ends_with_the_same_bits(device, tiny, tmp_path, monkeypatch):
    distill(str(tiny), tmp_path / "whole", settings())
    original = Loop._report

    def stop(self, bar):
        self.stop_signal = 2 if self.step == 4 else None
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", stop)
    with pytest.raises(Interrupted, match="stopped at step 4 of 6"):
        distill(str(tiny), tmp_path / "stopped", settings())
    monkeypatch.setattr(Loop, "_report", original)
    distill(str(tiny), tmp_path / "stopped", settings())
    assert same(load_file(tmp_path / "stopped" / WEIGHTS), load_file(tmp_path / "whole" / WEIGHTS))


def test_draws_are_those_of_their_seed_however_they_are_split(device):
    whole, again, other = (Draw(seed, 3, "student", 0, 40, 40, device) for seed in (7, 7, 8))
    parts = [Draw(7, 3, "student", start, start + 20, 40, device) for start in (0, 20)]
    for draw in (lambda d: d.normal("noise", (2, 3)), lambda d: d.uniform("t"), lambda d: d.integers("class", 10)):
        first = draw(whole)
        assert first.device.type == device and torch.equal(first, draw(again))
        assert torch.equal(first, torch.cat([draw(part) for part in parts]))
        assert not torch.equal(first, draw(other))
