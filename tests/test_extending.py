"""An adapter that lives outside the package teaches bootdiff a pipeline, with nothing else changed."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import bootdiff
from bootdiff.core.condition import Condition
from bootdiff.data.sources import Ahead, Batch
from bootdiff.evaluation.figures import headings
from bootdiff.evaluation.known import judge_words
from bootdiff.evaluation.tally import Tally
from bootdiff.methods import registry as methods
from bootdiff.metrics import registry as metrics
from bootdiff.metrics.estimate import Estimate
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


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_guide_shows_the_examples_as_they_are(path):
    guide = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("extending.md", "own-teacher.md"))
    assert path.read_text(encoding="utf-8") in re.findall(r"```python\n(.*?)```", guide, re.S)


@pytest.fixture
def example(monkeypatch):
    """Imports an example anew; the methods and metrics that it registers are forgotten after the test."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(metrics, "_registered", {})

    def load(name: str):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield load
    methods.find_method.cache_clear()


def test_a_method_from_outside(example, tmp_path):
    blurred = example("my_method")
    words = {"steps": 4, "batch_size": 8, "pairs": 16, "pair_steps": 4, "watch_every": 0, "sample_every": 0}
    student = bootdiff.distill("digits", tmp_path / "run", blurred.BlurredSettings(**words), "blurred")
    again = bootdiff.load_student(tmp_path / "run")
    eps = bootdiff.sample_noise(0, 0, 2, student.shape)
    assert torch.equal(again.sample(eps), student.sample(eps)) and (tmp_path / "run/student/model_index.json").is_file()
    assert "blurred+dm" in methods.names() and methods.find_method("blurred+dm").settings.model_fields["blurred"]


def test_an_installed_package_brings_its_methods(monkeypatch, cli, tmp_path):
    from importlib import metadata

    monkeypatch.syspath_prepend(ROOT / "examples")
    entries = {
        "blurred": metadata.EntryPoint("blurred", "my_method:Blurred", methods.GROUP),
        "broken": metadata.EntryPoint("broken", "no_such_module:Broken", methods.GROUP),
        "other": metadata.EntryPoint("other", "my_method:BlurredSettings", methods.GROUP),
    }
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(methods, "_of_others", lambda: entries)
    methods.find_method.cache_clear()
    try:
        assert methods.find_method("blurred").sources == ("pairs",)
        for name, told in (
            ("broken", "no_such_module:Broken cannot be imported"),
            ("other", "declares no method other"),
        ):
            result = cli("distill", "digits", "--output", tmp_path / "run", "--method", name)
            assert result.code == 2 and told in result.err and len(result.err.strip().splitlines()) == 1
    finally:
        methods.find_method.cache_clear()


#: packages that are broken, by what their module says
BROKEN = {
    "raises": "raise RuntimeError('no luck')",
    "exits": "import sys\nsys.exit(0)",
    "garbage": "Found = 5",
    "settings": "from bootdiff.methods.method import method\n@method('settings', int)\nclass Found: ...",
    "unparsable": None,
    "two+dm": "Found = 5",
}


@pytest.fixture
def broken(monkeypatch, tmp_path, request):
    """Installs one broken method, and returns its name."""
    from importlib import metadata

    from bootdiff.system import notes

    source, place = BROKEN[request.param], f"broken_{request.param.replace('+', '_')}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{place}.py").write_text(source or "")
    entry = metadata.EntryPoint(request.param, f"{place}:Found" if source else "no place!", methods.GROUP)
    monkeypatch.setattr(methods, "_of_others", lambda: {request.param: entry})
    notes.begin()
    methods.find_method.cache_clear()
    yield request.param
    methods.find_method.cache_clear()


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
def test_a_broken_method_spoils_no_other(broken, cli, tmp_path):
    """It is left out of lists with one note, and only naming it is an error."""
    shown = cli("distill", "--help")
    assert shown.code == 0 and "progressive" in shown.out and shown.err.count("note:") == 1 and broken in shown.err
    misspelt = cli("distill", "digits", "--output", tmp_path / "run", "--method", "dirct")
    assert misspelt.code == 2 and "Did you mean 'direct'?" in misspelt.err and misspelt.err.count("note:") == 1
    plain = cli("distill", "digits", "--output", tmp_path / "run", "--dry-run", "--set", "steps=1")
    assert plain.code == 0 and not plain.err.count("Traceback") and broken not in plain.out
    named = cli("distill", "digits", "--output", tmp_path / "run", "--method", broken)
    assert named.code == 2 and len(named.err.strip().splitlines()) == 1
    assert any(words in named.err for words in ("cannot be imported", "cannot be chosen", "declares no method"))


