"""Comparisons: diffusers' samplers on any teacher, a table that resumes, figures that no process count changes."""

import csv
import json
import subprocess

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from PIL import Image

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.distillation.distill import distill
from bootdiff.evaluation.entries import short_names
from bootdiff.methods.boot import BootSettings
from bootdiff.samplers.kinds import kinds_for
from bootdiff.samplers.stock import all_samplers, candidates, read_samplers
from bootdiff.schedules import EDM, Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.solvers import Heun, even_times, solve
from bootdiff.teachers import Gaussian, load_teacher
from tiny_unet import save_teacher
from toys import command

NONE = Condition()
FEW = ["--num", "24", "--no-heun", "--samplers", "unipc:3"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "run"
    distill(str(tiny), folder, BootSettings(steps=2, batch_size=4, sample_every=0))
    return folder


def candidate(teacher, name: str, steps: int, spacing: str | None = None):
    return next(one for one in candidates(teacher, name, steps) if spacing in (None, one.row.spacing))


@pytest.mark.parametrize(
    ("schedule", "slack"), [(Cosine(), 0.06), (Linear(), 0.08), (RectifiedFlow(2.0), 0.06), (EDM(), 0.12)]
)
def test_every_sampler_reaches_the_data_of_a_gaussian(schedule, slack):
    """Mean 1 and deviation 0.5, up to the samplers' own errors at 50 steps."""
    teacher = Gaussian(1.0, 0.5, (16,), schedule)
    eps = sample_noise(0, 0, 256, (16,))
    for name in kinds_for(teacher):
        made = [one.sample(eps, NONE) for one in candidates(teacher, name, 50)]
        errors = [max(abs(float(x.mean()) - 1), abs(float(x.std()) - 0.5)) for x in made]
        assert min(errors) < slack, (name, errors)


def test_higher_orders_are_nearer_to_the_exact_path():
    teacher = Gaussian(1.0, 0.5, (16,), Cosine())
    eps = sample_noise(0, 0, 64, (16,))
    exact = solve(teacher, eps, even_times(200, *teacher.t_range), Heun())[-1]
    off = {
        name: float((candidate(teacher, name, 20, "trailing").sample(eps, NONE) - exact).square().mean())
        for name in ("ddim", "dpm-solver++", "unipc")
    }
    assert off["dpm-solver++"] < 0.5 * off["ddim"] and off["unipc"] < 0.5 * off["ddim"], off


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("ddim", DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
        ("dpm-solver++", DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    ],
)
def test_a_row_is_what_stock_diffusers_makes(tmp_path, prediction, name, kind, fields):
    """The network's raw answers under the scheduler's own prediction type, without ours."""
    folder = save_teacher(tmp_path / "t", beta_schedule="linear", prediction_type=prediction, clip_sample=False)
    eps = sample_noise(3, 0, 4, (1, 8, 8))
    ours = candidate(load_teacher(str(folder)), name, 5, "trailing").sample(eps, NONE)
    network = UNet2DModel.from_pretrained(folder / "unet")
    scheduler = kind(beta_schedule="linear", prediction_type=prediction, timestep_spacing="trailing", **fields)
    scheduler.set_timesteps(5)
    x = eps
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_ancestral_noise_does_not_depend_on_the_batch():
    teacher = Gaussian(0.0, 1.0, (4,), Cosine())
    eps = sample_noise(0, 0, 6, (4,))
    sampler = candidate(teacher, "ddpm", 8)
    whole, part = sampler.sample(eps, NONE), sampler.sample(eps[2:4], NONE)
    torch.testing.assert_close(whole[2:4], part)
    assert sampler.same_path is False


def test_calls_are_counted_as_the_scheduler_makes_them():
    teacher = Gaussian(0.0, 1.0, (4,), Cosine())
    assert candidate(teacher, "heun", 10).row.calls == 19 and candidate(teacher, "pndm", 10).row.calls == 11


def test_samplers_are_named_or_chosen():
    known = all_samplers(Gaussian())
    assert read_samplers(["ddim:4,1", "ddim:4 heun:3"], known) == {"ddim": (1, 4), "heun": (3,)}
    assert all_samplers(Gaussian(schedule=VarianceExploding(0.01, 10.0))) == ["ddim"]


def test_names_are_as_long_as_they_must_be():
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["x/run", "y/run"]) == ["x/run", "y/run"]


