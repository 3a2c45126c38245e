"""Every part of a pipeline is checked before anything is trained or written, and nothing that is loaded runs code."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_pipelines as made
from bootdiff.core.errors import BootdiffError, NonFiniteLossError
from bootdiff.data.conditions import Classes
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.export.card import escaped
from bootdiff.losses.distances import make_distance
from bootdiff.methods.boot import BootSettings
from bootdiff.metrics.features import load_features
from bootdiff.storage.files import write_json
from bootdiff.students import Student
from bootdiff.students.files import load_student, save_student
from bootdiff.teachers import CallableTeacher, Clip, Limited, adapter_of, load_teacher
from bootdiff.teachers.limits import DynamicThreshold
from tiny_unet import save_teacher

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> Path:
    """A folder of tiny pipelines; tests must not change them."""
    folder = tmp_path_factory.mktemp("parts")
    made.save_sd(folder / "sd")
    made.save_sdxl(folder / "sdxl")
    made.save_class_unet(folder / "classes")
    made.save_lora(folder / "lora", folder / "sd")
    made.save_single_file(folder / "whole.safetensors", folder / "sd")
    (folder / "words.txt").write_text("a red cat\n")
    return folder


@pytest.fixture
def copy(teachers, tmp_path) -> Callable[[str], Path]:
    """A pipeline of one's own to spoil."""
    return lambda name="sd": Path(shutil.copytree(teachers / name, tmp_path / f"my-{name}"))