def test_ctrl_c_while_a_package_is_imported_ends_the_command(monkeypatch, tmp_path):
    from importlib import metadata

    from bootdiff.core.plugins import loaded

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pressed.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loaded(metadata.EntryPoint("pressed", "pressed:Found", methods.GROUP), "method")


@pytest.mark.parametrize(
    "name, told",
    [
        ("a+b+c", r"one method, or at most two as in boot\+dm, got --method 'a\+b\+c'"),
        ("boot+", "one method, or at most two"),
        ("+boot", "one method, or at most two"),
        ("", "one method, or at most two"),
        ("boots", r"is not known; expected one of boot, direct, .*, freeflow, or two of them .* Did you mean 'boot'\?"),
    ],
)
def test_a_name_of_no_method_is_told_what_names_are(name, told):
    with pytest.raises(bootdiff.BootdiffError, match=told) as error:
        methods.find_method(name)
    assert str(error.value).count("direct,") <= 1  # each is listed once


def test_a_method_that_is_not_declared_is_refused():
    with pytest.raises(bootdiff.BootdiffError, match="declares no method"):
        bootdiff.register_method(int)


def test_a_metric_from_outside(example):
    example("my_metric")
    teacher = bootdiff.load_teacher("digits")
    judges, _ = bootdiff.Measurement(num=16).judges(teacher, None)
    tally = Tally()
    images = torch.zeros(16, 1, 8, 8)
    tally.add(judges, images + 0.1 * torch.randn(16, 1, 8, 8), Batch16())
    figures = tally.figures(judges)
    assert figures["mean_distance"].value > 0 and headings()["mean_distance"][0] == "mean distance"
    assert judge_words(judges)["metrics"] == ["mean_distance"]  # what was measured before lacks the figure
    with pytest.raises(bootdiff.BootdiffError, match=r"expected a bootdiff\.Metric"):
        bootdiff.register_metric(int)


