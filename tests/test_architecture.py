"""Students of another architecture than their teacher's, and methods that take a teacher's architecture alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny_pipelines
from bootdiff import BootdiffError, CallableTeacher, Cosine, Gaussian
from bootdiff.core.condition import Condition
from bootdiff.distillation.distill import distill
from bootdiff.distillation.memory import memory_need
from bootdiff.distillation.plan import plan_distillation
from bootdiff.methods.boot import BootSettings
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.samplers.students import open_student
from bootdiff.students.architecture import copy_fitting, seedling, untaught
from bootdiff.students.files import load_student, save_student
from bootdiff.students.path import PathStudent
from bootdiff.system.notes import begin
from bootdiff.teachers import load_teacher
from bootdiff.teachers.loading.architecture import read_architecture
from bootdiff.teachers.loading.identity_autoencoder import identity_autoencoder
from tiny_unet import save_teacher, tiny_unet
from toy_untaught import PLACE, UntaughtSettings
from toys import same

QUIET = {"steps": 2, "batch_size": 4, "watch_every": 0, "sample_every": 0, "learning_rate": 1e-3}
DIT = {
    "_class_name": "DiTTransformer2DModel",
    **{"in_channels": 1, "out_channels": 1, "sample_size": 8, "patch_size": 2, "num_layers": 2},
    **{"num_attention_heads": 2, "attention_head_dim": 8, "num_embeds_ada_norm": 1},
}
FIGURES = ["--features", "pixels", "--reference", "digits", "--no-heun", "--calls", "1"]
SMALLER = {"block_out_channels": [4, 8]}


def write(folder: Path, config: dict) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def unet(folder: Path, **fields) -> str:
    """A folder with the config of the tests' U-Net, but for these fields."""
    tiny_unet().save_config(folder)
    known = json.loads((folder / "config.json").read_text())
    return write(folder, {**known, **fields})


@pytest.fixture
def smaller(tmp_path) -> str:
    return unet(tmp_path / "smaller", **SMALLER)


@pytest.fixture
def dit(tmp_path) -> str:
    return write(tmp_path / "dit", DIT)


