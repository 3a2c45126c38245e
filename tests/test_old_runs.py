"""Folders that an earlier version wrote: today's code opens them, goes on with them, and makes the same images."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bootdiff import Classes, Student, load_student, load_teacher, sample_noise
from bootdiff.storage.runs import Run, trained_seconds

FOLDERS = Path(__file__).parent / "fixtures" / "old-runs"
#: with the options that ask for the eight stored samples
RUNS = {"run": [], "two-stages": ["--class", "0,1,2,3,4,5,6,7", "--guidance-scale", "2"]}


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """Copies, in a folder that is the present one, as it was when they were made."""
    shutil.copytree(FOLDERS, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def repeat(cli, name: str):
    """Type a run's command once more."""
    return cli(*shlex.split(Run(name).meta["command"])[1:])


def answers(student: Student, t: float | None = None) -> Tensor:
    """What a student makes of the noises of seed 0: eight classes at weight 2, where it learned some."""
    eps = sample_noise(0, 0, 8, student.shape)
    if student.guidance is None:
        return student.sample(eps, t=t)
    return student.sample(eps, Classes(range(8)).listed(0, 0, 8).add(guidance=torch.full((8,), 2.0)), t)


def check(now: Tensor, name: str, atol: float = 1e-5) -> None:
    """The values of then, but for what another processor rounds otherwise."""
    torch.testing.assert_close(now, load_file(FOLDERS / "samples.safetensors")[name], rtol=0, atol=atol)


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_run_of_then_says_what_it_was(old):
    run = Run("run")
    assert run.started and run.config["method"] == "boot" and run.config["settings"]["steps"] == 6
    assert Path(run.locate("teacher")).samefile(old / "teacher") and run.prompts is None
    stages = [json.loads((old / "two-stages" / part).read_text()) for part in ("done.json", "boot/done.json")]
    assert trained_seconds(Path("two-stages")) == sum(stage["seconds"] for stage in stages)


@pytest.mark.parametrize("name", [*RUNS, "two-stages/boot"])
def test_its_student_answers_as_it_did(name, old):
    check(answers(load_student(name)), name)
    check(answers(load_student(f"{name}/student-path")), name)


def test_its_student_shows_the_same_path(old):
    check(answers(load_student("run"), t=0.5), "run at 0.5")


@pytest.mark.parametrize("name", RUNS)
def test_it_is_sampled(name, old, cli):
    for student in (name, f"{name}/student"):
        done = cli("sample", student, "--num", 8, *RUNS[name], "--output", f"{student}-images")
        assert done.code == 0, done.err
        made = np.stack([np.array(Image.open(path)) for path in sorted(Path(f"{student}-images").iterdir())])
        check(torch.from_numpy(made).unsqueeze(1) / 127.5 - 1, name, atol=1.01 / 127.5)  # of a rounded pixel


@pytest.mark.parametrize("name", RUNS)
def test_its_export_and_a_new_one_make_its_images(name, old, cli):
    done = cli("export", name, *RUNS[name][2:], "--output", "new")
    assert done.code == 0, done.err
    labels = {"class_labels": list(range(8))} if RUNS[name] else {}
    for student in (f"{name}/student", "new"):
        pipe = DiffusionPipeline.from_pretrained(student)
        pipe.set_progress_bar_config(disable=True)
        generators = [torch.Generator("cpu").manual_seed(i) for i in range(8)]
        check(2 * pipe(batch_size=8, generator=generators, output_type="pt", **labels).images - 1, name)


@pytest.mark.parametrize("setting", ["noise_scale=0.9", "critic_learning_rate=0.5"])
def test_a_setting_that_it_did_not_know_is_its_usual_value_and_any_other_is_refused(setting, old, cli):
    words = shlex.split(Run("two-stages").meta["command"])[1:]
    done = cli(*words, "--set", setting, "--set", "critic_weight=0.1" if "critic" in setting else "fake_warmup=2")
    assert done.code == 2 and "holds another run" in done.err and setting.split("=")[0] in done.err, done.err


