"""Benchmarks at equal budgets: lengths by passes, runs, tables, what is added later, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from bootdiff.benchmark.budget import scaled, within
from bootdiff.benchmark.plan import Asked, BenchmarkPlan, checked, identity_of, settings_of
from bootdiff.benchmark.recipes import shipped
from bootdiff.benchmark.results import Result, mark_of, rows_of
from bootdiff.benchmark.run import distil
from bootdiff.benchmark.table import differing
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.evaluation.measurement import Measurement
from bootdiff.teachers import load_teacher
from tiny_pipelines import save_sd

#: methods of a teacher of pixels that learn without images
OF_PIXELS = [name for name in shipped() if name not in ("lcm", "consistency-training")]
PASSES = 400_000


@pytest.fixture(scope="module")
def digits() -> BenchmarkPlan:
    return BenchmarkPlan(Asked("digits", Path("never")), load_teacher("digits"), {}, {})


@pytest.mark.parametrize("method", OF_PIXELS)
def test_a_run_costs_its_budget_and_not_a_pass_more(digits, method):
    words = checked(digits.asked, method, digits.teacher)
    found = digits.with_passes(method, words, PASSES)
    cost = digits.count(settings_of(method, found))
    assert 0.98 * PASSES < cost <= PASSES
    others = {key for key in words if found[key] != words[key]}
    assert others <= {"steps", "pairs", "fake_warmup", "warmup_steps", "boot"}


def test_lengths_of_stages_grow_alike_and_nothing_else_does():
    words = {"steps": 1000, "pairs": 300, "delta": 0.06, "fake_warmup": 0, "boot": {"steps": 10, "learning_rate": 1.0}}
    assert scaled(words, 0.5) == {
        **{"steps": 500, "pairs": 150, "delta": 0.06, "fake_warmup": 0},
        "boot": {"steps": 5, "learning_rate": 1.0},
    }
    assert scaled(words, 1e-6)["steps"] == 1


def test_where_the_cost_does_not_grow_in_proportion_the_budget_is_met_all_the_same():
    def count(words):
        return 500 + words["steps"] ** 2

    found = within({"steps": 10}, 10_000, lambda words: words, count)
    assert 0.97 * 10_000 < count(found) <= 10_000
    with pytest.raises(BootdiffError, match="too few for its shortest run, which costs 501"):
        within({"steps": 10}, 400, lambda words: words, count)


def test_every_recipe_that_ships_is_of_a_method_and_is_packed():
    for method in shipped():
        settings_of(method, {}, yaml.safe_load((Path("src/bootdiff/benchmark/recipes") / f"{method}.yaml").read_text()))


def result(method: str, seed: int, rows: list[dict]) -> Result:
    whole = [
        {"stage": None, "path_error": None, "images_per_second": 1.0, "call_equivalence": None, **row} for row in rows
    ]
    return Result(method, "passes", seed, Path("x"), whole, [], 10.0, 1.0, "noise", 5)


def row(calls: int, distance: float, **words) -> dict:
    return {"calls": calls, "figures": {"frechet_distance": {"value": distance}}, **words}


def test_rows_are_means_over_seeds_the_best_first_and_a_dash_where_a_method_has_none():
    results = [
        result("slow", 0, [row(1, 4.0), row(2, 2.0)]),
        result("slow", 1, [row(1, 6.0), row(2, 3.0)]),
        result("quick", 0, [row(1, 3.0)]),
        result("rounds", 0, [row(4, 9.0, stage="n4"), row(2, 1.0, stage="n2"), row(1, 8.0)]),
        result("whole", 0, [row(4, 7.0)]),
    ]
    found = [(one["calls"], one["method"], one["figures"].get("frechet_distance")) for one in rows_of(results)]
    assert [(calls, method) for calls, method, _ in found] == [
        *[(1, "quick"), (1, "slow"), (1, "rounds"), (1, "whole")],
        *[(2, "rounds"), (2, "slow"), (2, "quick"), (2, "whole")],
        *[(4, "whole"), (4, "rounds")],
    ]
    assert found[1][2] == {"value": 5.0, "low": 4.0, "high": 6.0}
    assert found[3][2] is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_module):
    """A benchmark of two methods, with what the command printed."""
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    words = command(tiny_module, folder, "boot,direct")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tiny_module, folder, done.stdout


def command(teacher: Path, folder: Path, methods: str, *more: object) -> list[str]:
    import sys

    asked = ("--methods", methods, "--passes", 3000, "--num", 16, "--calls", "1", "--output", folder, *more)
    return [sys.executable, "-m", "bootdiff", "benchmark", *map(str, (teacher, *asked))]


@pytest.fixture(scope="module")
def tiny_module(tmp_path_factory) -> Path:
    from tiny_unet import save_teacher

    return save_teacher(tmp_path_factory.mktemp("tiny") / "teacher")


def test_two_methods_cost_alike_and_stand_in_one_table(finished):
    _, folder, out = finished
    told = json.loads((folder / "benchmark.json").read_text())
    assert {one["method"]: one["source"] for one in told["rows"]} == {"boot": "noise", "direct": "pairs"}
    for one in told["rows"]:
        assert 2700 < one["passes"] <= 3000 and one["calls"] == 1 and one["peak_memory"] > 2**20
        assert one["figures"]["path_error"]["value"] >= 0
    errors = [one["figures"]["path_error"]["value"] for one in told["rows"]]
    page = (folder / "benchmark.md").read_text()
    assert errors == sorted(errors) and "worth calls" not in page and "stand by their path errors" in page
    assert "## One call, 3,000 passes a run" in page and "| boot |" in page and "samples-passes.png" in page
    assert "One call, 3,000 passes a run" in out and (folder / "samples-passes.png").exists()


def test_it_resumes_and_takes_another_method_later(finished, cli):
    teacher, folder, _ = finished
    before = (folder / "passes" / "boot" / "seed-0" / "done.json").stat().st_mtime_ns
    done = cli(*command(teacher, folder, "boot,direct")[3:])
    assert done.code == 0 and done.out.count("(done)") == 2
    later = subprocess.run(command(teacher, folder, "consistency"), capture_output=True, text=True)
    assert later.returncode == 0, later.stderr
    rows = json.loads((folder / "benchmark.json").read_text())["rows"]
    assert {one["method"] for one in rows} == {"boot", "direct", "consistency"}
    assert (folder / "passes" / "boot" / "seed-0" / "done.json").stat().st_mtime_ns == before


def test_a_run_that_fails_is_said_and_the_others_go_on(finished):
    teacher, folder, _ = finished
    foreign = folder / "passes" / "direct" / "seed-1"
    foreign.mkdir(parents=True)
    (foreign / "letter.txt").write_text("mine")
    more = ("--training-seeds", "1")
    done = subprocess.run(command(teacher, folder, "direct,boot", *more), capture_output=True, text=True)
    assert done.returncode == 0 and "letter.txt" in done.stderr and "direct: its training failed" in done.stderr
    told = json.loads((folder / "benchmark.json").read_text())
    assert list(told["failed"]) == ["passes/direct/seed-1"]
    assert (foreign / "letter.txt").read_text() == "mine"
    assert {one["method"]: one["seeds"] for one in told["rows"]}["boot"] == [0, 1]
    assert "passes/direct/seed-1 has no figures" in (folder / "benchmark.md").read_text()


def test_a_run_with_a_damaged_file_is_said_and_the_table_has_the_others(finished, cli):
    teacher, folder, _ = finished
    file = folder / "passes" / "direct" / "seed-0" / "done.json"
    whole = file.read_text()
    file.write_text("{")
    try:
        done = cli(*command(teacher, folder, "boot")[3:])
        told = json.loads((folder / "benchmark.json").read_text())
        alone = cli(*command(teacher, folder, "direct")[3:])
    finally:
        file.write_text(whole)
    assert done.code == 0 and "boot" in {row["method"] for row in told["rows"]}
    assert "direct" not in {row["method"] for row in told["rows"] if row["seeds"] == [0]}
    assert "done.json" in told["failed"]["passes/direct/seed-0"]
    assert alone.code == 2 and "no run has figures" in alone.err


def test_a_short_run_with_other_settings_says_nothing_about_the_speed_and_is_refused(finished, cli):
    teacher, folder, _ = finished
    file = folder / "trials" / "boot" / "0-settings.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"steps": 3, "delta": 0.3}))
    try:
        found = cli(*command(teacher, folder, "boot", "--minutes", "1", "--dry-run")[3:])
    finally:
        file.unlink()
    assert found.code == 2 and "trials/boot/0 was made with" in found.err


def test_what_prompts_ask_for_is_measured_as_it_was_before(clip_folder, tmp_path):
    """Figures of other labels, or by another CLIP model, are none of this benchmark's."""
    teacher = load_teacher(str(save_sd(tmp_path / "sd")))
    marks = set()
    for labels in (None, [1, 2], [2, 1]):
        for clip in (None, str(clip_folder)):
            measured = Measurement(num=16, calls=(1,), labels=labels, clip=clip)
            asked = Asked("sd", tmp_path / "out", teacher, ["boot"], 3000, shared={"prompts": "x"}, measured=measured)
            marks.add(json.dumps(mark_of(identity_of(asked, teacher)), sort_keys=True))
    assert len(marks) == 6