# --- what a student is grown from ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_the_programs_random_numbers_stay(tiny, tmp_path):
    """Of a deeper network, whose further layers are drawn."""
    teacher, asked = load_teacher(str(tiny)), read_architecture(unet(tmp_path / "deeper", layers_per_block=2))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (seedling(teacher, asked, seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert same(first, again) and not same(first, other)


def test_layers_that_fit_are_the_teachers_and_others_are_drawn(tiny, tmp_path):
    """Of a layer with fewer channels the first ones are the teacher's; a kernel of another size is drawn."""
    teacher = load_teacher(str(tiny))
    own = teacher.denoiser.network.state_dict()
    deeper = seedling(teacher, read_architecture(unet(tmp_path / "deeper", layers_per_block=2)), 0).network.state_dict()
    assert deeper.keys() > own.keys()
    fits = [name for name in own if deeper[name].shape == own[name].shape]
    assert len(fits) > len(own) / 2 and all(torch.equal(deeper[name], own[name]) for name in fits)
    narrow = seedling(teacher, read_architecture(unet(tmp_path / "narrow", **SMALLER)), 3).network.state_dict()
    assert torch.equal(narrow["conv_in.weight"], own["conv_in.weight"][:4])
    assert torch.equal(narrow["mid_block.resnets.0.conv1.weight"], own["mid_block.resnets.0.conv1.weight"][:8, :8])
    layer = nn.Conv2d(1, 4, 1)
    assert copy_fitting(layer, {"weight": torch.ones(4, 1, 3, 3), "bias": torch.ones(8)}) == ["bias"]
    none = seedling(teacher, read_architecture(str(tmp_path / "deeper")), 3, copies=False).network.state_dict()
    assert not torch.equal(none["conv_in.weight"], own["conv_in.weight"])


def test_the_teachers_own_config_gives_a_student_that_begins_at_its_teacher(tiny, tmp_path):
    teacher = load_teacher(str(tiny))
    student = PathStudent.from_teacher(seedling(teacher, read_architecture(unet(tmp_path / "own")), 0))
    eps, t = torch.randn(2, *teacher.shape), torch.full((2,), 0.3)
    t_max = torch.full((2,), student.t_max)
    expected = teacher.denoiser.x0(teacher.schedule.start_scale(student.t_max) * eps, t_max)
    torch.testing.assert_close(student(eps, t), expected, rtol=1e-5, atol=1e-6)


def test_a_pipelines_folder_and_its_networks_are_named_alike_and_weights_are_not_read(tiny):
    (whole, part) = (read_architecture(str(path)) for path in (tiny, tiny / "unet"))
    assert whole.digest == part.digest and whole.kind == "UNet2DModel"
    student = seedling(load_teacher(str(tiny)), part, 3, copies=False)
    assert not same(student.network.state_dict(), load_teacher(str(tiny)).denoiser.network.state_dict())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_autoencoder_of_pixels_changes_nothing(channels):
    made, x = identity_autoencoder(channels), torch.randn(2, channels, 16, 16)
    assert float((made.decode(x).sample - x).abs().max()) < 2e-5
    assert float((made.encode(x).latent_dist.mode() - x).abs().max()) < 2e-5


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"sample_size": 16}, r"samples of shape \(1, 16, 16\), and those of .* are \(1, 8, 8\)"),
        ({"in_channels": 3, "out_channels": 3}, r"samples of shape \(3, 8, 8\)"),
        ({"out_channels": 3}, "takes 1 channels and gives 3"),
        ({"num_class_embeds": 4}, "the condition classes, and those of .* are nothing"),
        ({"_class_name": "FluxTransformer2DModel"}, "has the _class_name FluxTransformer2DModel; expected the config"),
        ({"_class_name": None}, "_class_name None; expected"),
        ({"_class_name": "UNet2DConditionModel"}, "is a UNet2DConditionModel, whose stock pipelines cannot hold"),
        ({"block_out_channels": [4096, 4096]}, "of more than 16,777,216 weights"),
        ({"block_out_channels": [2**40, 2**40], "norm_num_groups": 1}, "of more than 16,777,216 weights"),
        ({"block_out_channels": [5, 7]}, "makes no UNet2DModel"),
        ({"block_out_channels": [4, 4]}, "the network of .*student fails on an image"),
        ({"auto_map": {"AutoModel": "mine.Model"}}, "names code of its own"),
        ({"time_embedding_type": "fourier"}, "fourier"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(tiny, tmp_path, fields, told):
    folder = unet(tmp_path / "student", **fields)
    with pytest.raises(BootdiffError, match=told) as met:
        plan_distillation(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=folder))
    assert "\n" not in str(met.value) and not (tmp_path / "run").exists()


def test_code_beside_a_config_is_refused(tiny, smaller):
    (Path(smaller) / "model.py").write_text("print('run')")
    with pytest.raises(BootdiffError, match=r"model\.py is code"):
        read_architecture(smaller)


