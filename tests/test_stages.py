"""Runs of several stages: each with its own teacher, source, start, rate, looks, verdict and kept student."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from bootdiff import BootdiffError, Gaussian, load_student, load_teacher
from bootdiff.config.settings import make_settings, read_assignments
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.evaluation.entries import stage_entries
from bootdiff.methods import registry
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.monitoring.convergence import verdict_of
from bootdiff.report.build import build_report
from bootdiff.sampling.opening import open_pair
from bootdiff.storage.passes import trained_passes
from bootdiff.storage.runs import Run, trained_seconds
from bootdiff.training.planned import planned_passes
from toys import same

FAST = {"steps": 3, "batch_size": 8, "watch_every": 0, "sample_every": 0, "log_every": 1, "checkpoint_every": 2}
FAST |= {"pairs": 16, "pair_steps": 4, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(METHODS, "toy-rounds", "toy_denoising:ToyRounds")
    monkeypatch.setitem(METHODS, "toy-denoising", "toy_denoising:ToyDenoising")
    registry.find_method.cache_clear()
    yield
    registry.find_method.cache_clear()


def settings(method: str = "toy-rounds", **words):
    return find_method(method).settings(**{**FAST, **words})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "rounds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "toy-rounds", "toy_denoising:ToyRounds")
        distill("digits", run, settings(n2={"steps": 5}), "toy-rounds")
    return run


def test_every_round_has_a_folder_and_a_student_of_its_own(finished):
    assert [run.folder.relative_to(finished).as_posix() for run in Run(finished).earlier] == ["rounds/n4", "rounds/n2"]
    assert yaml.safe_load((finished / "config.yaml").read_text())["stages"] == ["rounds/n4", "rounds/n2"]
    folders = [finished / "rounds/n4", finished / "rounds/n2", finished]
    assert [json.loads((folder / "done.json").read_text())["steps"] for folder in folders] == [3, 5, 3]
    students = [load_student(folder) for folder in folders]
    assert not same(students[0].state_dict(), students[1].state_dict())
    assert {student.kind for student in students} == {"denoising"}
    assert all((folder / "pairs/manifest.json").is_file() for folder in folders)


def test_the_student_of_a_round_is_the_teacher_of_the_next(finished):
    """Its pairs are those of the student before; the first round's are the teacher's own."""
    from safetensors.torch import load_file

    from bootdiff.core.condition import Condition
    from bootdiff.core.randomness import sample_noise, stored_seed
    from bootdiff.samplers.rows import reference_path
    from bootdiff.teachers import limited

    teacher = load_teacher("digits")
    for folder, asked in (("rounds/n4", teacher), ("rounds/n2", load_student(finished / "rounds/n4").as_teacher())):
        path = reference_path(limited(asked, teacher.limit), *teacher.t_range, steps=4)
        with torch.no_grad():
            ends = path(sample_noise(stored_seed(0), 0, 16, teacher.shape), Condition())
        made = load_file(finished / folder / "pairs/00000.safetensors")["data"]
        torch.testing.assert_close(made, ends, atol=1e-4, rtol=0)


def test_passes_and_seconds_are_those_of_all_stages(finished):
    asked = settings(n2={"steps": 5})
    passes = trained_passes(finished)
    assert list(passes["stages"]) == ["rounds/n4", "rounds/n2", "toy-rounds"]
    assert passes["all"] == planned_passes(asked)["all"] == 3 * (11 * 8) + 3 * 16 * 9
    assert trained_seconds(finished) > 0


def test_a_run_that_is_cut_off_in_a_later_round_goes_on_there(finished, tmp_path):
    run = tmp_path / "cut"
    shutil.copytree(finished, run)
    for name in ("done.json", "student-path", "student", "checkpoints", "log.jsonl"):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    for name in ("done.json", "student-path", "student"):
        path = run / "rounds/n2" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (run / "rounds/n2/checkpoints/step-00000005").exists() and shutil.rmtree(
        run / "rounds/n2/checkpoints/step-00000005"
    )
    before = (run / "rounds/n4/done.json").stat().st_mtime_ns
    distill("digits", run, settings(n2={"steps": 5}), "toy-rounds")
    assert (run / "rounds/n4/done.json").stat().st_mtime_ns == before
    for folder in ("rounds/n2", "."):
        assert same(load_student(run / folder).state_dict(), load_student(finished / folder).state_dict())


def test_tables_and_reports_have_a_row_a_stage(finished, tmp_path):
    rows = [entry.candidate.row for entry in stage_entries(str(finished), open_pair(str(finished)))]
    assert [row.stage for row in rows] == ["first", "n2"] and [row.name for row in rows] == ["first stage", "stage n2"]
    run = tmp_path / "reported"
    shutil.copytree(finished, run)
    page = build_report(run).read_text()
    assert "Student of the first stage (toy-rounds n4)" in page and "Stage n2: losses" in page


def test_a_round_that_diverged_is_told(finished, tmp_path):
    run = tmp_path / "diverged"
    shutil.copytree(finished, run)
    done = run / "rounds/n2/done.json"
    done.write_text(json.dumps({**json.loads(done.read_text()), "diverged": "it exploded"}))
    verdict = verdict_of(run)
    assert verdict.word == "unstable" and "in the stage n2 it exploded" in verdict.sentence


def test_settings_of_a_round_are_named_after_it():
    words = read_assignments(["n2.steps=7", "n4.learning_rate=0.01", "steps=2"])
    asked = make_settings(type(settings()), FAST, words)
    stages = find_method("toy-rounds").stages_of(asked)
    assert [stage.settings.steps for stage in stages] == [2, 7, 2]
    assert [stage.settings.learning_rate for stage in stages] == [0.01, 1e-3, 1e-3]
    assert [stage.name for stage in stages] == ["rounds/n4", "rounds/n2", ""]
    assert [stage.learns_from is None for stage in stages] == [True, False, False]


@pytest.mark.parametrize(
    "words, told",
    [
        ({"n3": {"steps": 2}}, "there is no setting or round 'n3'; this run's rounds are n4, n2, n1"),
        ({"n2": {"stepz": 2}}, "n2: there is no setting 'stepz'"),
        ({"n2": {"steps": 0}}, "n2: setting steps"),
    ],
)
def test_settings_of_no_round_are_refused_in_one_line(words, told, tmp_path):
    with pytest.raises(BootdiffError, match=told) as error:
        distill("digits", tmp_path / "run", settings(**words), "toy-rounds")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_dry_run_prints_rounds_updates_and_passes(cli, tmp_path):
    words = [word for key, value in FAST.items() for word in ("--set", f"{key}={value}")]
    result = cli("distill", "digits", "--output", tmp_path / "x", "--method", "toy-rounds", "--dry-run", *words)
    assert result.code == 0 and "stages: n4 of 3 updates, n2 of 3 updates, and a last one of 3; 9 updates" in result.out
    assert "passes: 648" in result.out and not (tmp_path / "x").exists()


def test_a_correction_of_another_kind_of_student(tmp_path):
    """Distribution matching on denoising students: it asks for one call, and there is no path to hold on to."""
    words = {key: value for key, value in FAST.items() if key not in ("pairs", "pair_steps")}
    kind = find_method("toy-denoising+dm").settings
    own = {"fake_warmup": 1, "fake_updates": 1, "boot_weight": 0.0, "toy-denoising": {"steps": 2, "pair_steps": 4}}
    student = distill("digits", tmp_path / "run", kind(**words, **own), "toy-denoising+dm")
    assert student.kind == "denoising"
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert "correction" in log[-1] and "bootstrap" not in log[-1]
    first = load_student(tmp_path / "run/toy-denoising")
    assert not same(first.state_dict(), student.state_dict())


def test_boots_loss_cannot_hold_a_student_without_a_path(tmp_path):
    teacher = Gaussian(0.5, 0.5, (4,))
    words = {key: value for key, value in FAST.items() if key not in ("pairs", "pair_steps")}
    kind = find_method("toy-denoising+dm").settings
    with pytest.raises(BootdiffError, match="boot_weight holds on to a path, which a denoising student has not"):
        plan_distillation(teacher, tmp_path / "run", kind(**words, fake_warmup=1, boot_weight=0.5), "toy-denoising+dm")