def test_a_clip_score_needs_prompts(cli, tiny_module, clip_folder, tmp_path):
    found = cli(*command(tiny_module, tmp_path / "out", "boot", "--clip", clip_folder)[3:])
    assert found.code == 2 and "measures how well images fit their prompts" in found.err
    assert not (tmp_path / "out").exists()


def test_images_of_different_guidance_are_said_to_be_no_match():
    rows = [{"figures": {"frechet_distance": {}}}]
    runs = [Result(m, "passes", 0, Path(m), rows, [], 1.0, 1.0, "noise", None, w) for m, w in (("a", 1.0), ("b", 2.5))]
    assert differing(runs[:1]) == "" and "a 1, b 2.5" in differing(runs)


@pytest.mark.parametrize(
    "more, words",
    [
        (("--num", "17"), "is a benchmark with num 16, not 17"),
        (("--passes", "4000"), "of 3,000 passes a run, not of 4,000"),
        (("--set", "boot.delta=0.1"), "seed-0 was made with delta 0.06, and 0.1 is asked for; remove that run and"),
    ],
)
def test_another_benchmark_in_the_same_folder_is_refused(finished, cli, more, words):
    teacher, folder, _ = finished
    refused = cli(*command(teacher, folder, "boot", *more)[3:])
    assert refused.code == 2 and words in refused.err