def test_a_folder_without_a_config_and_a_teacher_of_no_pipeline_are_refused(cli, tmp_path, tiny, smaller):
    words = ["distill", tiny, "--output", tmp_path / "run", "--set", f"student={tmp_path / 'nowhere'}"]
    result = cli(*words)
    assert result.code == 2 and "holds no config.json" in result.err and len(result.err.strip().splitlines()) == 1
    with pytest.raises(BootdiffError, match="is of no pipeline"):
        plan_distillation(Gaussian(0.5, 0.5, (1, 8, 8)), tmp_path / "run", BootSettings(**QUIET, student=smaller))


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["smaller", "dit"])
def test_a_student_is_trained_saved_opened_folded_and_exported(tiny, tmp_path, kind, request):
    from diffusers import DiffusionPipeline

    folder = request.getfixturevalue(kind)
    student = distill(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=folder))
    card = json.loads((tmp_path / "run" / "student" / "bootdiff.json").read_text())
    assert card["architecture"] == student.architecture and card["teacher"] == str(tiny)
    assert f"{sum(p.numel() for p in student.network.network.parameters()):,} parameters" in card["architecture"]
    eps = torch.randn(3, 1, 8, 8)
    loaded = load_student(tmp_path / "run", load_teacher(str(tiny)))
    assert loaded.architecture == student.architecture and torch.equal(loaded.sample(eps), student.sample(eps))
    save_student(loaded, tmp_path / "again")  # with all that its pipeline needs
    assert torch.equal(load_student(tmp_path / "again").sample(eps), student.sample(eps))
    exported, _ = open_student(str(tmp_path / "run" / "student"))
    torch.testing.assert_close(exported(eps, Condition()), student.sample(eps), rtol=1e-4, atol=1e-4)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "run" / "student")
    pipe.set_progress_bar_config(disable=True)
    words = {"class_labels": [0], "guidance_scale": 1} if kind == "dit" else {}
    image = pipe(num_inference_steps=1, generator=torch.Generator().manual_seed(7), output_type="np", **words).images
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    expected = (student.decode(student.sample(noise)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert abs(image - expected).max() < 1e-4
    text = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "architecture" in text and ("label 0 is the only one" in text) == (kind == "dit")


@pytest.mark.parametrize("kind", ["smaller", "dit"])
def test_every_command_takes_it(cli, tiny, tmp_path, kind, request):
    folder, run = request.getfixturevalue(kind), tmp_path / "run"
    words = ["distill", tiny, "--output", run, "--set", f"student={folder}", "--set", "steps=2"]
    assert cli(*words, "--set", "batch_size=4", "--set", "watch_every=1").code == 0
    again = cli(*words, "--set", "batch_size=4", "--set", "watch_every=1")
    assert again.code == 0 and again.out.startswith("done:")
    for words in (
        ["evaluate", run, "--num", 16, "--output", run / "evaluation.json", *FIGURES],
        ["report", run],
        ["export", run, "--output", tmp_path / "exported"],
        ["sample", tmp_path / "exported", "--num", 2, "--output", tmp_path / "a.png"],
        ["sample", run, "--refine", 1, "--num", 2, "--output", tmp_path / "b.png"],
    ):
        result = cli(*words)
        assert result.code == 0, (words[0], result.err)


def test_a_smaller_student_counts_less(tiny, tmp_path, smaller):
    spent = {}
    for name, student in (("own", None), ("smaller", smaller)):
        distill(str(tiny), tmp_path / "runs" / name, BootSettings(**QUIET, student=student))
        spent[name] = json.loads((tmp_path / "runs" / name / "done.json").read_text())["passes"]
    assert spent["own"]["teacher"] == spent["smaller"]["teacher"]
    assert spent["smaller"]["student"] < 0.6 * spent["own"]["student"]


def test_a_dry_run_says_what_its_student_costs(cli, tiny, tmp_path, smaller):
    """As the run then counts it, to a hundredth."""
    words = ["distill", tiny, "--output", tmp_path / "run", "--steps", 2, "--batch-size", 4, "--set", "watch_every=0"]
    said = cli(*words, "--set", f"student={smaller}", "--dry-run").out
    line = next(line for line in said.splitlines() if line.startswith("student: UNet2DModel of "))
    share = float(line.split("costs ")[1].split()[0])
    assert cli(*words, "--set", f"student={smaller}").code == 0
    spent = json.loads((tmp_path / "run" / "done.json").read_text())["passes"]["student"]
    assert spent == pytest.approx(share * 4 * (2 * 4 + 3), rel=0.01)


def test_a_deeper_student_with_all_of_the_teachers_shapes_counts_more(tiny, tmp_path):
    folder = unet(tmp_path / "deeper", layers_per_block=3)
    distill(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=folder))
    passes = json.loads((tmp_path / "run" / "done.json").read_text())["passes"]
    assert passes["student"] > 2 * 4 * 5


def test_a_run_of_two_methods_and_a_start_keep_the_architecture(tiny, tmp_path, smaller, dit):
    kind = find_method("boot+dm").settings
    words = {**QUIET, "fake_warmup": 0, "boot": {"steps": 2}}
    first = distill(str(tiny), tmp_path / "run", kind(**words, student=smaller), "boot+dm")
    passes = json.loads((tmp_path / "run" / "done.json").read_text())["passes"]
    assert first.architecture and passes["fake"] > passes["student"]  # the fake is of the teacher's size
    start = str(tmp_path / "run")
    later = distill(str(tiny), tmp_path / "later", BootSettings(**QUIET, start=start))
    assert later.architecture == first.architecture
    named = distill(str(tiny), tmp_path / "named", BootSettings(**QUIET, start=start, student=smaller))
    assert named.architecture == first.architecture
    with pytest.raises(BootdiffError, match=r"has another network than the one in .*dit"):
        distill(str(tiny), tmp_path / "other", BootSettings(**QUIET, start=start, student=dit))
    distill(str(tiny), tmp_path / "plain", BootSettings(**QUIET))
    with pytest.raises(BootdiffError, match="has another network"):
        distill(str(tiny), tmp_path / "other", BootSettings(**QUIET, start=str(tmp_path / "plain"), student=smaller))
    assert not (tmp_path / "other").exists()


def test_another_config_is_another_run_and_the_same_one_elsewhere_is_not(tiny, tmp_path, smaller):
    distill(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=smaller))
    moved = unet(tmp_path / "moved", **SMALLER)
    plan_distillation(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=moved))
    other = unet(tmp_path / "another", block_out_channels=[4, 16])
    for student in (other, None):
        with pytest.raises(BootdiffError, match="another run"):
            plan_distillation(str(tiny), tmp_path / "run", BootSettings(**QUIET, student=student))


