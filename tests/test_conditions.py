"""Conditions without images: classes, prompts, guidance weights, a base stage; and what is refused."""

from __future__ import annotations

import gc
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import tiny_pipelines as tiny
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import Draw, sample_noise
from bootdiff.data.conditions import Cascade, Classes, Prompts, Weighted
from bootdiff.data.prompt_cache import PromptCache, fits, row_bytes, write_cache
from bootdiff.distillation.conditioning import plan_conditions
from bootdiff.methods.boot import BootSettings
from bootdiff.teachers import load_teacher
from tiny_unet import save_teacher
from toys import command

SMALL = ["--steps", "4", "--batch-size", "4", "--set", "sample_every=0", "--set", "log_every=2"]
WORDS = ["a red cat", "the blue dog", "a photo of the cat", "red", "the dog"]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> Path:
    """A folder with one tiny pipeline of each kind; tests must not change it."""
    folder = tmp_path_factory.mktemp("families")
    tiny.save_class_unet(folder / "classes")
    tiny.save_dit(folder / "dit")
    tiny.save_sd(folder / "sd")
    tiny.save_sdxl(folder / "sdxl")
    tiny.save_if(folder / "if")
    tiny.save_if_sr(folder / "sr")
    tiny.save_sd3(folder / "sd3")
    tiny.save_flux(folder / "flux")
    tiny.save_lora(folder / "lora", folder / "sd")
    tiny.save_single_file(folder / "single.safetensors", folder / "sd")
    save_teacher(folder / "plain", channels=3)
    (folder / "words.txt").write_text("\n".join([*WORDS, ""]))
    return folder


def draw(start: int = 0, stop: int = 4, step: int = 0) -> Draw:
    return Draw(7, step, "student", start, stop, 4)


def test_classes_are_drawn_uniformly_and_by_slices():
    whole = Classes([0, 3, 7]).draw(Draw(1, 0, "student", 0, 3000, 3000))["classes"]
    shares = [float((whole == label).float().mean()) for label in (0, 3, 7)]
    assert sum(shares) == pytest.approx(1) and all(abs(share - 1 / 3) < 0.04 for share in shares)
    halves = [
        Classes([0, 3, 7]).draw(Draw(1, 0, "student", a, b, 3000))["classes"] for a, b in ((0, 1000), (1000, 3000))
    ]
    assert torch.equal(torch.cat(halves), whole)
    assert Classes([0, 3, 7]).listed(0, 2, 6)["classes"].tolist() == [7, 0, 3, 7]