def test_a_comparison_is_a_folder_that_resumes(cli, run, tmp_path):
    output = tmp_path / "compared"
    done = cli("compare", run, run / "student", "--output", output, *FEW)
    assert done.code == 0, done.err
    result = json.loads((output / "compare.json").read_text())
    names = [row["name"] for row in result["rows"]]
    assert names == ["DDIM 1", "UniPC 3", "DDIM 4", "run", "student"]
    assert [row["calls"] for row in result["rows"]] == [1, 3, 4, 1, 1]
    first, second = result["rows"][-2:]
    assert first["path_error"] == pytest.approx(second["path_error"], rel=1e-4)  # a run and its export are one student
    assert all(row["milliseconds"]["value"] > 0 and row["images_per_second"] > 0 for row in result["rows"])
    assert Image.open(output / "samples.png").size[0] > 100
    table = list(csv.DictReader((output / "compare.csv").read_text().splitlines()))
    assert [row["sampler"] for row in table] == names and "| UniPC 3 |" in (output / "compare.md").read_text()

    assert all(row["figures"]["path_error"]["num"] == 24 for row in result["rows"])

    assert cli("compare", run, run / "student", "--output", output, *FEW).code == 0
    again = json.loads((output / "compare.json").read_text())["rows"]
    assert [row["figures"] for row in again] == [row["figures"] for row in result["rows"]]

    other = cli("compare", run, run / "student", "--output", output, "--num", "25")
    assert other.code == 2 and "holds another run" in other.err and "num is 24 there and 25 here" in other.err


def test_figures_are_stated_with_estimator_size_and_interval(cli, tmp_path):
    distill("digits", tmp_path / "run", BootSettings(steps=1, batch_size=4, sample_every=0))
    done = cli("compare", tmp_path / "run", "--output", tmp_path / "c", "--num", "80", "--calls", "2", "--no-heun")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())["rows"]
    row = next(row for row in rows if row["name"] == "DDIM 4")
    for name in ("frechet_distance", "kid", "precision", "recall", "inception_score", "diversity"):
        figure = row["figures"][name]
        assert figure["num"] == 80 or name == "recall", (name, figure)
        assert figure["estimator"] and "value" in figure
    low, value, high = (row["figures"]["precision"][key] for key in ("low", "value", "high"))
    assert low <= value <= high
    lines = [line for line in done.out.splitlines() if line.startswith((" DDIM 4", " run"))]
    assert len(lines) == 2 and f"{value:.3f}" in lines[0], "a row is a line of the terminal"
    assert " ± " not in done.out and " ± " in (tmp_path / "c" / "compare.md").read_text()
    assert (tmp_path / "c" / "quality.png").exists()
    fewer = cli("compare", tmp_path / "run", "--output", tmp_path / "d", "--num", "40", "--calls", "1", "--no-heun")
    assert fewer.code == 0 and "40 samples for 64 features: their covariance is singular" in fewer.err


def test_names_that_differ_by_a_sign_have_rows_of_their_own(cli, tiny, tmp_path):
    for number, name in enumerate(("a_1", "a-1")):
        distill(str(tiny), tmp_path / name, BootSettings(steps=2, batch_size=4, sample_every=0, seed=number))
    done = cli("compare", tmp_path / "a_1", tmp_path / "a-1", "--output", tmp_path / "c", *FEW)
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())["rows"][-2:]
    assert [row["name"] for row in rows] == ["a_1", "a-1"] and rows[0]["path_error"] != rows[1]["path_error"]


def test_a_short_table_of_timesteps_has_short_rows(cli, tmp_path):
    """A hundred timesteps cannot be visited in 250 steps."""
    folder = save_teacher(tmp_path / "short", num_train_timesteps=100)
    distill(str(folder), tmp_path / "run", BootSettings(steps=1, batch_size=2, sample_every=0))
    refused = cli("compare", tmp_path / "run", "--output", tmp_path / "c", "--samplers", "unipc:200")
    done = cli("compare", tmp_path / "run", "--num", 4, "--no-heun", "--output", tmp_path / "c")
    assert done.code == 0, done.err
    assert refused.code == 2 and "steps from 1 to 100, got 'unipc:200'" in refused.err


def test_another_reference_under_the_same_name_is_another_comparison(cli, run, tmp_path):
    from bootdiff.metrics.frechet import Statistics

    words = ["--features", "pixels", "--reference", tmp_path / "r.npz", "--output", tmp_path / "c"]
    for deviation in (1.0, 2.0):
        Statistics(torch.zeros(64).double(), deviation * torch.eye(64).double(), 500).save(
            tmp_path / "r.npz", "pixels-1x8x8"
        )
        done = cli("compare", run, *words, "--num", 12, "--calls", "1", "--no-heun")
        assert done.code == (0 if deviation == 1 else 2), done.err
    assert "has changed since: reference" in done.err