def test_a_class_teachers_student_may_be_a_transformer_of_as_many_classes(tmp_path):
    teacher = str(tiny_pipelines.save_class_unet(tmp_path / "teacher"))
    shape = load_teacher(teacher).shape
    fields = {**DIT, "in_channels": shape[0], "out_channels": shape[0], "sample_size": shape[1]}
    folder = write(tmp_path / "dit", {**fields, "num_embeds_ada_norm": 4})
    student = distill(teacher, tmp_path / "run", BootSettings(**QUIET, student=folder, null_class=3, guidance_scale=2))
    assert student.adapter.takes == "classes" and student.conditions["labels"] == [0, 1, 2]
    exported, _ = open_student(str(tmp_path / "run" / "student"))
    eps, told = torch.randn(2, *shape), Condition({"classes": torch.tensor([0, 2])})
    torch.testing.assert_close(exported(eps, told), student.sample(eps, told), rtol=1e-4, atol=1e-4)
    with pytest.raises(BootdiffError, match=r"classes: 5, and those of .* are 4"):
        wrong = write(tmp_path / "wrong", {**fields, "num_embeds_ada_norm": 5})
        plan_distillation(teacher, tmp_path / "other", BootSettings(**QUIET, student=wrong))


def test_a_text_teachers_student_has_its_words_width(tmp_path):
    teacher = str(tiny_pipelines.save_sd(tmp_path / "teacher"))
    config = json.loads((Path(teacher) / "unet" / "config.json").read_text())
    (tmp_path / "words.txt").write_text("a cat\na dog\n")
    words = {**QUIET, "batch_size": 2, "prompts": str(tmp_path / "words.txt")}
    narrower = write(tmp_path / "narrower", {**config, "layers_per_block": 2})
    student = distill(teacher, tmp_path / "run", BootSettings(**words, student=narrower))
    loaded = load_student(tmp_path / "run")
    assert student.architecture == loaded.architecture and "UNet2DConditionModel" in loaded.architecture
    wrong = write(tmp_path / "wrong", {**config, "cross_attention_dim": 2 * config["cross_attention_dim"]})
    with pytest.raises(BootdiffError, match="conditions of shapes"):
        plan_distillation(teacher, tmp_path / "other", BootSettings(**words, student=wrong))
    with pytest.raises(BootdiffError, match="DiTTransformer2DModel, whose stock pipelines cannot hold a student"):
        plan_distillation(teacher, tmp_path / "other", BootSettings(**words, student=write(tmp_path / "dit", DIT)))