def test_every_prompt_is_visited_once_an_epoch_in_an_order_of_seed_and_epoch():
    prompts = Prompts(6, lambda numbers: Condition({"number": torch.tensor(list(numbers))}))
    seen = [prompts.draw(draw(step=step))["number"].tolist() for step in range(6)]  # 24 visits: 4 epochs
    flat = [number for step in seen for number in step]
    epochs = [flat[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs) and epochs[0] != epochs[1]
    slices = [prompts.draw(Draw(7, 1, "student", a, a + 2, 4))["number"].tolist() for a in (0, 2)]
    assert [number for part in slices for number in part] == seen[1]


def test_a_cache_gives_back_what_was_written_in_any_precision(tmp_path):
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        rows = {"text": torch.randn(5, 3, 2).to(kind), "pooled": torch.randn(5, 4).to(kind)}
        batches = [Condition({k: v[a:b] for k, v in rows.items()}) for a, b in ((0, 2), (2, 5))]
        write_cache(tmp_path / str(kind), 5, batches, "digest")
        cache = PromptCache(tmp_path / str(kind))
        got = cache.rows([4, 0, 4])
        assert all(torch.equal(got[k], v[[4, 0, 4]]) for k, v in rows.items())
        assert row_bytes(batches[0]) == 10 * rows["text"].element_size() and cache.digest == "digest"
    assert fits(tmp_path, 10, 1e-7) and not fits(tmp_path, 1000, 1e-7)


def encoders_alive() -> int:
    gc.collect()
    return sum("TextModel" in type(o).__name__ or "T5Encoder" in type(o).__name__ for o in gc.get_objects())


def test_cached_prompts_equal_those_encoded_in_the_loop_and_their_encoder_leaves_memory(teachers, tmp_path):
    before = encoders_alive()
    made = {}
    for cache in (8.0, 0.0):
        settings = BootSettings(prompts=str(teachers / "words.txt"), prompt_cache_gib=cache, guidance_scale=3.0)
        teacher = load_teacher(str(teachers / "sd"))
        guided, conditions, *_ = plan_conditions(teacher, settings).make(tmp_path / str(cache), "cpu")
        made[cache] = conditions.draw(draw())["text"], guided.null_text
        if cache:
            assert encoders_alive() == before and not list(conditions.modules())
            assert (tmp_path / "8.0/prompts/text.npy").exists()
        else:
            assert encoders_alive() > before and list(conditions.modules())
            assert not (tmp_path / "0.0").exists()
    torch.testing.assert_close(made[8.0][0], made[0.0][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(made[8.0][1], made[0.0][1])


def test_a_prompt_that_is_too_long_is_counted_once(teachers, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("a cat\n" + "red " * 200 + "\n\n" + "blue " * 100 + "\n")
    settings = BootSettings(prompts=str(tmp_path / "long.txt"))
    plan_conditions(load_teacher(str(teachers / "sd")), settings).make(tmp_path / "run", "cpu")
    err = capsys.readouterr().err
    assert err.count("2 of 3 prompts are longer than the tokenizer's 77 tokens") == 1 and "left out: 1" in err


def test_guidance_weights_lie_in_their_range_and_are_shown_in_the_middle():
    weights = Weighted(Classes([0]), 1.0, 5.0, 3.0)
    drawn = weights.draw(Draw(1, 0, "student", 0, 2000, 2000))["guidance"]
    assert float(drawn.min()) >= 1 and float(drawn.max()) <= 5 and abs(float(drawn.mean()) - 3) < 0.1
    assert weights.listed(0, 0, 2)["guidance"].tolist() == [3.0, 3.0]


def test_a_cascade_asks_the_base_for_its_images_of_the_same_prompts(teachers):
    stage = load_teacher(str(teachers / "sr")).denoiser.adapter
    asked = []

    class Base(torch.nn.Module):
        def forward(self, eps, condition):
            asked.append((eps, condition["number"]))
            return torch.tanh(eps)

    prompts = Prompts(5, lambda numbers: Condition({"number": torch.tensor(list(numbers))}))
    base = Base()
    base.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    conditions = Cascade(prompts, base, prompts, (3, 8, 8), stage, 250)
    condition = conditions.draw(draw())
    assert torch.equal(condition["number"], asked[0][1]) and condition["noise_level"].tolist() == [250] * 4
    eps = draw().normal("base noise", (3, 8, 8))
    assert torch.equal(asked[0][0], eps)
    noise = draw().normal("augmentation", stage.shape)
    torch.testing.assert_close(condition["image"], stage.upscaled(torch.tanh(eps), noise, 250)["image"])
    assert float((condition["image"] - stage.upscaled(torch.tanh(eps), noise, 0)["image"]).std()) > 0.1, "no noise"


# --- the command line ------------------------------------------------------------------------------------------------

RUNS = {
    "classes": ["classes", "--null-class", "3", "--guidance-range", "1", "4"],
    "dit": ["dit", "--classes", "0,3", "--guidance-scale", "2"],
    "sd": ["sd", "--prompts", "WORDS", "--guidance-range", "1", "5"],
    "sdxl": ["sdxl", "--prompts", "WORDS", "--guidance-scale", "5", "--negative-prompt", "a dog"],
    "sd3": ["sd3", "--prompts", "WORDS", "--guidance-scale", "4"],
    "flux": ["flux", "--prompts", "WORDS", "--size", "16"],
    "lora": ["sd", "--prompts", "WORDS", "--lora", "LORA", "--lora-scale", "0.5"],
    "single file": ["single.safetensors", "--prompts", "WORDS", "--pipeline-config", "SD"],
}


def words_of(teachers: Path, words: list[str]) -> list[str]:
    names = {"WORDS": teachers / "words.txt", "LORA": teachers / "lora/pytorch_lora_weights.safetensors"}
    names["SD"] = teachers / "sd"
    return [str(teachers / words[0]), *(str(names.get(word, word)) for word in words[1:])]


#: other ways into Stable Diffusion, which is run in any case
SLOW_RUNS = ("lora", "single file")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW_RUNS else n for n in RUNS])
def test_one_command_distils_and_one_samples(cli, teachers, tmp_path, name):
    run = tmp_path / "run"
    words = words_of(teachers, RUNS[name])
    done = cli("distill", *words, "--output", run, *SMALL)
    assert done.code == 0, done.err
    assert cli("distill", *words, "--output", run, *SMALL).out.startswith("done")
    assert not list((run / "student").glob("*.py")) and (run / "report.html").exists()
    prompt = ["--prompt", "a red cat"] if "--prompts" in words else []
    for student in (run, run / "student"):
        picture = tmp_path / f"{student.name}.png"
        sampled = cli("sample", student, "--num", 3, *prompt, "--output", picture)
        assert sampled.code == 0 and picture.exists(), sampled.err
    pixels = [
        torch.tensor(list(Image.open(tmp_path / f"{n}.png").convert("RGB").getdata())) for n in ("run", "student")
    ]
    assert int((pixels[0] - pixels[1]).abs().max()) <= 1, "the run's student and its export differ"
    measured = cli("evaluate", run, "--num", 4, "--no-heun", "--output", tmp_path / "e.json")
    assert measured.code == 0, measured.err


def test_a_cascade_is_distilled_stage_by_stage_and_sampled_in_two_calls(cli, teachers, tmp_path):
    base, upscaled = tmp_path / "base", tmp_path / "large"
    words = ["--prompts", teachers / "words.txt", *SMALL]
    assert cli("distill", teachers / "if", "--output", base, "--guidance-scale", 7, *words).code == 0
    done = cli("distill", teachers / "sr", "--base", base, "--output", upscaled, "--guidance-scale", 4, *words)
    assert done.code == 0, done.err
    facts = json.loads((upscaled / "student/bootdiff.json").read_text())
    assert facts["conditions"]["noise_level"] == 250
    pictures = []
    for number, pair in enumerate([(base, upscaled), (base / "student", upscaled / "student")]):
        picture = tmp_path / f"{number}.png"
        sampled = cli("sample", *pair, "--num", 2, "--prompt", "a red cat", "--output", picture)
        assert sampled.code == 0, sampled.err
        pictures.append(picture)
    first, second = (torch.tensor(list(Image.open(p).convert("RGB").getdata())).float() for p in pictures)
    assert float((first - second).abs().max()) <= 1, "the runs' students and their exports differ"


def test_a_cascade_is_what_two_stock_pipelines_in_a_row_make(cli, teachers, tmp_path):
    from diffusers import DiffusionPipeline

    from bootdiff.samplers.choice import Choice, conditions_for
    from bootdiff.samplers.students import open_student
    from bootdiff.sampling.cascade import cascade

    words = ["--prompts", teachers / "words.txt", *SMALL, "--set", "t_max=0.9"]
    base, upscaled = tmp_path / "base", tmp_path / "large"
    assert cli("distill", teachers / "if", "--output", base, *words).code == 0
    assert cli("distill", teachers / "sr", "--base", base, "--output", upscaled, *words).code == 0
    sampler, facts = open_student(str(upscaled))
    own = conditions_for(sampler, facts, Choice(prompts=WORDS[:2]))
    conditions = cascade(str(base), sampler, facts, own, WORDS[:2])
    ours = sampler(sample_noise(3, 0, 2, sampler.shape), conditions.listed(3, 0, 2))
    image = None
    for folder in (base, upscaled):
        pipe = DiffusionPipeline.from_pretrained(folder / "student")
        generators = [torch.Generator("cpu").manual_seed(3 + i) for i in range(2)]
        given = {} if image is None else {"image": image, "noise_level": 250}
        image = pipe(
            WORDS[:2], num_inference_steps=1, guidance_scale=1.0, generator=generators, output_type="pt", **given
        ).images
    torch.testing.assert_close(image, ours, rtol=0, atol=1e-4)


def test_an_interrupted_run_with_prompts_ends_with_the_same_bits(cli, teachers, tmp_path):
    words = [teachers / "sd", "--prompts", teachers / "words.txt", "--guidance-scale", 3, "--batch-size", 4]
    options = ["--set", "checkpoint_every=2", "--set", "sample_every=0", "--steps", 4]
    assert cli("distill", *words, "--output", tmp_path / "whole", *options).code == 0
    assert cli("distill", *words, "--output", tmp_path / "cut", *options).code == 0
    import shutil

    for name in ("student", "student-path", "done.json", "checkpoints/step-00000004", "prompts"):
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "resuming student from step 2" in cli("distill", *words, "--output", tmp_path / "cut", *options).err
    files = [tmp_path / name / "student-path/unet/diffusion_pytorch_model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ctrl_c_while_prompts_are_encoded_leaves_nothing(cli, teachers, tmp_path, monkeypatch):
    from bootdiff.teachers.encoding import PromptEncoder

    encode, calls = PromptEncoder.__call__, []

    def interrupted(self, prompts):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return encode(self, prompts)

    words = ["distill", teachers / "sd", "--prompts", teachers / "words.txt", "--output", tmp_path / "run", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(PromptEncoder, "__call__", interrupted)
        stopped = cli(*words)
    assert stopped.code == 130 and "run the same command" in stopped.err and list(tmp_path.iterdir()) == []
    assert cli(*words).code == 0


def test_a_run_with_changed_prompts_is_another_run(cli, teachers, tmp_path):
    words = [teachers / "sd", "--prompts", tmp_path / "p.txt", "--output", tmp_path / "run", *SMALL]
    (tmp_path / "p.txt").write_text("a cat\n")
    assert cli("distill", *words).code == 0
    (tmp_path / "p.txt").write_text("a dog\n")
    again = cli("distill", *words)
    assert again.code == 2 and "another run (what it read has changed since: prompts)" in again.err


def test_the_export_folds_the_weight_that_is_asked_for_and_says_so(cli, teachers, tmp_path):
    run = tmp_path / "run"
    words = [teachers / "classes", "--null-class", 3, "--guidance-range", 1, 4, "--set", "learning_rate=0.01"]
    assert cli("distill", *words, "--output", run, *SMALL).code == 0
    assert json.loads((run / "student/bootdiff.json").read_text())["folded_weight"] == 2.5
    assert "2.5 is folded in" in (run / "student/README.md").read_text()
    assert cli("export", run, "--output", tmp_path / "w4", "--guidance-scale", 4).code == 0
    for folder, weight, code in (("w4", 4, 0), ("run", 4, 0), ("run", 2, 0), ("w4", 2, 2), ("run", 5, 2)):
        out = tmp_path / f"{folder}-{weight}"
        assert cli("sample", tmp_path / folder, "--num", 2, "--guidance-scale", weight, "--output", out).code == code
    same, other = ((tmp_path / name / "00000.png").read_bytes() for name in ("run-4", "run-2"))
    assert (tmp_path / "w4-4/00000.png").read_bytes() == same != other


def test_a_lora_changes_the_teacher_and_its_student_as_it_does_the_stock_pipeline(teachers, tmp_path):
    from diffusers import DiffusionPipeline

    lora = str(teachers / "lora/pytorch_lora_weights.safetensors")
    plain, with_lora = load_teacher(str(teachers / "sd")), load_teacher(str(teachers / "sd"), lora=lora)
    pipe = DiffusionPipeline.from_pretrained(teachers / "sd")
    pipe.load_lora_weights(lora)
    x, t = sample_noise(0, 0, 2, plain.shape), torch.full((2,), 500.0)
    text = torch.randn(2, 77, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = pipe.unet(x, t, encoder_hidden_states=text).sample
        made, before = (
            teacher.adapter.call(teacher.network, x, t, Condition({"text": text}))
            for teacher in (with_lora.denoiser, plain.denoiser)
        )
    torch.testing.assert_close(made, stock, rtol=0, atol=1e-5)
    assert float((made - before).abs().max()) > 1e-2


def test_a_single_file_and_a_pipeline_in_memory_are_the_folder(teachers):
    from diffusers import DiffusionPipeline

    folder = load_teacher(str(teachers / "sd"))
    single = load_teacher(str(teachers / "single.safetensors"), pipeline_config=str(teachers / "sd"))
    memory = load_teacher(DiffusionPipeline.from_pretrained(teachers / "sd"))
    for other in (single, memory):
        states = folder.denoiser.network.state_dict(), other.denoiser.network.state_dict()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert other.shape == folder.shape and other.t_range == folder.t_range


#: fields of components' configs that cannot be read: teacher and component, and what is written there
SPOILED = {
    "sd sample_size": (("sd", "unet"), {"sample_size": "x"}),
    "sd channels": (("sd", "unet"), {"in_channels": "4"}),
    "dit classes": (("dit", "transformer"), {"num_embeds_ada_norm": "a"}),
    "sd vae": (("sd", "vae"), {"scaling_factor": 0}),
    "sd vae blocks": (("sd", "vae"), {"block_out_channels": 5}),
    "sd vae scale null": (("sd", "vae"), {"scaling_factor": None}),
    "sd vae blocks null": (("sd", "vae"), {"block_out_channels": None}),
    "sd vae latents listed": (("sd", "vae"), {"latent_channels": [4]}),
    "text encoder of an odd width": (("sd", "text_encoder"), {"hidden_size": "wide"}),
    "sd blocks of a kind that is none": (("sd", "unet"), {"down_block_types": ["NoBlock2D", "DownBlock2D"]}),
    "sd3 patch": (("sd3", "transformer"), {"patch_size": 0}),
    "flux guidance": (("flux", "transformer"), {"guidance_embeds": "yes"}),
    "flux shift": (("flux", "scheduler"), {"max_image_seq_len": 256}),
    "sd3 shift": (("sd3", "scheduler"), {"shift": -1}),
}


def spoil(teachers: Path, part: tuple[str, str], config: dict) -> None:
    """A copy of a teacher with these fields in one component's config."""
    import shutil

    folder = teachers / f"{part[0]} with {next(iter(config))} {next(iter(config.values()))}"
    shutil.copytree(teachers / part[0], folder)
    path = next((folder / part[1]).glob("*config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


BAD = {
    **{
        name: (
            [
                f"{part[0]} with {next(iter(config))} {next(iter(config.values()))}",
                *(["--prompts", "WORDS"] if part[0] != "dit" else []),
            ],
            "config.json" if part[1] == "text_encoder" or "Block2D" in str(config) else f"{next(iter(config))}",
        )
        for name, (part, config) in SPOILED.items()
    },
    "vae without weights": (["empty vae", "--prompts", "WORDS"], "has no weights"),
    "tokenizer without files": (["empty tokenizer", "--prompts", "WORDS"], "no vocabulary"),
    "tokenizer without words": (["wordless", "--prompts", "WORDS"], "no vocabulary"),
    "vae damaged": (["damaged vae", "--prompts", "WORDS"], "is damaged"),
    "text encoder damaged": (["damaged text_encoder", "--prompts", "WORDS"], "is damaged"),
    "a component of a foreign library": (["foreign", "--prompts", "WORDS"], "foreign code"),
    "noise level that is none": (
        ["sr", "--prompts", "WORDS", "--base", "BASE", "--set", "noise_level=1000"],
        "0 to 999",
    ),
    "export_guidance where the pipeline serves all": (
        ["sd", "--prompts", "WORDS", "--guidance-range", "1", "5", "--set", "export_guidance=2"],
        "export_guidance",
    ),
    "the null class of a DiT as a class": (["dit", "--null-class", "2", "--classes", "0,5"], "0 to 4"),
    "no prompts": (["sd"], "--prompts FILE"),
    "prompts missing": (["sd", "--prompts", "none.txt"], "none.txt"),
    "prompts empty": (["sd", "--prompts", "EMPTY"], "no prompt"),
    "prompts not utf-8": (["sd", "--prompts", "LATIN"], "UTF-8"),
    "prompts without the column": (["sd", "--prompts", "TABLE", "--prompt-column", "captoin"], "caption"),
    "prompts for a class teacher": (["classes", "--prompts", "WORDS"], "conditioned on classes"),
    "prompts for an unconditional one": (["plain", "--prompts", "WORDS"], "conditioned on nothing"),
    "negative prompt for a class teacher": (["classes", "--negative-prompt", "x", "--guidance-scale", "2"], "classes"),
    "negative prompt without guidance": (["sd", "--prompts", "WORDS", "--negative-prompt", "x"], "--guidance-scale"),
    "guidance for an unconditional teacher": (["plain", "--guidance-scale", "2"], "conditioned on nothing"),
    "guidance without a null class": (["classes", "--guidance-scale", "2"], "--null-class"),
    "class out of range": (["classes", "--classes", "0,9"], "0 to 3"),
    "null class out of range": (["classes", "--null-class", "9"], "0 to 3"),
    "null class among classes": (["classes", "--null-class", "1", "--classes", "0,1"], "stands for no class"),
    "classes no numbers": (["classes", "--classes", "a,b"], "--classes expects"),
    "classes for a text teacher": (["sd", "--prompts", "WORDS", "--classes", "1"], "conditioned on prompts"),
    "both guidances": (
        ["classes", "--null-class", "1", "--guidance-scale", "2", "--guidance-range", "1", "2"],
        "exclude each other",
    ),
    "range upside down": (["classes", "--null-class", "1", "--guidance-range", "4", "1"], "below"),
    "negative prompt for an embedded weight": (
        ["flux", "--prompts", "WORDS", "--size", "16", "--guidance-scale", "2", "--negative-prompt", "x"],
        "no second pass",
    ),
    "stage 2 without a base": (["sr", "--prompts", "WORDS"], "--base RUN"),
    "stage 2 with no such base": (["sr", "--prompts", "WORDS", "--base", "nowhere"], "nowhere"),
    "stage 2 with a base of its own size": (["sr", "--prompts", "WORDS", "--base", "LARGE"], "cannot enlarge"),
    "stage 2 with an unconditional base": (["sr", "--prompts", "WORDS", "--base", "PLAINRUN"], "takes no prompts"),
    "a base for a base": (["if", "--prompts", "WORDS", "--base", "LARGE"], "super-resolution"),
    "text encoder missing": (["no text_encoder", "--prompts", "WORDS"], "text_encoder"),
    "tokenizer missing": (["no tokenizer", "--prompts", "WORDS"], "tokenizer"),
    "vae missing": (["no vae", "--prompts", "WORDS"], "vae"),
    "lora of another architecture": (["sd", "--prompts", "WORDS", "--lora", "OTHERLORA"], "does not fit"),
    "lora of another network": (["sd", "--prompts", "WORDS", "--lora", "FOREIGN"], "changes nothing"),
    "a component that is no pair": (["unpaired", "--prompts", "WORDS"], "unet should be [library, class]"),
    "a text encoder without config": (["configless", "--prompts", "WORDS"], "text_encoder"),
    "lora folder missing": (["sd", "--prompts", "WORDS", "--lora", "./none/lora"], "no LoRA at ./none/lora"),
    "lora missing": (["sd", "--prompts", "WORDS", "--lora", "none.safetensors"], "none.safetensors"),
    "lora for a class teacher": (["classes", "--lora", "LORA"], "takes no LoRA"),
    "lora damaged": (["sd", "--prompts", "WORDS", "--lora", "DAMAGED"], "does not fit"),
    "single file missing": (["nothing.safetensors", "--prompts", "WORDS"], "nothing.safetensors"),
    "single file damaged": (["damaged.safetensors", "--prompts", "WORDS"], "safetensors"),
    "single file that runs code": (["model.ckpt", "--prompts", "WORDS"], "can run code"),
    "size for pixels": (["classes", "--size", "16"], "one size only"),
    "size not divisible": (["sd", "--prompts", "WORDS", "--size", "17"], "multiple of 4"),
    "noise level below 0": (["sd", "--prompts", "WORDS", "--set", "noise_level=-1"], "noise_level"),
}


@pytest.fixture(scope="module")
def spoiled(teachers, tmp_path_factory) -> Path:
    """The teachers, and copies of them with something missing."""
    import shutil

    from bootdiff.students import Student
    from bootdiff.students.files import save_student

    folder = tmp_path_factory.mktemp("spoiled")
    for name in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(teachers / "sd", teachers / f"no {name}")
        shutil.rmtree(teachers / f"no {name}" / name)
    for name in ("vae", "tokenizer"):
        shutil.copytree(teachers / "sd", teachers / f"empty {name}")
        for path in (teachers / f"empty {name}" / name).iterdir():
            if path.name != "config.json":
                path.unlink()
    (folder / "EMPTY").write_text("\n\n")
    (folder / "LATIN").write_bytes("ein schöner Tag\n".encode("latin-1"))
    (folder / "TABLE").write_text("caption,author\na cat,me\n")
    (folder / "TABLE").rename(folder / "TABLE.csv")
    (folder / "DAMAGED.safetensors").write_bytes(b"12345678nonsense")
    (teachers / "damaged.safetensors").write_bytes(b"12345678nonsense")
    (teachers / "model.ckpt").write_bytes(b"")
    from safetensors.torch import save_file

    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora"
    large = {f"{layer}_A.weight": torch.ones(2, 640), f"{layer}_B.weight": torch.ones(640, 2)}
    save_file(large, folder / "OTHER.safetensors")
    foreign = {f"transformer.blocks.0.to_q.lora_{side}.weight": torch.ones(*size) for side, size in
               (("A", (2, 8)), ("B", (8, 2)))}  # fmt: skip
    save_file(foreign, folder / "FOREIGN.safetensors")
    (shutil.copytree(teachers / "sd", teachers / "wordless") / "tokenizer/tokenizer.json").unlink()
    for name in ("vae", "text_encoder"):
        place = shutil.copytree(teachers / "sd", teachers / f"damaged {name}") / name
        next(place.glob("*.safetensors")).write_bytes(b"12345678nonsense")
    index = json.loads((shutil.copytree(teachers / "sd", teachers / "foreign") / "model_index.json").read_text())
    (teachers / "foreign/model_index.json").write_text(json.dumps({**index, "text_encoder": ["evil", "Encoder"]}))
    shutil.copytree(teachers / "sd", teachers / "unpaired")
    (teachers / "unpaired/model_index.json").write_text(json.dumps({**index, "unet": "UNet2DConditionModel"}))
    (shutil.copytree(teachers / "sd", teachers / "configless") / "text_encoder/config.json").unlink()
    for part, config in SPOILED.values():
        spoil(teachers, part, config)
    for name, source in (("LARGE", "sr"), ("PLAINRUN", "plain"), ("BASE", "if")):
        save_student(Student.from_teacher(load_teacher(str(teachers / source))), folder / name / "student-path")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(cli, teachers, spoiled, tmp_path, monkeypatch, name):
    words, fragment = BAD[name]
    monkeypatch.chdir(tmp_path)
    names = {"TABLE": "TABLE.csv", "DAMAGED": "DAMAGED.safetensors", "OTHERLORA": "OTHER.safetensors",
             "FOREIGN": "FOREIGN.safetensors"}  # fmt: skip
    given = [str(spoiled / names.get(w, w)) if (spoiled / names.get(w, w)).exists() else w for w in words[1:]]
    asked = words_of(teachers, [words[0], *given])
    for extra in ([], ["--dry-run"]):
        result = cli("distill", *asked, "--output", "run", *SMALL, *extra)
        assert result.code == 2 and result.err.count("\n") == 1 and result.out == "", result.err
        assert any(part in result.err for part in fragment.split("|")), result.err
        assert list(tmp_path.iterdir()) == []


BAD_SAMPLES = {
    "a text student without a prompt": (["TEXT/student"], "--prompt"),
    "classes for a text student": (["TEXT", "--prompt", "x", "--classes", "1"], "not on classes"),
    "a prompt for a class student": (["CLASS", "--prompt", "x"], "not on prompts"),
    "a class that it did not learn": (["CLASS", "--classes", "3"], "learned: 0, 1, 2"),
    "a weight that it did not learn": (["CLASS", "--guidance-scale", "9"], "cannot serve"),
    "two students that are no cascade": (["TEXT", "CLASS", "--prompt", "x"], "no super-resolution stage"),
    "three students": (["TEXT", "TEXT", "TEXT", "--prompt", "x"], "got 3"),
    "prompt and prompts": (["TEXT", "--prompt", "x", "--prompts", "WORDS"], "exclude"),
}


@pytest.fixture(scope="module")
def students(teachers, tmp_path_factory) -> Path:
    from bootdiff import distill

    folder = tmp_path_factory.mktemp("students")
    common = {"steps": 1, "batch_size": 2, "sample_every": 0}
    distill(str(teachers / "sd"), folder / "TEXT", BootSettings(prompts=str(teachers / "words.txt"), **common))
    distill(str(teachers / "classes"), folder / "CLASS", BootSettings(null_class=3, guidance_scale=2.0, **common))
    return folder


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_one_line(cli, teachers, students, tmp_path, name):
    words, fragment = BAD_SAMPLES[name]
    asked = [students / w if (students / w).exists() else teachers / "words.txt" if w == "WORDS" else w for w in words]
    result = cli("sample", *asked, "--num", 2, "--output", tmp_path / "a.png")
    assert result.code == 2 and result.err.count("\n") == 1 and fragment in result.err, result.err
    assert not (tmp_path / "a.png").exists()


def run_card(folder: Path) -> None:
    """Run the model card's own lines."""
    import re

    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S).group(1)
    exec(lines.replace("this-folder", str(folder)), {})


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sd", "sdxl", "if", "sd3", "flux", "dit"])
def test_a_half_precision_teachers_student_is_exported_whole_and_runs_as_its_card_says(teachers, tmp_path, name, kind):
    from bootdiff.export.diffusers import export_student
    from bootdiff.samplers.students import open_student
    from bootdiff.students import Student

    size = 16 if name == "flux" else None
    teacher = load_teacher(str(teachers / name), dtype=kind, size=size)
    student = Student.from_teacher(teacher, t_max=teacher.nearest_start(0.7))
    export_student(student, tmp_path / "student", {})
    run_card(tmp_path / "student")
    eps, blank = sample_noise(0, 0, 2, student.shape), student.adapter.blank(2)
    blank = blank.add(guidance=torch.full((2,), 3.5)) if student.adapter.guidance == "embedded" else blank
    ours, stock = student.sample(eps, blank), open_student(str(tmp_path / "student"))[0](eps, blank)
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5 * max(1.0, float(ours.abs().max())))
    assert str(teachers) not in (tmp_path / "student/model_index.json").read_text()


def test_a_pipeline_in_memory_stays_as_it_is(teachers, tmp_path):
    from diffusers import DiffusionPipeline

    from bootdiff import distill

    pipe = DiffusionPipeline.from_pretrained(teachers / "sd", torch_dtype=torch.bfloat16)
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    settings = BootSettings(prompts=str(teachers / "words.txt"), steps=2, batch_size=2, sample_every=1)
    student = distill(pipe, tmp_path / "run", settings)
    assert {p.dtype for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad for p in pipe.unet.parameters())
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    run_card(tmp_path / "run/student")


def test_conditions_given_from_python_are_part_of_the_run(teachers, tmp_path):
    from bootdiff import distill

    settings = BootSettings(steps=1, batch_size=2, sample_every=0)
    teacher, run = load_teacher(str(teachers / "classes")), tmp_path / "run"
    distill(teacher, run, settings, conditions=Classes([2, 0, 2]))
    assert json.loads((run / "student-path/bootdiff.json").read_text())["conditions"]["labels"] == [0, 2]
    assert distill(teacher, run, settings, conditions=Classes([2, 0, 2])).conditions["labels"] == [0, 2]
    with pytest.raises(BootdiffError, match="changed since: conditions"):
        distill(teacher, run, settings, conditions=Classes([1]))
    refused = {
        "exclude each other": (Classes([0]), {"classes": [1]}),
        "such as bootdiff.Classes": (["a cat"], {}),
        "classes is missing": (Prompts(1, lambda n: Condition({"text": torch.zeros(len(n), 2)})), {}),
        "out of range": (Classes([4]), {}),
        "with no weight": (Classes([0]), {"guidance_range": [1, 2]}),
    }
    for words, (conditions, more) in refused.items():
        other = BootSettings(**{**settings.model_dump(exclude_none=True), **more})
        with pytest.raises(BootdiffError, match=words):
            distill(teacher, tmp_path / "new", other, conditions=conditions)
    assert not (tmp_path / "new").exists()


def test_guidance_given_from_python_is_part_of_the_run(teachers, tmp_path):
    from bootdiff import Guided, distill

    plain, null = load_teacher(str(teachers / "classes")), Classes([3]).listed(0, 0, 1)
    settings = BootSettings(steps=1, batch_size=2, sample_every=0)
    distill(Guided(plain, null, 2.0), tmp_path / "run", settings, conditions=Classes([0, 1]))
    facts = json.loads((tmp_path / "run/student-path/bootdiff.json").read_text())
    assert facts["guidance"] == 2.0 and facts["conditions"] == {"labels": [0, 1], "null_class": 3}
    for other in (Guided(plain, null, 5.0), Guided(plain, Classes([2]).listed(0, 0, 1), 2.0), plain):
        with pytest.raises(BootdiffError, match="guidance"):
            distill(other, tmp_path / "run", settings, conditions=Classes([0, 1]))
    ranged = settings.model_copy(update={"guidance_range": [1.0, 3.0]})
    weighted = Weighted(Classes([0, 1]), 1.0, 3.0, 2.0)
    student = distill(Guided(plain, null), tmp_path / "range", ranged, conditions=weighted)
    assert student.guidance == (1.0, 3.0)


def test_another_encoder_or_vae_in_memory_is_another_run(teachers, tmp_path):
    from diffusers import DiffusionPipeline

    from bootdiff import distill

    settings = BootSettings(prompts=str(teachers / "words.txt"), steps=1, batch_size=2, sample_every=0)
    pipe = DiffusionPipeline.from_pretrained(teachers / "sd")
    distill(pipe, tmp_path / "run", settings)
    distill(DiffusionPipeline.from_pretrained(teachers / "sd"), tmp_path / "run", settings)
    for part in ("vae", "text_encoder"):
        other = DiffusionPipeline.from_pretrained(teachers / "sd")
        with torch.no_grad():
            next(getattr(other, part).parameters()).add_(1.0)
        with pytest.raises(BootdiffError, match="changed since: teacher"):
            distill(other, tmp_path / "run", settings)


@pytest.mark.slow
def test_a_run_works_from_elsewhere_and_without_its_prompts_file(cli, teachers, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(teachers / "sd", tmp_path / "work/sd")
    (tmp_path / "work/words.txt").write_text("a red cat\nthe blue dog\n")
    monkeypatch.chdir(tmp_path / "work")
    assert cli("distill", "sd", "--prompts", "words.txt", "--output", "run", *SMALL).code == 0
    (tmp_path / "work/words.txt").unlink()
    again = cli("distill", "sd", "--prompts", "words.txt", "--output", "run", *SMALL)
    assert again.code == 0 and again.out.startswith("done"), again.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tmp_path / "work/run"
    sampled = cli("sample", run, "--num", 2, "--output", "two.png")
    assert sampled.code == 0, sampled.err
    assert cli("report", run).code == 0
    shutil.move(tmp_path / "work/sd", tmp_path / "moved")
    gone = cli("report", run)
    assert gone.code == 2 and gone.err.count("\n") == 1
    assert cli("report", run, "--teacher", tmp_path / "moved").code == 0
    page = (run / "report.html").read_text()
    assert "a red cat" in page
    exported = cli("sample", run / "student", "--times", "0.5,0.1", "--prompt", "x", "--output", "x.png")
    assert exported.code == 2 and "name its run" in exported.err
    assert "name the teacher itself" in cli("distill", run, "--output", "new").err


def test_a_card_names_a_class_that_was_learned_and_what_the_teacher_was_loaded_with(cli, teachers, tmp_path):
    words = ["--null-class", 3, "--classes", "2,2,1", "--guidance-scale", 2]
    assert cli("distill", teachers / "classes", "--output", tmp_path / "run", *words, *SMALL).code == 0
    card = (tmp_path / "run/student/README.md").read_text()
    assert "class_labels=2" in card and str(teachers) not in card
    assert cli("distill", teachers / "sd", "--prompts", teachers / "words.txt", "--lora", teachers / "lora",
               "--lora-scale", 0.5, "--output", tmp_path / "lora", *SMALL).code == 0  # fmt: skip
    card = (tmp_path / "lora/student/README.md").read_text()
    assert "| lora | lora |" in card and "| lora_scale | 0.5 |" in card


def test_students_say_what_is_missing_from_python(teachers, students):
    from bootdiff import Guided, load_student

    student, teacher = load_student(students / "CLASS"), load_teacher(str(teachers / "classes"))
    with pytest.raises(BootdiffError, match="classes is missing"):
        student.sample(sample_noise(0, 0, 1, student.shape))
    with pytest.raises(BootdiffError, match="null should be a condition"):
        Guided(teacher, 3, 2.0)


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_and_four_parts_learn_from_prompts_what_one_does(cli, teachers, tmp_path):
    words = [str(teachers / "sd"), "--prompts", str(teachers / "words.txt"), "--guidance-range", "1", "4", *SMALL]
    words += ["--set", "learning_rate=0.001"]
    assert cli("distill", *words, "--output", tmp_path / "one").code == 0
    assert cli("distill", *words, "--output", tmp_path / "parts", "--set", "gradient_accumulation=4").code == 0
    two = command("distill", *words, "--output", tmp_path / "two", processes=2)
    done = subprocess.run(two, env={**os.environ, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = {name: (tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two", "parts")}
    losses = {name: json.loads(lines[-1])["loss"] for name, lines in logs.items()}
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-3)
    assert losses["parts"] == pytest.approx(losses["one"], rel=1e-3)


def test_offloaded_encoders_and_accumulation_change_nothing(teachers, tmp_path):
    from bootdiff.distillation.conditioning import plan_conditions as plan

    made = []
    for offload in (False, True):
        settings = BootSettings(prompts=str(teachers / "words.txt"), offload_encoders=offload, prompt_cache_gib=0)
        conditions = plan(load_teacher(str(teachers / "sd3")), settings).make(tmp_path, "cpu")[1]
        assert bool(list(conditions.modules())) is not offload
        made.append(conditions.draw(draw())["text"])
    torch.testing.assert_close(*made)


def test_what_is_fetched_from_the_hub_is_one_kind_of_weights_a_component():
    from bootdiff.teachers.loading.hub import files_to_fetch

    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"], "vae": ["diffusers", "A"],
             "text_encoder": ["transformers", "C"], "tokenizer": ["transformers", "T"],
             "safety_checker": [None, None]}  # fmt: skip
    weights = "diffusion_pytorch_model"
    files = ["model_index.json", "README.md", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "unet/config.json",
             f"unet/{weights}.bin", f"unet/{weights}.safetensors", f"unet/{weights}.fp16.safetensors",
             f"unet/{weights}.non_ema.safetensors", "vae/config.json", f"vae/{weights}.safetensors",
             "text_encoder/config.json", "text_encoder/pytorch_model.bin", "tokenizer/vocab.json",
             "tokenizer/merges.txt", "safety_checker/model.safetensors"]  # fmt: skip
    plain, half = (set(files_to_fetch(files, index, variant)) for variant in (None, "fp16"))
    common = {"model_index.json", "unet/config.json", "vae/config.json", f"vae/{weights}.safetensors",
              "text_encoder/config.json", "text_encoder/pytorch_model.bin", "tokenizer/vocab.json",
              "tokenizer/merges.txt"}  # fmt: skip
    assert plain == common | {f"unet/{weights}.safetensors"}
    assert half == common | {f"unet/{weights}.fp16.safetensors"}
    old = ["model_index.json", "config.json", "scheduler_config.json", f"{weights}.bin", f"{weights}.safetensors"]
    pixels = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "U"], "scheduler": ["diffusers", "S"]}
    assert set(files_to_fetch(old, pixels, None)) == set(old) - {f"{weights}.bin"}


# --- the paper's settings --------------------------------------------------------------------------------------------

TABLE_2 = {
    "ffhq64": ("plain", 0.04, 1e-4, 128, 500_000, "uniform"),
    "lsun256": ("plain", 0.04, 1e-4, 128, 500_000, "uniform"),
    "imagenet64": ("classes", 0.04, 3e-4, 1024, 300_000, "uniform"),
    "sd21-base": ("sd", 0.01, 2e-5, 64, 500_000, "signal"),
    "if-i-l": ("if", 0.04, 2e-5, 64, 500_000, "signal"),
    "if-ii-m": ("sr", 0.04, 2e-5, 32, 100_000, "signal"),
}
PAPER = Path(__file__).parent.parent / "configs/paper"


@pytest.mark.parametrize("name", TABLE_2)
def test_the_papers_settings_plan_a_run_and_say_what_it_needs(cli, teachers, spoiled, tmp_path, name):
    teacher, *figures = TABLE_2[name]
    extra = {"classes": ["--null-class", 3], "sd": ["--prompts", teachers / "words.txt"]}
    extra["if"] = extra["sd"]
    if name == "if-ii-m":
        base = tmp_path / "base"
        assert cli("distill", teachers / "if", "--output", base, "--prompts", teachers / "words.txt", *SMALL).code == 0
        extra["sr"] = [*extra["sd"], "--base", base]
    words = [teachers / teacher, "--output", tmp_path / "run", "--config", PAPER / f"{name}.yaml", "--dry-run"]
    planned = cli("distill", *words, *extra.get(teacher, []))
    assert planned.code == 0, planned.err
    shown = {k: yaml.safe_load(v) for k, _, v in (line.strip().partition(": ") for line in planned.out.splitlines())}
    keys = ("delta", "learning_rate", "batch_size", "steps", "loss_weight")
    assert [shown[key] if key != "learning_rate" else float(shown[key]) for key in keys] == figures
    assert (shown["ema_decay"], shown["lr_schedule"], shown["warmup_steps"], shown["weight_decay"]) == (
        0.9999, "constant", 0, 0.0,
    )  # fmt: skip
    assert all(f"{card} GB card: " in planned.out for card in (24, 40, 80)) and not (tmp_path / "run").exists()
    if name == "imagenet64":
        assert shown["guidance_range"] == [1.0, 5.0]
    if name == "if-ii-m":
        assert shown["noise_level"] == 250


@pytest.mark.parametrize("name, levels", [("ffhq64", [1, 2, 3, 4]), ("lsun256", [1, 1, 2, 2, 4, 4])])
def test_the_papers_teachers_are_their_table(name, levels):
    from bootdiff.config.settings import make_settings
    from bootdiff.storage.reading import read_config
    from bootdiff.teaching.settings import TeacherSettings

    settings = make_settings(TeacherSettings, read_config(PAPER / f"{name}-teacher.yaml"))
    assert settings.channels == [128 * level for level in levels] and settings.layers_per_block == 1
    sizes = [settings.image_size // 2**level for level in settings.attention_levels]
    assert sizes == [16, 8] and (settings.prediction, settings.schedule) == ("sample", "cosine")


@pytest.mark.slow
def test_gradient_checkpointing_keeps_less_and_learns_the_same(cli, teachers, tmp_path):
    from bootdiff.distillation.memory import memory_need

    words = [teachers / "sd", "--prompts", teachers / "words.txt", *SMALL, "--set", "learning_rate=0.001"]
    for name, value in (("plain", "false"), ("saved", "true")):
        done = cli("distill", *words, "--output", tmp_path / name, "--set", f"gradient_checkpointing={value}")
        assert done.code == 0, done.err
    from bootdiff.students.files import load_student

    states = [load_student(tmp_path / name).state_dict() for name in ("plain", "saved")]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=2e-4)
    need = memory_need(load_teacher(str(teachers / "sd")), BootSettings())
    assert need.checkpointed < 0.6 * need.sample and need.fitting(24, True) > need.fitting(24, False)


def test_half_precision_teachers_convert_in_float32(teachers):
    for kind in ("bfloat16", "float16"):
        half, full = (load_teacher(str(teachers / "sd"), dtype=d) for d in (kind, "float32"))
        condition = Condition({"text": torch.randn(2, 77, 16, generator=torch.Generator().manual_seed(0))})
        x, t = sample_noise(0, 0, 2, full.shape), torch.full((2,), 0.5)
        made, exact = (teacher.x0(x, t, condition) for teacher in (half, full))
        assert made.dtype == torch.float32
        assert 0 < float((made - exact).abs().max()) < 0.2
        # The conversion itself loses nothing: x_0 is a x_t + b out to float32, out being what the network said.
        out = half.adapter.call(half.network, x, torch.full((2,), 499.5), condition).float()
        alpha, sigma = (v[:, None, None, None] for v in half.schedule.alpha_sigma(t))
        torch.testing.assert_close(made, (x - sigma * out) / alpha, rtol=1e-5, atol=1e-5)


def test_stable_diffusion_3_runs_without_t5(cli, tmp_path):
    import shutil

    folder = tiny.save_sd3(tmp_path / "t")
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("text_encoder_3", "tokenizer_3"):
        index[part] = [None, None]
        shutil.rmtree(folder / part)
    (folder / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "w.txt").write_text("a red cat\n")
    words = ["--prompts", tmp_path / "w.txt", "--guidance-scale", 3, "--output", tmp_path / "run", *SMALL]
    assert cli("distill", folder, *words).code == 0
    run_card(tmp_path / "run/student")
    assert cli("sample", tmp_path / "run", "--num", 1, "--output", tmp_path / "a.png").code == 0


def test_the_refusal_names_the_class_and_those_supported(tmp_path):
    folder = tiny.save_sd(tmp_path / "t")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionInpaintPipeline"}))
    with pytest.raises(BootdiffError, match=r"a StableDiffusionInpaintPipeline with UNet2D.*supported: .*FluxPipeline"):
        load_teacher(str(folder))