def retensor(path: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(path)
    tensors = change(tensors) or tensors
    save_file(tensors, path, metadata={"format": "pt"})


def reword(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def drop(name: str) -> Callable[[dict], object]:
    """Without every tensor whose name holds this."""
    return lambda tensors: {key: value for key, value in tensors.items() if name not in key}


def wrapped(prefix: str) -> Callable[[dict], object]:
    return lambda tensors: {f"{prefix}{key}": value for key, value in tensors.items()}


def poisoned(tensors: dict) -> None:
    next(iter(tensors.values())).view(-1)[0] = float("nan")


def plan(folder: Path, words: Path, **options):
    """What a distillation would do: nothing is trained or written."""
    teacher = load_teacher(str(folder), **options)
    settings = BootSettings(steps=2, prompts=str(words)) if adapter_of(teacher).takes == "prompts" else BootSettings()
    return plan_distillation(teacher, folder.parent / "run", settings)


def says(folder: Path, words: Path, **options) -> str:
    """The one line by which a plan is refused."""
    with pytest.raises(BootdiffError) as error:
        plan(folder, words, **options)
    line = str(error.value).replace(str(folder.parent), "")
    assert "\n" not in line and len(line) <= 300, line
    assert not (folder.parent / "run").exists()
    return line


#: what is done to a pipeline's weights, and what the line must hold
WEIGHTS = {
    "text encoder, one missing": ("sd", TEXT, drop("layers.1.mlp.fc1.bias"), ("text_encoder", "lack 1 ", "fc1.bias")),
    "second encoder, one missing": ("sdxl", "text_encoder_2/model.safetensors", drop("text_proj"), ("lack 1", "_2")),
    "vae, no last layer": ("sd", VAE, drop("decoder.conv_out"), ("vae", "lack 2 tensors", "decoder.conv_out")),
    "unet, one missing": ("sd", UNET, drop("mid_block.resnets.0.norm1.bias"), ("unet", "lack 1 tensor")),
    "vae, one more": ("sd", VAE, lambda t: t.update(more=torch.ones(2)), ("vae", "does not know", "'more'")),
    "text encoder, one more": ("sd", TEXT, lambda t: t.update(more=torch.ones(2)), ("text_encoder", "'more'")),
    "vae, another shape": ("sd", VAE, lambda t: t.update({"decoder.conv_out.bias": torch.ones(5)}), ("another shape",)),
    "text encoder, NaN": ("sd", TEXT, poisoned, ("text_encoder", "not finite")),
    "vae, NaN": ("sd", VAE, poisoned, ("vae", "not finite")),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_part_whose_weights_are_not_its_config_s_is_named_before_the_training(copy, teachers, name):
    kind, file, change, expected = WEIGHTS[name]
    folder = copy(kind)
    retensor(folder / file, change)
    line = says(folder, teachers / "words.txt")
    assert all(word in line for word in expected), line


def test_a_class_table_that_the_config_does_not_know_is_refused(copy, cli, tmp_path):
    folder = copy("classes")
    reword(folder / "unet/config.json", num_class_embeds=None)
    result = cli("distill", folder, "--output", tmp_path / "run")
    assert result.code == 2 and "class_embedding.weight" in result.err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod."])
def test_weights_saved_from_within_a_wrapper_are_read_without_it_and_a_note_says_so(copy, teachers, capsys, prefix):
    folder = copy()
    for file in (TEXT, UNET):
        retensor(folder / file, wrapped(prefix))
    own, plain = (adapter_of(load_teacher(str(place))).parts for place in (folder, teachers / "sd"))
    for part in ("text_encoder", "unet"):
        theirs = plain.load(part).state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in own.load(part).state_dict().items())
    assert (
        f"bootdiff: note: the weights in {folder / 'text_encoder'} were saved from within a" in capsys.readouterr().err
    )


def test_what_libraries_leave_out_by_design_is_no_fault(copy, teachers):
    """Old files of CLIP hold the numbers of their positions."""
    folder = copy()
    retensor(folder / TEXT, lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
    assert plan(folder, teachers / "words.txt").teacher is not None


def test_old_weights_and_variants_are_checked_the_same(copy, teachers):
    folder, words = copy(), teachers / "words.txt"
    tensors = load_file(folder / VAE)
    (folder / VAE).unlink()
    torch.save(tensors, folder / "vae/diffusion_pytorch_model.bin")
    (folder / TEXT).rename(folder / "text_encoder/model.fp16.safetensors")
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert plan(folder, words, variant="fp16").teacher is not None
    torch.save(drop("decoder.conv_in.bias")(tensors), folder / "vae/diffusion_pytorch_model.bin")
    assert "decoder.conv_in.bias" in says(folder, words, variant="fp16")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_tensor_in_two_shards_is_refused_with_both_their_names(copy, teachers, suffix):
    folder, name = copy(), "diffusion_pytorch_model"
    tensors = load_file(folder / VAE)
    (folder / VAE).unlink()
    shards = [f"{name}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    half = dict(list(tensors.items())[: len(tensors) // 2])
    parts = half, {key: value for key, value in tensors.items() if key not in half}
    write = save_file if suffix == "safetensors" else torch.save
    for file, part in zip(shards, parts, strict=True):
        write(part, folder / "vae" / file)
    places = {key: shards[key not in half] for key in tensors}
    write_json(folder / "vae" / f"{name}.{suffix}.index.json", {"metadata": {}, "weight_map": places})
    assert plan(folder, teachers / "words.txt").teacher is not None
    shared = next(iter(half))
    write({**parts[1], shared: half[shared] + 1}, folder / "vae" / shards[1])
    assert f"holds '{shared}' in two files, {shards[0]} and {shards[1]}" in says(folder, teachers / "words.txt")


#: configs that ask for more than there is: the file, its fields
LARGE = {
    "layers": ("unet/config.json", {"layers_per_block": 10**9}),
    "blocks": ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 200_000}),
    "classes": ("unet/config.json", {"num_class_embeds": 10**12, "class_embed_type": None}),
    "width": ("unet/config.json", {"block_out_channels": [2**20, 2**21]}),
    "side": ("unet/config.json", {"sample_size": 10**9}),
    "a side of a million": ("unet/config.json", {"sample_size": 10**6}),
    "text layers": ("text_encoder/config.json", {"num_hidden_layers": 10**9}),
    "words": ("text_encoder/config.json", {"vocab_size": 10**12}),
    "vae layers": ("vae/config.json", {"layers_per_block": 10**9}),
    "a tokenizer's window": ("tokenizer/tokenizer_config.json", {"model_max_length": 10**9}),
}


@pytest.mark.parametrize("name", LARGE)
def test_sizes_in_a_config_are_held_against_the_weights_before_memory_is_asked_for(copy, teachers, name):
    file, fields = LARGE[name]
    folder = copy()
    reword(folder / file, **fields)
    assert Path(file).parent.name in says(folder, teachers / "words.txt")


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json",
                                  "tokenizer/tokenizer_config.json", "vae/config.json"])  # fmt: skip