def test_direct_distillation_learns_with_a_transformer(tiny, tmp_path, dit):
    """Its loss halves: the student does not begin at its teacher, and pairs bring it there."""
    kind = find_method("direct").settings
    words = {"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "pairs": 64, "pair_steps": 4, "log_every": 1}
    distill(str(tiny), tmp_path / "run", kind(**words, watch_every=0, sample_every=0, student=dit), "direct")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


# --- methods that ask no teacher -------------------------------------------------------------------------------------


@pytest.fixture
def method(monkeypatch) -> str:
    monkeypatch.setitem(METHODS, "untaught", PLACE)
    return "untaught"


@pytest.mark.parametrize("source", ["noise", "images"])
def test_a_method_without_a_teacher_asks_none(tiny, tmp_path, method, capsys, source):
    teacher, calls = load_teacher(str(tiny)), []
    teacher.denoiser.network.register_forward_hook(lambda *call: calls.append(1))
    begin()  # notes are said once a process
    given = {"source": "images", "images": "digits"} if source == "images" else {"source": "noise"}
    words = {**QUIET, "watch_every": 1, "sample_every": 1, **given}
    student = distill(teacher, tmp_path / "run", UntaughtSettings(**words), method)
    assert calls == [] and "this method asks no teacher" in capsys.readouterr().err
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert set(done["passes"]) == {"student", "all"} and done["passes"]["student"] == 2 * 4 * 3
    card = json.loads((tmp_path / "run" / "student" / "bootdiff.json").read_text())
    assert card["teacher_free"] and card["data_free"] == (source == "noise") and student.teacher_free
    text = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "without a pass of its teacher" in text and "architecture and schedule only" in text
    assert load_student(tmp_path / "run").teacher_free and not (tmp_path / "run" / "watch.jsonl").exists()


def test_its_first_weights_are_drawn_or_the_teachers(tiny, method):
    teacher, own = load_teacher(str(tiny)), find_method("untaught")
    weights = teacher.denoiser.network.state_dict()

    def first(**words) -> dict:
        return own.new_student(teacher, UntaughtSettings(**words)).network.network.state_dict()

    assert same(first(seed=1), first(seed=1)) and not same(first(seed=1), first(seed=2))
    assert not torch.equal(first(seed=1)["conv_in.weight"], weights["conv_in.weight"])
    assert same(first(start_from="teacher"), weights)
    assert same(load_teacher(str(tiny)).denoiser.network.state_dict(), weights)


def test_its_student_may_be_of_another_architecture_with_all_weights_drawn(tiny, tmp_path, method, smaller):
    words = {**QUIET, "source": "noise", "student": smaller}
    student = distill(str(tiny), tmp_path / "run", UntaughtSettings(**words), method)
    assert student.teacher_free and "UNet2DModel" in student.architecture


def test_a_plain_modules_weights_are_drawn_too_or_it_is_refused():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, timestep):
            return self.layer(x)

    class Own(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

    teacher = CallableTeacher(Plain(), Cosine(), "sample", (4,))
    drawn, again = untaught(teacher, 1), untaught(teacher, 1)
    assert same(drawn.network.state_dict(), again.network.state_dict())
    assert not torch.equal(drawn.network.layer.weight, teacher.network.layer.weight)
    with pytest.raises(BootdiffError, match=r"cannot be drawn anew.*start_from=teacher"):
        untaught(CallableTeacher(Own(), Cosine(), "sample", (4,)), 1)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--source", "pairs"], "asks no teacher, and pairs are what a teacher makes"),
        (["--source", "noise", "--stop-when", "converged"], "no look can tell that it has converged"),
        (["--source", "noise", "--set", "start_from=teacher", "--set", "start=x"], "exclude each other"),
        (["--source", "noise", "--set", "start_from=nothing"], "start_from"),
    ],
)
def test_what_would_ask_the_teacher_is_refused_in_one_line(cli, tiny, tmp_path, method, words, told):
    result = cli("distill", tiny, "--output", tmp_path / "run", "--method", method, *words)
    assert result.code == 2 and told in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_other_methods_have_no_start_from(cli, tiny, tmp_path):
    result = cli("distill", tiny, "--output", tmp_path / "run", "--set", "start_from=teacher")
    assert result.code == 2 and "start_from" in result.err


def test_a_learned_table_of_times_is_no_hindrance(tmp_path, dit):
    """The teacher looks its timesteps up, and its student embeds them."""
    table = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    folder = save_teacher(tmp_path / "teacher", unet=table)
    student = distill(str(folder), tmp_path / "run", BootSettings(**QUIET, student=dit))
    assert torch.isfinite(student.sample(torch.randn(2, 1, 8, 8))).all()


def test_a_plans_memory_is_that_of_the_students_own_network(tiny, smaller):
    """Weights by its parameters, activations by its layers; a teacher is there with its own."""
    teacher, words = load_teacher(str(tiny)), BootSettings(**QUIET, ema_decay=0)
    stem = find_method("boot").stem(teacher, words.model_copy(update={"student": smaller}))
    whole, less = memory_need(teacher, words), memory_need(teacher, words, stem=stem)
    count, own = (sum(p.numel() for p in one.denoiser.network.parameters()) for one in (teacher, stem))
    assert whole.weights - less.weights == 16 * (count - own) > 0 and less.sample < whole.sample
    assert less.checkpointed < whole.checkpointed
