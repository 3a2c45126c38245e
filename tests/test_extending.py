"""An adapter that lives outside the package teaches bootdiff a pipeline, with nothing else changed."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import bootdiff
from bootdiff.teachers.adapters import ADAPTERS
from tiny_unet import tiny_unet

ROOT = Path(__file__).parent.parent


def save_ldm(folder: Path) -> Path:
    from diffusers import DDIMScheduler, LDMPipeline, VQModel

    torch.manual_seed(0)
    coder = VQModel(block_out_channels=(8, 16), layers_per_block=1, latent_channels=3, num_vq_embeddings=64,
                    norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
                    up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, prediction_type="v_prediction")
    LDMPipeline(coder, tiny_unet(3), scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def register():
    """Imports the example; what it registers is forgotten after the test."""
    before = dict(ADAPTERS)

    def load() -> None:
        spec = importlib.util.spec_from_file_location("ldm_adapter", ROOT / "examples/ldm_adapter.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    yield load
    ADAPTERS.clear()
    ADAPTERS.update(before)


def test_an_adapter_from_outside_the_package_is_all_it_takes(register, cli, tmp_path):
    from diffusers import DiffusionPipeline

    folder = save_ldm(tmp_path / "ldm")
    run = tmp_path / "run"
    words = ["distill", folder, "--output", run, "--steps", 3, "--batch-size", 4]
    refused = cli(*words)
    assert refused.code == 2 and "a LDMPipeline with UNet2DModel, which is not supported" in refused.err
    register()
    done = cli(*words)
    assert done.code == 0, done.err
    assert cli("sample", run, "--num", 2, "--output", tmp_path / "a.png").code == 0
    student = bootdiff.load_student(run)
    eps = bootdiff.sample_noise(4, 0, 2, student.shape)
    ours = (student.decode(student.sample(eps)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    pipe = DiffusionPipeline.from_pretrained(run / "student")
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(4 + i) for i in range(2)]
    stock = pipe(batch_size=2, num_inference_steps=1, generator=generators, output_type="np").images
    torch.testing.assert_close(torch.from_numpy(stock), ours, rtol=0, atol=1e-5)
    with pytest.raises(ValueError):
        pipe(num_inference_steps=2)


def test_an_installed_package_brings_its_adapters(register, tmp_path, monkeypatch):
    from importlib import metadata

    entry = metadata.EntryPoint("ldm", "ldm_adapter:LatentUNet", "bootdiff.adapters")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "bootdiff.adapters" else [])
    monkeypatch.syspath_prepend(ROOT / "examples")
    teacher = bootdiff.load_teacher(str(save_ldm(tmp_path / "ldm")))
    assert teacher.shape == (3, 8, 8) and teacher.denoiser.adapter.latent
    broken = metadata.EntryPoint("x", "no_such_module:Adapter", "bootdiff.adapters")
    ADAPTERS.pop("LDMPipeline")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [broken])
    with pytest.raises(bootdiff.BootdiffError, match="no_such_module:Adapter cannot be imported"):
        bootdiff.load_teacher(str(tmp_path / "ldm"))


def test_the_guide_shows_the_example_as_it_is():
    guide = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.S)
    assert (ROOT / "examples/ldm_adapter.py").read_text(encoding="utf-8") in blocks