@pytest.mark.parametrize("name", RUNS)
def test_its_command_says_that_it_is_done(name, old, cli):
    before = files(name)
    done = repeat(cli, name)
    assert done.code == 0 and f"done: {name} is finished" in done.out, done.err
    page = f"{name}/report.html"
    assert page in done.out  # which was not there
    assert {path: content for path, content in files(name).items() if path != page} == before


def test_its_command_with_another_word_is_refused(old, cli):
    done = cli(*shlex.split(Run("run").meta["command"])[1:], "--set", "delta=0.05")
    assert done.code == 2 and "delta is 0.04 there and 0.05 here" in done.err


def test_its_report_finds_the_teacher_and_leaves_out_the_figures_of_then(old, cli, monkeypatch, tmp_path):
    """A format of figures ends with its version; the run says that it is to be measured anew."""
    meta = json.loads(Path("run/meta.json").read_text())
    Path("run/meta.json").write_text(json.dumps({**meta, "folder": str(old)}))
    monkeypatch.chdir(tmp_path)
    done = cli("report", "old/run")
    page = Path("old/run/report.html").read_text()
    assert done.code == 0, done.err
    for words in ("2 looks are too few to tell", "Not measured yet", "Teacher, 50 DDIM steps", "Path error", "Losses"):
        assert words in page
    done = cli("evaluate", "old/run", "--num", 16, "--no-heun", "--calls", 1, "--output", "figures.json")
    assert done.code == 0, done.err
    assert cli("report", "old/run").code == 0
    assert "Not measured yet" not in Path("old/run/report.html").read_text()


def test_reports_set_runs_of_then_side_by_side(old, cli):
    done = cli("report", "run", "two-stages", "--output", "both.html")
    page = Path("both.html").read_text()
    assert done.code == 0 and "two-stages" in page and "boot+dm" in page, done.err


def test_a_run_that_was_interrupted_then_ends_with_the_same_student(old, cli):
    for name in ("student", "student-path"):
        shutil.rmtree(f"run/{name}")
    Path("run/done.json").unlink()
    third, sixth = (Path(f"run/samples/step-0000000{step}.png") for step in (3, 6))
    before, log = third.read_bytes(), Path("run/log.jsonl").read_text().splitlines()
    sixth.unlink()
    done = repeat(cli, "run")
    assert done.code == 0 and "resuming student from step 3" in done.err, done.err
    assert third.read_bytes() == before and sixth.is_file()
    assert Path("run/log.jsonl").read_text().splitlines()[0] == log[0]
    check(answers(load_student("run")), "run", atol=1e-4)


def test_a_run_that_was_interrupted_between_its_stages_ends_with_the_same_student(old, cli):
    for name in ("student", "student-path"):
        shutil.rmtree(f"two-stages/{name}")
    for name in ("done.json", "log.jsonl"):
        Path(f"two-stages/{name}").unlink()
    before = files("two-stages/boot")
    done = repeat(cli, "two-stages")
    assert done.code == 0, done.err
    assert files("two-stages/boot") == before
    check(answers(load_student("two-stages")), "two-stages", atol=1e-4)


def test_its_student_is_corrected(old, cli):
    words = ("--batch-size", 4, "--steps", 3, "--set", "fake_warmup=1", "--set", "sample_every=0")
    done = cli("distill", "teacher", "--method", "dm", "--set", "start=run", *words, "--output", "corrected")
    assert done.code == 0, done.err
    student, then = load_student("corrected"), load_student("run")
    assert (student.t_min, student.t_max) == (then.t_min, then.t_max)
    moved, learned = (
        (answers(one) - answers(other)).abs().mean()
        for one, other in ((student, then), (then, Student.from_teacher(load_teacher("teacher"))))
    )
    assert 0 < moved < learned / 4  # it began where the old student had ended