@pytest.mark.parametrize(
    "measure, told",
    [
        (lambda samples, reference: 1 / 0, "raised ZeroDivisionError"),
        (lambda samples, reference: 3.0, "an Estimate of a finite value, got 3.0"),
        (lambda samples, reference: Estimate(float("nan"), 16, "none"), "an Estimate of a finite value, got"),
        (lambda samples, reference: Estimate("much", 16, "none"), "raised ValueError"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_named_in_one_line(measure, told, monkeypatch, cli, tmp_path):
    monkeypatch.setattr(metrics, "_registered", {"mine": bootdiff.Metric("mine", "mine", measure)})
    output = tmp_path / "a.json"
    result = cli("evaluate", "digits", "--num", 16, "--calls", 1, "--no-heun", "--output", output)
    assert result.code == 2 and "metric mine" in result.err and told in result.err, result.err
    assert result.err.count("error:") == 1 and "Traceback" not in result.err and not output.exists()


@pytest.mark.parametrize(
    "words, told",
    [({"students": "runs/first"}, "of a folder: evaluate_student"), ({"num": 0}, "at least one sample")],
)
def test_evaluate_says_what_it_expects_from_python(words, told):
    teacher = bootdiff.Gaussian(0.5, 0.5, (1, 4, 4))
    words = {"students": {}, "teacher": teacher, "t_range": (0.02, 0.9), **words}
    with pytest.raises(bootdiff.BootdiffError, match=told):
        bootdiff.evaluate(**words)


def test_a_setting_without_a_meaning_is_listed_without_one():
    from bootdiff.config.settings import describe

    class Mine(bootdiff.BootSettings):
        mine: int = 3

    assert ("mine", "3", "") in describe(Mine)


class Batch16:
    """What is known of the samples 0 to 15."""

    start, labels, texts, groups = 0, None, None, None


def test_a_sampler_from_outside(example):
    doubled = example("my_sampler").Doubled
    teacher = bootdiff.Gaussian(0.5, 0.5, (1, 4, 4))
    student = bootdiff.Student.from_teacher(teacher, 0.02, 0.9)
    table = bootdiff.evaluate({"doubled": doubled(student)}, teacher, (0.02, 0.9), num=8, calls=(1,), heun=False)
    (row,) = (row for row in table["rows"] if row["kind"] == "student")
    assert row["name"] == "doubled, 2 calls" and row["sampler"] == "few steps" and row["calls"] == 2
    assert row["title"] == "doubled" and row["figures"]["path_error"]["value"] > 0


def test_a_source_from_outside(example, tmp_path):
    fresh = example("my_source").FreshPairs
    teacher = bootdiff.Gaussian(0.5, 0.5, (4,))
    words = {"steps": 3, "batch_size": 8, "watch_every": 0, "sample_every": 0}
    asked = methods.find_method("direct").settings(**words)
    bootdiff.distill(teacher, tmp_path / "run", asked, "direct", source=fresh(teacher))
    assert not (tmp_path / "run/pairs").exists()
    with pytest.raises(bootdiff.BootdiffError, match="source"):  # of other batches
        bootdiff.distill(teacher, tmp_path / "run", asked, "direct", source=fresh(teacher, steps=5))
    with pytest.raises(bootdiff.BootdiffError, match="method boot learns from noise, not from pairs"):
        bootdiff.distill(teacher, tmp_path / "boot", bootdiff.BootSettings(**words), source=fresh(teacher))
    with pytest.raises(bootdiff.BootdiffError, match="got a int without 'kind'"):
        bootdiff.distill(teacher, tmp_path / "int", asked, "direct", source=3)


def _batch(words):
    """Returns a batch of pairs of two numbers each, with some of its parts replaced."""

    def batch(draw):
        noise = draw.normal("noise", (2,))
        return Batch(**{"noise": noise, "data": noise, **{key: make(noise) for key, make in words.items()}})

    return batch


@pytest.mark.parametrize("made_ahead", [False, True])
@pytest.mark.parametrize(
    "batch, told",
    [
        (
            _batch({"data": lambda noise: torch.zeros(len(noise), 1)}),
            r"its data should .* shape \(2, 2\), got \(2, 1\)",
        ),
        (
            _batch({"data": lambda noise: noise[:1]}),
            r"its data .* shape \(2, 2\), got \(1, 2\)",
        ),
        (_batch({"data": lambda noise: noise.to(torch.uint8)}), r"its data .* got \(2, 2\) in torch.uint8"),
        (_batch({"data": lambda noise: None}), "its data .* got None"),
        (_batch({"noise": lambda noise: noise[:, :1]}), r"its noise should .* got \(2, 1\)"),
        (_batch({"condition": lambda noise: {"labels": noise}}), "should return a bootdiff Batch with a Condition"),
        (_batch({"condition": lambda noise: Condition({"labels": noise[:1]})}), "gives 1 rows of the condition labels"),
        (lambda draw: None, "should return a bootdiff Batch with a Condition, got None"),
        (lambda draw: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_source_of_unfit_batches_is_refused_in_one_line(batch, told, made_ahead, tmp_path):
    """One that has everything from the start is tried before anything is written."""

    class Mine:
        kind, data_free = "pairs", True
        modules = staticmethod(tuple)
        ahead = staticmethod(lambda step, batch_size: None)

    if made_ahead:
        Mine.batch = staticmethod(batch)
        source = Mine()
    else:
        source = type("Mine", (Mine, Ahead), {"batch": staticmethod(batch)})()
    asked = methods.find_method("direct").settings(steps=1, batch_size=2, watch_every=0, sample_every=0)
    if made_ahead and "raised" in told:
        pytest.skip("a source's own error while the run goes on is its own")
    with pytest.raises(bootdiff.BootdiffError, match=f"^Mine.batch.*{told}"):
        bootdiff.distill(bootdiff.Gaussian(0.5, 0.5, (2,)), tmp_path / "run", asked, "direct", source=source)
    assert made_ahead or not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, told", [({"data_free": "yes"}, "data_free should be True"), ({"kind": 5}, "kind should be a word")]
)
def test_a_source_says_what_it_is(words, told, tmp_path):
    parts = {"kind": "pairs", "data_free": True, "modules": tuple, "batch": None, "ahead": None}
    mine = type("Mine", (), {**parts, **words})
    for source, why in ((mine(), told), (mine, "got the class Mine")):
        with pytest.raises(bootdiff.BootdiffError, match=why):
            bootdiff.distill(bootdiff.Gaussian(0.5, 0.5, (2,)), tmp_path, method="direct", source=source)


def test_methods_lists_each_method_in_one_line(cli, example):
    """Those of a program, too."""
    example("my_method")
    listed = cli("methods")
    assert listed.code == 0 and not listed.err
    head, *lines, _ = listed.out.strip().splitlines()
    rows = {line.split()[0]: re.split(r"  +", line) for line in lines}
    assert list(rows) == methods.single_names() and head.startswith("method")
    assert rows["boot"][1:] == ["noise", "path", "1", sys.modules["bootdiff.methods.boot"].__doc__.splitlines()[0]]
    assert rows["direct"][1:4] == ["pairs", "denoising", "1"] and rows["dm"][2] == "of any kind"
    assert rows["consistency"][1:4] == ["pairs or images", "consistency", "1 or more"]
    assert rows["consistency-training"][1] == "images, no teacher" and rows["blurred"][1] == "pairs"