def test_mistakes_are_told_in_a_line(cli, run, tmp_path):
    colour = save_teacher(tmp_path / "colour", channels=3)
    other = save_teacher(tmp_path / "other", seed=5)
    distill(str(other), tmp_path / "others", BootSettings(steps=1, batch_size=2, sample_every=0))
    distill("digits", digits := tmp_path / "digits", BootSettings(steps=1, batch_size=2, sample_every=0))
    cases = {
        "is named twice": [run, run],
        "there is no sampler 'dim'": [run, "--samplers", "dim:4"],
        "expects NAME:STEPS,STEPS": [run, "--samplers", "ddim:0"],
        "is a student of another teacher": [run, tmp_path / "others"],
        "it is a student of another teacher": [run, "--teacher", colour],
        "conditioned on nothing and digits-class on classes": [digits, "--teacher", "digits-class"],
        "no folder at": [tmp_path / "nowhere"],
        "--features (features=) is missing": [run, "--reference", "digits"],
    }
    for words, arguments in cases.items():
        result = cli("compare", *arguments, "--output", tmp_path / "c", "--num", "8")
        assert result.code == 2 and words in result.err and len(result.err.strip().splitlines()) == 1, result.err
        assert not (tmp_path / "c").exists()


def test_students_of_different_weights_are_not_compared(cli, tmp_path):
    for weight in (1, 2):
        fields = {"steps": 1, "batch_size": 2, "sample_every": 0, "classes": [1, 2]}
        distill("digits-class", tmp_path / f"w{weight}", BootSettings(guidance_scale=weight, **fields))
    result = cli("compare", tmp_path / "w1", tmp_path / "w2", "--output", tmp_path / "c")
    assert result.code == 2 and "guidance weight 1 and" in result.err and "compare students of one weight" in result.err
    distill("digits-class", tmp_path / "range", BootSettings(guidance_range=[1, 4], **fields))
    words = ["--guidance-scale", 1, "--num", 12, "--calls", "1", "--no-heun", "--output", tmp_path / "c"]
    both = cli("compare", tmp_path / "w1", tmp_path / "range", *words)
    assert both.code == 0, both.err
    rows = json.loads((tmp_path / "c" / "compare.json").read_text())["rows"]
    assert [row["name"] for row in rows if row["kind"] == "student"] == ["w1", "range"]


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_find_the_same_figures(cli, run, tmp_path):
    """Each makes some of the batches; what they know together is what one process knows."""
    words = ["evaluate", run, "--num-samples", "1100", "--calls", "1", "--no-heun"]
    words += ["--features", "digits", "--reference", "digits"]
    alone = cli(*words, "--output", tmp_path / "one.json")
    assert alone.code == 0, alone.err
    both = subprocess.run(
        command(*words, "--output", tmp_path / "two.json", processes=2), capture_output=True, text=True
    )
    assert both.returncode == 0, both.stderr[-2000:]
    assert alone.out.count(" student  ") == both.stdout.count(" student  ") == 1, "the first process speaks for all"
    results = [json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in ("one", "two")]
    fewer = ["compare", run, "--num-samples", "24", "--no-heun", "--output", tmp_path / "c"]
    done = subprocess.run(command(*fewer, processes=2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]  # one of the two has no batch to make
    assert len(json.loads((tmp_path / "c" / "compare.json").read_text())["rows"]) == 5
    theirs = {row["name"]: row for row in results[1]}  # a process of its own also has DDIM's rows of 10 and 50 steps
    for one, two in ((row, theirs[row["name"]]) for row in results[0]):
        for name, figure in one["figures"].items():
            assert two["figures"][name]["value"] == pytest.approx(figure["value"], rel=1e-5), name
            assert two["figures"][name]["num"] == figure["num"]
        assert two["path_error"] == pytest.approx(one["path_error"], rel=1e-5)


@pytest.mark.slow
def test_a_clip_score_reads_the_prompts_of_the_run(cli, run, clip_folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("a bold one\na thin two\n")
    fields = {"steps": 1, "batch_size": 2, "sample_every": 0, "prompts": str(tmp_path / "prompts.txt")}
    distill("digits-text", tmp_path / "text", BootSettings(**fields))
    words = ["--num", "6", "--no-heun", "--clip", clip_folder, "--output", tmp_path / "e.json"]
    done = cli("evaluate", tmp_path / "text", *words)
    assert done.code == 0, done.err
    figure = json.loads((tmp_path / "e.json").read_text())["rows"][-1]["figures"]["clip_score"]
    assert 0 <= figure["value"] <= 100 and figure["num"] == 6
    assert "CLIP score" in done.out and f"{figure['value']:.2f}" in done.out
    none = cli("evaluate", run, *words)
    assert none.code == 2 and "--clip (clip=) measures how well images fit their prompts" in none.err