def test_json_nested_without_end_is_one_line(copy, teachers, file):
    folder = copy()
    (folder / file).write_text('{"a":' * 100_000)
    assert Path(file).name in says(folder, teachers / "words.txt")


MARKED = {
    **dict.fromkeys(["model_index.json", "scheduler/scheduler_config.json"], "read"),
    **dict.fromkeys(["unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json",
                     "tokenizer/tokenizer_config.json"], "refused"),
}  # fmt: skip


@pytest.mark.parametrize("file", MARKED)
def test_a_config_that_begins_with_a_byte_order_mark_is_read_or_refused_for_it(copy, teachers, file):
    folder = copy()
    (folder / file).write_text((folder / file).read_text(), encoding="utf-8-sig")
    if MARKED[file] == "read":
        assert plan(folder, teachers / "words.txt").teacher is not None
    else:
        line = says(folder, teachers / "words.txt")
        assert file in line and "begins with a byte order mark" in line and "without one" in line


# --- the class that stock builds -------------------------------------------------------------------------------------


def test_the_scheduler_is_of_the_class_that_the_index_names(copy, capsys):
    folder = copy("classes")
    fields = {"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    write_json(folder / "scheduler/scheduler_config.json", {**fields, "clip_sample": True})
    teacher = load_teacher(str(folder))
    assert teacher.denoiser.scheduler_config["_class_name"] == "DDPMScheduler" and isinstance(teacher, Limited)
    assert float(teacher.schedule.alpha_sigma(torch.ones(1))[0]) == 0  # PNDM does not know of zero terminal SNR
    assert "PNDMScheduler and model_index.json DDPMScheduler" in capsys.readouterr().err


def test_a_scheduler_s_config_without_a_class_is_read_as_the_index_s(copy):
    folder = copy("classes")
    write_json(folder / "scheduler/scheduler_config.json", {"prediction_type": "sample"})
    assert load_teacher(str(folder)).denoiser.prediction.name == "sample"


def test_the_old_word_for_a_signal_prediction_is_read(copy, capsys):
    folder = copy("classes")
    write_json(folder / "scheduler/scheduler_config.json", {"predict_epsilon": False})
    assert load_teacher(str(folder)).denoiser.prediction.name == "sample"
    assert "predict_epsilon: false" in capsys.readouterr().err
    reword(folder / "scheduler/scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(BootdiffError, match="keep the one"):
        load_teacher(str(folder))


def test_an_autoencoder_s_factor_is_the_one_that_its_class_derives(copy):
    from diffusers import AutoencoderTiny

    folder = copy("sdxl")
    tiny = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                           num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    shutil.rmtree(folder / "vae")
    tiny.save_pretrained(folder / "vae")
    words = json.loads((folder / "vae/config.json").read_text())
    bare = {key: value for key, value in words.items() if key not in ("block_out_channels", "scaling_factor")}
    write_json(folder / "vae/config.json", bare)
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", {**index, "vae": ["diffusers", "AutoencoderTiny"]})
    adapter = adapter_of(load_teacher(str(folder)))
    assert adapter.factor == 2 and adapter.vae.scaling_factor == 1.0


#: entries of an index that are no such component: what stands there, and what the line must hold
ENTRIES = {
    "a module": ({"unet": ["diffusers", "logging"]}, "unet should be a ModelMixin"),
    "a pipeline": ({"unet": ["diffusers", "DiffusionPipeline"]}, "unet should be a ModelMixin"),
    "a function": ({"unet": ["transformers", "pipeline"]}, "unet should be a ModelMixin"),
    "another network": ({"unet": ["diffusers", "UNet2DModel"]}, "expected a UNet2DConditionModel"),
    "a network as the scheduler": ({"scheduler": ["diffusers", "UNet2DModel"]}, "scheduler should be a SchedulerMixin"),
    "any class": ({"text_encoder": ["transformers", "AutoModel"]}, "text_encoder should be"),
    "a network as the tokenizer": ({"tokenizer": ["transformers", "CLIPTextModel"]}, "tokenizer should be"),
    "a class that is a list": ({"_class_name": ["pipeline", "Mine"]}, "_class_name"),
    "null": ({"safety_checker": None}, "[null, null]"),
    "a component outside": ({"../other": ["diffusers", "AutoencoderKL"]}, "../other"),
    "code of the folder's own": ({"vae": ["pipeline", "Mine"]}, "foreign code"),
}


def test_an_old_index_may_call_a_dit_by_its_older_name(teachers, tmp_path):
    """The hub's first DiT names the class from which diffusers split its own off."""
    folder = made.save_dit(tmp_path / "dit")
    reword(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    assert type(load_teacher(str(folder)).denoiser.network).__name__ == "DiTTransformer2DModel"


def test_other_pickles_beside_weights_are_left_alone(copy, teachers):
    folder = copy("sd") / "text_encoder"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    torch.save({"learning_rate": 1e-4}, folder / "training_args.bin")
    plan(folder.parent, teachers / "words.txt")


def test_a_run_goes_on_with_the_same_text_encoder_only(copy, teachers, tmp_path):
    """Two pipelines may share their networks and differ in what reads the words."""
    folder, other = copy("sd"), tmp_path / "other"
    asked = BootSettings(steps=1, batch_size=2, prompts=str(teachers / "words.txt"), sample_every=0, watch_every=0)
    distill(str(folder), tmp_path / "run", asked)
    shutil.copytree(folder, other)
    plan_distillation(str(other), tmp_path / "run", asked)
    retensor(
        other / "text_encoder" / "model.safetensors",
        lambda tensors: {name: 2 * value for name, value in tensors.items()},
    )
    with pytest.raises(BootdiffError, match="holds another run"):
        plan_distillation(str(other), tmp_path / "run", asked)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_index_that_names_no_such_component_is_refused_by_inspect(copy, cli, name):
    fields, words = ENTRIES[name]
    folder = copy()
    reword(folder / "model_index.json", **fields)
    result = cli("inspect", folder)
    assert result.code == 2 and words in " ".join(result.err.split()), result.err


#: by family: what its index may name and its folder need not hold
EXTRACTOR, ENCODER = ["transformers", "CLIPImageProcessor"], ["transformers", "CLIPVisionModelWithProjection"]
SPARE = {
    "sd": (made.save_sd, {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
                          "feature_extractor": ["transformers", "CLIPFeatureExtractor"]}),  # as it was called then
    "sdxl": (made.save_sdxl, {"feature_extractor": EXTRACTOR, "image_encoder": ENCODER}),
    "if": (made.save_if, {"safety_checker": ["deepfloyd_if", "IFSafetyChecker"], "feature_extractor": EXTRACTOR,
                          "watermarker": ["deepfloyd_if", "IFWatermarker"]}),
    "sd3": (made.save_sd3, {"feature_extractor": EXTRACTOR, "image_encoder": ENCODER}),
    "flux": (made.save_flux, {"feature_extractor": EXTRACTOR, "image_encoder": ENCODER}),
}  # fmt: skip


@pytest.mark.parametrize("family", SPARE)
def test_parts_that_a_student_needs_nothing_of_may_be_left_out(teachers, tmp_path, capsys, family):
    make, named = SPARE[family]
    folder = make(tmp_path / "my")
    reword(folder / "model_index.json", **named)
    options = {"size": 16} if family == "flux" else {}
    planned = plan(folder, teachers / "words.txt", **options)
    words = capsys.readouterr().err
    assert words.count("the pipeline is read without") == 1 and all(part in words for part in named), words
    stock = adapter_of(planned.teacher).parts.pipeline()
    assert all(stock.components[part] is None for part in named)


# --- code ------------------------------------------------------------------------------------------------------------

BRINGS_CODE = {
    "a tokenizer of its own": lambda f: reword(f / "tokenizer/tokenizer_config.json",
                                               auto_map={"AutoTokenizer": ["mine.Tokenizer", None]}),
    "an encoder of its own": lambda f: reword(f / "text_encoder/config.json", auto_map={"AutoModel": "mine.Model"}),
    "code beside the index": lambda f: (f / "pipeline.py").write_text("open('ran', 'w')"),
    "code beside a network": lambda f: (f / "vae/mine.py").write_text("open('ran', 'w')"),
    "an implementation from the hub": lambda f: reword(f / "text_encoder/config.json", attn_implementation="a/kernel"),
    "an adapter": lambda f: write_json(f / "text_encoder/adapter_config.json", {"base_model_name_or_path": "a/model"}),
    "a shard elsewhere": lambda f: write_json(f / "vae/diffusion_pytorch_model.safetensors.index.json",
                                              {"weight_map": {"a": "../../secret.safetensors"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", BRINGS_CODE)
def test_a_folder_that_brings_code_is_refused_and_nothing_is_asked(copy, teachers, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked whether code may run"))
    folder = copy()
    auto = ["transformers", "AutoTokenizer"]
    reword(folder / "model_index.json", **({"tokenizer": auto} if name == "a tokenizer of its own" else {}))
    BRINGS_CODE[name](folder)
    says(folder, teachers / "words.txt")
    assert not (tmp_path / "ran").exists()


def test_names_are_text_in_a_model_card(copy, tmp_path):
    assert escaped("<script>x</script>") == "&lt;script&gt;x&lt;/script&gt;"
    assert escaped("[a](https://evil)\n`b` | c") == "\\[a\\](https\\://evil) \\`b\\` \\| c"
    folder = copy("classes").rename(tmp_path / "<img src=x> [a](b) `c`")
    distill(str(folder), tmp_path / "run", BootSettings(steps=1, batch_size=2, watch_every=0))
    card = (tmp_path / "run/student/README.md").read_text()
    assert "<img" not in card and "[a](b)" not in card and "`c`" not in card and "&lt;img src=x&gt;" in card


# --- students, values that are not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["slots.safetensors", "unet/diffusion_pytorch_model.safetensors"])
def test_a_student_with_values_that_are_not_finite_is_not_sampled(tiny, tmp_path, cli, file):
    save_student(Student.from_teacher(load_teacher(str(tiny))), tmp_path / "student-path")
    retensor(tmp_path / "student-path" / file, poisoned)
    result = cli("sample", tmp_path / "student-path", "--output", tmp_path / "a.png")
    assert result.code == 2 and "not finite" in result.err and not (tmp_path / "a.png").exists()


def test_a_student_that_lacks_a_tensor_is_refused(tiny, tmp_path):
    save_student(Student.from_teacher(load_teacher(str(tiny))), tmp_path / "s")
    retensor(tmp_path / "s" / UNET, drop("conv_in.bias"))
    with pytest.raises(BootdiffError, match=r"lack 1 tensor .*conv_in\.bias"):
        load_student(tmp_path / "s")


class Overflows(torch.nn.Module):
    """Infinite at the earlier half of the times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x, timestep):
        return torch.where(timestep[:, None, None, None] < 500, torch.inf, self.layer(x))


def test_a_teacher_that_overflows_at_some_times_is_named_though_its_images_are_clipped(tmp_path):
    from bootdiff.schedules import Cosine

    teacher = Limited(CallableTeacher(Overflows(), Cosine(), "sample", (1, 4, 4)), Clip())
    with pytest.raises(NonFiniteLossError, match=r"the teacher .* at t = 0\.\d+"):
        distill(teacher, tmp_path / "run", BootSettings(steps=20, batch_size=4, watch_every=0))


def test_a_teacher_is_not_blamed_for_what_it_was_asked():
    from bootdiff.schedules import Cosine

    class Doubles(torch.nn.Module):
        def forward(self, x, timestep):
            return 2 * x

    teacher = CallableTeacher(Doubles(), Cosine(), "sample", (1, 4, 4))
    asked = torch.zeros(3, 1, 4, 4)
    asked[1, 0, 2, 2] = torch.nan  # as a student's answer may be
    assert not bool(torch.isfinite(teacher.x0(asked, torch.tensor([0.2, 0.3, 0.4]))).all())
    assert teacher.failed_at is None


@pytest.mark.parametrize("limit", [Clip(), DynamicThreshold(0.9, 2.0)])
def test_a_limit_hides_nothing_that_is_not_finite(limit):
    x_0 = torch.tensor([[0.5, 3.0, -4.0]])
    assert bool(torch.isfinite(limit(x_0)).all())
    assert not bool(torch.isfinite(limit(torch.tensor([[0.5, torch.inf, torch.nan]]))[0, 1:]).any())


def test_guidance_without_its_null_class_is_refused(teachers, tmp_path, cli):
    settings = BootSettings(steps=1, batch_size=2, watch_every=0, null_class=3, guidance_scale=2.0)
    distill(str(teachers / "classes"), tmp_path / "run", settings)
    path = tmp_path / "run/student-path/bootdiff.json"
    facts = json.loads(path.read_text())
    write_json(path, {**facts, "conditions": {"labels": facts["conditions"]["labels"]}})
    result = cli("evaluate", tmp_path / "run", "--num", "4", "--output", tmp_path / "a.json")
    assert result.code == 2 and "null_class" in result.err
    assert Classes([0]).labels  # what a class is conditioned on has not changed


# --- LoRAs -----------------------------------------------------------------------------------------------------------


def networks(teachers: Path) -> dict:
    """The layers of the tiny Stable Diffusion that LoRAs change, by kohya's name: (component, layer, module)."""
    parts = adapter_of(load_teacher(str(teachers / "sd"))).parts
    found = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        for name, module in parts.load(part).named_modules():
            if name.endswith(("attn1.to_q", "to_out.0", "proj_in", "self_attn.q_proj", "fc1")):
                found[f"{prefix}{name.replace('.', '_')}"] = part, name, module
    return found


def kohya(path: Path, layers: dict, alpha: Callable[[int], float], rank: Callable[[int], int]) -> dict:
    """Write a LoRA as kohya's trainer does; what it adds to each layer."""
    generator, tensors, added = torch.Generator().manual_seed(0), {}, {}
    for index, (key, (part, name, module)) in enumerate(layers.items()):
        out, *inside = module.weight.shape
        down = torch.randn(rank(index), *inside, generator=generator)
        up = 0.1 * torch.randn(out, rank(index), *(1 for _ in inside[1:]), generator=generator)
        words = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(alpha(index)))}
        tensors.update({f"{key}.{word}": value for word, value in words.items()})
        product = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
        added[part, name] = module.weight + alpha(index) / rank(index) * product
    save_file(tensors, path)
    return added


@pytest.mark.parametrize("uneven", [False, True])
def test_a_kohya_lora_of_network_and_text_encoder_is_added_whole(teachers, tmp_path, uneven):
    alpha, rank = (lambda i: 1 + i % 3, lambda i: 1 + i % 2) if uneven else (lambda i: 1, lambda i: 2)
    expected = kohya(tmp_path / "kohya.safetensors", networks(teachers), alpha, rank)
    parts = adapter_of(load_teacher(str(teachers / "sd"), lora=str(tmp_path / "kohya.safetensors"))).parts
    for (part, name), weight in expected.items():
        torch.testing.assert_close(parts.load(part).get_submodule(name).weight, weight, rtol=0, atol=1e-5)


def test_a_plain_peft_folder_is_read_with_its_own_alpha(teachers, tmp_path):
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = adapter_of(load_teacher(str(teachers / "sd"))).parts.load("unet").get_submodule(name)
    down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
    tensors = {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    (tmp_path / "peft").mkdir()
    save_file(tensors, tmp_path / "peft/adapter_model.safetensors")
    write_json(tmp_path / "peft/adapter_config.json", {"r": 2, "lora_alpha": 8, "peft_type": "LORA"})
    parts = adapter_of(load_teacher(str(teachers / "sd"), lora=str(tmp_path / "peft"))).parts
    torch.testing.assert_close(parts.load("unet").get_submodule(name).weight, layer.weight + 4 * up @ down)


def other_half(tensors: dict) -> dict:
    return {f"{'unet.other.' if index % 4 > 1 else ''}{name}": value for index, (name, value) in
            enumerate(sorted(tensors.items()))}  # fmt: skip


#: what is done to a LoRA, and what the line must hold
LORAS = {
    "half of another network": (other_half, "of its"),
    "NaN": (poisoned, "not finite"),
    "saved at its first step": (lambda t: {k: v * (".up." not in k) for k, v in t.items()}, "matrices are zero"),
    "a LoHa": (lambda t: {"lora_unet_mid_block.hada_w1_a": torch.ones(2, 2)}, "a LoHa"),
    "a DoRA": (lambda t: t.update({"unet.mid_block.dora_scale": torch.ones(2)}), "a DoRA"),
    "a matrix missing": (lambda t: drop(next(name for name in t if ".up." in name))(t), "two matrices"),
    "no LoRA": (lambda t: {"conv_in.weight": torch.ones(2, 2)}, "no LoRA (it holds 'conv_in.weight')"),
}


@pytest.mark.parametrize("name", LORAS)
def test_a_lora_that_is_not_wholly_this_pipeline_s_is_refused_for_what_it_is(teachers, tmp_path, name):
    change, words = LORAS[name]
    path = Path(shutil.copytree(teachers / "lora", tmp_path / "lora")) / "pytorch_lora_weights.safetensors"
    retensor(path, change)
    with pytest.raises(BootdiffError) as error:
        load_teacher(str(teachers / "sd"), lora=str(path))
    assert words in str(error.value) and "\n" not in str(error.value), error.value


# --- single files ----------------------------------------------------------------------------------------------------

#: what is done to a whole model's file, and what the line must hold
FILES = {
    "text encoder, one missing": (drop("layers.0.self_attn.q_proj.weight"), "q_proj.weight' of its text_encoder"),
    "autoencoder, one missing": (drop("decoder.conv_out"), "lacks tensors"),
    "one more": (lambda t: t.update({"model.diffusion_model.more": torch.ones(2)}), "model.diffusion_model.more"),
    "NaN": (lambda t: t.update({"first_stage_model.decoder.conv_out.bias": torch.full((3,), torch.nan)}), "the vae of"),
    "no autoencoder": (drop("first_stage_model."), "no autoencoder"),
    "a U-Net": (lambda t: {"down_blocks.0.x": torch.ones(1)}, "a U-Net alone"),
    "a LoRA": (lambda t: {"lora_unet_mid_block.lora_up.weight": torch.ones(1, 1)}, "a LoRA: name the model"),
    "something": (lambda t: {"layer1.weight": torch.ones(1)}, "layer1.weight"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_single_file_is_whole_or_refused_for_what_it_is(teachers, tmp_path, name):
    change, words = FILES[name]
    path = Path(shutil.copy(teachers / "whole.safetensors", tmp_path))
    retensor(path, change)
    with pytest.raises(BootdiffError) as error:
        load_teacher(str(path), pipeline_config=str(teachers / "sd"))
    assert words in str(error.value) and "\n" not in str(error.value), error.value


# --- weights that cannot be read -------------------------------------------------------------------------------------

#: who reads a file of weights: its name, and how it is opened
READERS = {
    "a component": (f"my-sd/{UNET}", lambda file: load_teacher(str(file.parents[1]))),
    "an old component": ("my-sd/vae/diffusion_pytorch_model.bin", lambda file: load_teacher(str(file.parents[1]))),
    "a single file": (
        "a.safetensors",
        lambda file: load_teacher(str(file), pipeline_config=str(file.parent / "my-sd")),
    ),
    "a LoRA": ("lora.safetensors", lambda file: load_teacher(str(file.parent / "my-sd"), lora=str(file))),
    "Inception": ("a.pth", lambda file: load_features(f"inception:{file}", (3, 8, 8))),
    "Inception in safetensors": ("i.safetensors", lambda file: load_features(f"inception:{file}", (3, 8, 8))),
    "ONNX": ("a.onnx", lambda file: load_features(str(file), (3, 8, 8))),
    "LPIPS": ("lpips.pth", lambda file: make_distance("lpips", (3, 32, 32), str(file))),
}
#: what is done to the file, and what is to be done about it
SPOILT = {
    "forbidden": (lambda file: None, "permissions"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "name another|name the file|check the name"),
    "a link to nothing": (
        lambda file: (file.unlink(), file.symlink_to("nothing")),
        "mend or remove it|expected a .safetensors|check the name",
    ),
    "empty": (lambda file: file.write_bytes(b""), "again|restore"),
    "cut": (lambda file: os.truncate(file, file.stat().st_size // 2), "again|restore"),
    "text": (lambda file: file.write_text("404: Not Found"), "again|restore"),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("who", READERS)
def test_a_file_of_weights_that_cannot_be_read_is_named_with_what_to_do(copy, tmp_path, monkeypatch, who, how):
    if who == "ONNX":
        pytest.importorskip("onnxruntime")
    folder, (name, read), (spoil, cure) = copy(), READERS[who], SPOILT[how]
    file = tmp_path / name
    tensors = load_file(folder / VAE)
    if name.endswith(".bin"):
        (folder / VAE).unlink()
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file)
    spoil(file)
    if how == "forbidden":  # whoever may do everything is forbidden nothing, so the system's answer is given here
        opened = Path.open

        def forbid(path, *words, **options):
            if path == file:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *words, **options)

        monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(BootdiffError, match=cure) as error:
        adapter_of(read(file)).decoder()
    assert file.name in str(error.value) and "\n" not in str(error.value), error.value


# --- the hub's cache -------------------------------------------------------------------------------------------------

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tiny, tmp_path, monkeypatch) -> Path:
    """A hub's cache that holds one repository at one commit; there is no network."""
    from huggingface_hub import constants

    folder = tmp_path / "hub/models--me--tiny"
    shutil.copytree(tiny, folder / "snapshots" / OLD)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def test_a_cached_teacher_is_distilled_resumed_and_sampled_offline_at_the_commit_of_its_run(cache, tmp_path, cli):
    words = ["distill", "me/tiny", "--output", tmp_path / "run", "--set", "steps=2", "--set", "watch_every=0"]
    assert cli(*words).code == 0
    assert json.loads((tmp_path / "run/meta.json").read_text())["commit"] == OLD
    facts = json.loads((tmp_path / "run/student-path/bootdiff.json").read_text())
    assert facts["teacher_options"]["revision"] == OLD
    save_teacher(cache / "snapshots" / NEW, seed=1)
    (cache / "refs/main").write_text(NEW)
    again = cli(*words)
    assert again.code == 0 and "is finished" in again.out
    assert cli("sample", tmp_path / "run", "--num", "2", "--output", tmp_path / "a.png").code == 0
    assert load_teacher("me/tiny").denoiser.origin.commit == NEW


def test_without_a_network_the_cache_serves_and_a_note_says_so(cache, monkeypatch, capsys):
    import huggingface_hub
    from huggingface_hub import constants

    real = huggingface_hub.snapshot_download

    def download(name, **options):
        if not options.get("local_files_only"):
            raise ConnectionError("no network")
        return real(name, **options)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_teacher("me/tiny").denoiser.origin.commit == OLD
    assert f"read from the cache at commit {OLD[:12]}" in capsys.readouterr().err
    next((cache / "snapshots" / OLD / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(BootdiffError, match="could not be fetched"):
        load_teacher("me/tiny")


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", f"{'deep/' * 40}/../../{'../' * 50}secret.bin"])
def test_onnx_features_read_no_data_outside_their_folder(tmp_path, place):
    from onnx import TensorProto, helper

    from bootdiff.metrics.onnx_features import OnnxFeatures

    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], bytes(64), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", place
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BootdiffError, match="its own folder"):
        OnnxFeatures(tmp_path / "m.onnx")


# --- what a hostile tester found -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_quantised_weights_are_refused(copy, teachers, part):
    folder = copy("sd")
    (file,) = (folder / part).glob("*.safetensors")
    retensor(file, lambda tensors: {name: value.to(torch.int8) for name, value in tensors.items()})
    assert "quantised weights are not read" in says(folder, teachers / "words.txt")


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_pipe_among_the_weights_is_refused_and_not_waited_for(copy, teachers, part):
    folder = copy("sd")
    (file,) = (folder / part).glob("*.safetensors")
    file.unlink()
    os.mkfifo(file)
    assert "is a pipe; expected a file of weights" in says(folder, teachers / "words.txt")


def test_a_tokenizer_s_window_is_a_number(copy, teachers):
    folder = copy("sd")
    reword(folder / "tokenizer" / "tokenizer_config.json", model_max_length="a")
    assert "model_max_length is 'a'; expected a number" in says(folder, teachers / "words.txt")
