"""What a method refuses is refused in the plan: before anything is written, and by a dry run as by the run."""

import json

import pytest

import bootdiff
from bootdiff import load_teacher, save_student
from bootdiff.methods.registry import find_method
from bootdiff.students.card import FILE
from bootdiff.students.consistency import ConsistencyStudent
from bootdiff.students.path import PathStudent
from bootdiff.training.planned import rehearsed
from toy_denoising import ToyDenoising, ToySettings

TINY = [*("--steps", 2, "--batch-size", 4, "--set", "pairs=8", "--set", "pair_steps=2")]
TINY += [*("--set", "sample_every=0", "--set", "watch_every=0")]


@pytest.mark.parametrize("method", ["progressive", "tract", "reflow", "dfno", "consistency", "boot+dm"])
def test_every_method_with_stages_shows_its_plan(cli, tmp_path, method):
    """A memory estimate once asked the objective of TRACT for all of its phases at once."""
    result = cli("distill", "digits", "--method", method, "--output", tmp_path / "run", "--dry-run")
    assert result.code == 0 and "nothing was written" in result.out, result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("tract", "phases=[4002,2001]", "setting phases"),
        ("tract", "phases=[1000000000000,1]", "setting phases"),
        ("tract", "phases=[8,true]", "should not be true or false"),
        ("progressive", "start_calls=true", "should not be true or false"),
        ("progressive", "n2.start_calls=1", "n2.start_calls: that is what makes it the round n2"),
        ("tract", "n8.phases=[64,4]", "n8.phases: that is what makes it the round n8"),
        ("consistency", "t_max=1e-9", "could not be sampled"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_nothing_is_written_for_settings_that_a_stage_refuses(cli, tmp_path, method, words, message, dry):
    result = cli("distill", "digits", "--method", method, "--output", tmp_path / "run", *TINY, "--set", words, *dry)
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1, result.err
    assert not (tmp_path / "run").exists()


def test_a_stage_goes_on_from_the_student_of_the_stage_before_it(cli, tmp_path):
    """A later stage keeps start's boundary, although its own settings name start as well."""
    words = ("distill", "digits", *TINY, "--method")
    assert cli(*words, "consistency", "--output", tmp_path / "naive", "--set", "boundary=naive").code == 0
    images = ("--images", "digits", "--set", "sample_every=0", "--set", "watch_every=0")
    both = ("distill", "digits", *TINY[:4], *images, "--method", "consistency+consistency-training")
    result = cli(
        *both, "--start", tmp_path / "naive", "--set", "boundary=naive", "--output", tmp_path / "x", "--dry-run"
    )
    assert result.code == 0, result.err


@pytest.mark.parametrize("method", ["dm", "sid"])
def test_a_correction_alone_is_rehearsed_too(cli, tmp_path, method, monkeypatch):
    built = []
    found = find_method(method).objective
    usual = found.from_settings
    monkeypatch.setattr(found, "from_settings", lambda *words: built.append(words) or usual(*words))
    result = cli("distill", "digits", "--method", method, "--output", tmp_path / "x", "--steps", 60, "--dry-run")
    assert result.code == 0, result.err
    assert any(tuple(words[0].shape) == (1, 8, 8) for words in built)


@pytest.mark.parametrize("reads", [lambda teacher: teacher.adapter.parts, lambda teacher: teacher.network.config])
def test_a_method_of_another_package_that_reads_more_than_a_stand_in_has_is_not_refused(monkeypatch, reads):
    usual = ToyDenoising.from_settings
    monkeypatch.setattr(ToyDenoising, "from_settings", lambda teacher, *rest: reads(teacher) and usual(teacher, *rest))
    teacher, settings = load_teacher("digits"), ToySettings(t_min=0.0, t_max=0.9)
    assert rehearsed(ToyDenoising.method, settings, teacher) is None
    monkeypatch.setattr(ToyDenoising, "from_settings", usual)
    known = rehearsed(ToyDenoising.method, settings, teacher)
    assert known.kind == "denoising" and known.shape == (1, 8, 8)  # a method may read the shape


def test_a_dry_run_judges_the_student_that_the_run_starts_from(cli, tmp_path):
    words = ("distill", "digits", "--method", "consistency", *TINY)
    assert cli(*words, "--output", tmp_path / "naive", "--set", "boundary=naive").code == 0
    on = (*words, "--start", tmp_path / "naive", "--output", tmp_path / "on")
    for dry in (["--dry-run"], []):
        refused = cli(*on, "--set", "boundary=skip", *dry)
        assert refused.code == 2 and "has the boundary naive, and skip is asked" in refused.err
        assert not refused.out and not (tmp_path / "on").exists()  # not half a plan either
    assert cli(*on, "--set", "boundary=naive", "--dry-run").code == 0
    assert cli(*on, "--set", "boundary=naive").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": {}}, "a boundary has a name and numbers"),
        ({"facts": {"boundary": {"name": "karras"}}}, "for EDM's noise levels"),
        ({"facts": {"boundary": {"name": "naive"}, "points": True}}, "points should be a whole number"),
        ({"calls": "4"}, "'calls'"),
        ({"t_max": "0.98"}, "'t_max'"),
        ({"t_max": 5}, "t_min and t_max should rise"),
        ({"guidance": [15.0, 3.0]}, "'guidance'"),
        ({"conditions": {"null_class": "3"}}, "'conditions"),
        ({"teacher_options": {"lora_scale": "0.5"}}, "'teacher_options"),
        ({"kind": "bogus"}, "'kind': kind of student 'bogus' is not known"),
        ({"kind": "path", "calls": 3}, "makes an image in one call, got 3"),
        ({"pipeline": "os.system"}, "is of the class 'os.system', which is not supported"),
    ],
)
def test_a_card_that_was_changed_by_hand_is_refused(tmp_path, change, message):
    kind = PathStudent if change.get("kind") == "path" else ConsistencyStudent
    save_student(kind.from_teacher(load_teacher("digits")), tmp_path / "student")
    card = tmp_path / "student" / FILE
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(bootdiff.BootdiffError) as refused:
        bootdiff.load_student(card.parent)
    assert message in str(refused.value), refused.value


@pytest.mark.parametrize("words", [["sample", "x", "--calls", 0], ["sampl"], ["sample"], ["distill", "x", "--foo"]])
def test_a_usage_error_is_one_line(cli, words):
    result = cli(*words)
    assert result.code == 2 and result.err.startswith("bootdiff: error: ") and result.err.count("\n") == 1
    assert "--help' lists its" in result.err