@pytest.mark.parametrize(
    "more, words",
    [
        (("--methods", "boot"), "needs a budget"),
        (("--methods", "bot", "--passes", 9), "Did you mean 'boot'?"),
        (("--methods", "boot,,tract", "--passes", 9), "--methods expects names"),
        (("--methods", "boot,boot", "--passes", 9), "each once"),
        (("--methods", "boot", "--passes", 9), "boot: 9 passes are too few for its shortest run"),
        (("--methods", "boot", "--passes", 9999, "--set", "boot=3"), "--set expects METHOD.KEY=VALUE here"),
        (("--methods", "boot", "--passes", 9999, "--set", "boot.stepz=3"), "Did you mean 'steps'?"),
        (("--methods", "boot", "--passes", 9999, "--set", "path.steps=3"), "path is none of the methods boot"),
        (("--methods", "lcm", "--passes", 9999), "lcm is for latent Stable Diffusion"),
        (("--methods", "boot", "--passes", 9999, "--recipes", "nowhere"), "expected a folder with files METHOD.yaml"),
        (("--methods", "boot", "--passes", 9999, "--training-seeds", "0,x"), "--training-seeds expects whole numbers"),
        (("--methods", "boot", "--minutes", "inf"), "--minutes expects a number of minutes"),
        (("--passes", 9999, "--set", "bot.delta=0.1"), "bot is none of the methods boot"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli, tiny_module, tmp_path, more, words):
    done = cli("benchmark", tiny_module, "--output", tmp_path / "out", *more)
    assert done.code == 2 and words in done.err
    assert done.err.strip().splitlines()[-1].startswith("bootdiff: error:") and not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(cli, tiny_module, tmp_path):
    (tmp_path / "photo.jpg").touch()
    done = cli("benchmark", tiny_module, "--methods", "boot", "--passes", 9999, "--output", tmp_path)
    assert done.code == 2 and "is no benchmark (it holds photo.jpg)" in done.err


def test_a_dry_run_lists_the_runs_and_writes_nothing(cli, tiny_module, tmp_path):
    asked = ("--methods", "boot,direct", "--passes", 3000, "--training-seeds", "0,1", "--minutes", 1)
    done = cli("benchmark", tiny_module, "--output", tmp_path / "out", *asked, "--dry-run")
    assert done.code == 0 and done.out.count("seed-1") == 4 and "budget: 3,000 passes a run" in done.out
    assert "nothing was written" in done.out and not (tmp_path / "out").exists()


def test_without_a_list_what_does_not_fit_is_left_out_with_its_reason(cli, tiny_module, tmp_path):
    done = cli("benchmark", tiny_module, "--passes", 60_000, "--output", tmp_path / "out", "--dry-run")
    assert done.code == 0 and "lcm is left out" in done.err and "consistency-training is left out" in done.err
    assert "boot, seed 0" in done.out and "direct, seed 0" in done.out


def test_ctrl_c_reaches_the_run_and_ends_the_benchmark(monkeypatch, digits):
    class Child:
        sent: list[int] = []  # noqa: RUF012

        def __init__(self, words):
            self.asked = False

        def wait(self):
            if not self.asked:
                self.asked = True
                raise KeyboardInterrupt
            return 130

        def poll(self):
            return None

        def send_signal(self, number):
            self.sent.append(number)

    monkeypatch.setattr(subprocess, "Popen", Child)
    with pytest.raises(Interrupted, match="run the same command to go on"):
        distil(digits, "boot", Path("settings.yaml"), Path("run"))
    assert Child.sent == [signal.SIGINT]


@pytest.mark.slow
def test_a_budget_in_minutes_is_kept_roughly(tmp_path, tiny_module):
    asked = ("--methods", "boot", "--minutes", 0.3, "--num", 16, "--calls", "1", "--output", tmp_path / "out")
    import sys

    words = [sys.executable, "-m", "bootdiff", "benchmark", *map(str, (tiny_module, *asked))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (one,) = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert one["budget"] == "minutes" and 4 < one["seconds"] < 60
