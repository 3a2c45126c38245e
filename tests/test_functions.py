"""What the commands do, as functions of public names: they return what the commands print and write."""

import json
import shutil

import pytest
import torch

import bootdiff


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps on the builtin digits."""
    folder = tmp_path_factory.mktemp("functions") / "run"
    settings = bootdiff.BootSettings(steps=3, batch_size=4, watch_every=0, sample_every=0)
    bootdiff.distill("digits", folder, settings)
    return folder


def test_samples_are_those_of_the_student(run):
    samples = bootdiff.draw_samples(run, bootdiff.Wanted(num=4, seed=7))
    noise = bootdiff.sample_noise(7, 0, 4, (1, 8, 8))
    torch.testing.assert_close(samples.images, bootdiff.load_student(run).sample(noise))
    path = bootdiff.draw_samples([run], bootdiff.Wanted(num=4, seed=7), times=[0.9, 0.1])
    assert path.images.shape == (8, 1, 8, 8) and path.columns == 2


def test_samples_of_nothing_are_refused():
    with pytest.raises(bootdiff.BootdiffError, match="expected a student"):
        bootdiff.draw_samples([])


def test_figures_are_what_the_file_holds(run, tmp_path):
    asked = bootdiff.Measurement(num=16, calls=(1,), heun=False)
    figures = bootdiff.evaluate_student(run, asked, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == figures["rows"]
    assert json.loads((run / "evaluation.json").read_text()) == json.loads((tmp_path / "figures.json").read_text())
    table = bootdiff.compare_students([run, run / "student"], asked, tmp_path / "compared")
    values = [row["frechet_distance"] for row in table["rows"] if row["kind"] == "student"]
    assert len(values) == 2 and values == pytest.approx([figures["rows"][-1]["frechet_distance"]] * 2, rel=1e-3)


def test_a_report_is_a_page(run, tmp_path):
    page = bootdiff.build_report(run, output=tmp_path / "page.html")
    assert page == tmp_path / "page.html" and "One-step student of digits" in page.read_text()


def test_a_comparison_goes_on_in_the_words_that_it_was_begun_with(run, tmp_path):
    """An earlier version kept the option's text."""
    asked = bootdiff.Measurement(num=8, calls=(1,), heun=False)
    first = bootdiff.compare_students(run, asked, tmp_path / "compared", refine=[1, 2])
    config = (tmp_path / "compared/config.yaml").read_text()
    assert "refine: 1,2" in config
    (tmp_path / "compared/config.yaml").write_text(config.replace("refine: 1,2", "refine: 01, 2"))
    again = bootdiff.compare_students([str(run)], asked, str(tmp_path / "compared"), refine=[1, 2])
    assert [row["frechet_distance"] for row in again["rows"]] == [row["frechet_distance"] for row in first["rows"]]
    with pytest.raises(bootdiff.BootdiffError, match="another run"):
        bootdiff.compare_students(run, asked, tmp_path / "compared", refine=[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootdiff.Measurement(num=0),
        lambda: bootdiff.Measurement(repeats=0),
        lambda: bootdiff.Measurement(calls=[0]),
        lambda: bootdiff.Measurement(calls="10"),
        lambda: bootdiff.Measurement(calls=4),
        lambda: bootdiff.Measurement(calls=[2.5]),
        lambda: bootdiff.Wanted(num=0),
        lambda: bootdiff.Wanted(batch_size=0),
        lambda: bootdiff.Wanted(seed=-1),
        lambda: bootdiff.draw_samples("nowhere", times=[]),
        lambda: bootdiff.compare_students([], bootdiff.Measurement(), "nowhere"),
        lambda: bootdiff.compare_students("run", bootdiff.Measurement(), "nowhere", refine=[0]),
        lambda: bootdiff.evaluate_student("digits", bootdiff.Measurement(), "a.json", teacher="digits"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bootdiff.BootdiffError, match=r"expect|from 1|mean nothing"):
        call()
    assert not list(tmp_path.iterdir())


def test_one_prompt_is_one_prompt():
    assert bootdiff.Choice(prompts="a seven").prompts == ["a seven"]


def test_a_student_is_saved_by_name_and_its_conditions_are_checked_first(run, tmp_path):
    student = bootdiff.load_student(run)
    bootdiff.save_student(student, str(tmp_path / "student"))
    noise = bootdiff.sample_noise(0, 0, 2, (1, 8, 8))
    assert torch.equal(bootdiff.load_student(tmp_path / "student").sample(noise), student.sample(noise))
    student.conditions = {"labels": "all of them"}
    with pytest.raises(bootdiff.BootdiffError, match=r"conditions\.labels"):
        bootdiff.save_student(student, tmp_path / "another")
    assert not (tmp_path / "another").exists()


#: the numbers of dynamic thresholding, as a scheduler's fields
THRESHOLDING = ("dynamic_thresholding_ratio", "sample_max_value")


class Net(torch.nn.Module):
    """A network that takes labels of any kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + classes.float().view(-1, 1, 1, 1)


def test_labels_from_python_may_be_any_whole_numbers(tmp_path):
    teacher = bootdiff.CallableTeacher(Net(), bootdiff.Cosine(), prediction="epsilon", shape=(1, 8, 8))
    settings = bootdiff.BootSettings(steps=1, batch_size=2, watch_every=0, sample_every=0)
    bootdiff.distill(teacher, tmp_path / "run", settings, conditions=bootdiff.Classes([0.0, 1.0]))
    card = json.loads((tmp_path / "run/student-path/bootdiff.json").read_text())
    assert card["conditions"]["labels"] == [0, 1] and card["format"] == 1


@pytest.mark.parametrize(
    "words",
    [
        *({"guidance": [3.0]}, {"folded_weight": 2.0}, {"t_min": "early"}, {"format": 99}),
        *({"teacher_options": {"dtype": dtype}} for dtype in ("float99", 5, ["a"])),
        *({"teacher_options": words} for words in ({"name": "x"}, {"size": 0}, {"lora": 3}, {"lora_scale": "x"})),
        *({"targets": {"clip_sample": True, "clip_sample_range": value}} for value in ("a", -5, 0)),
        *({"targets": {"thresholding": True, key: 7 if "ratio" in key else "x"}} for key in THRESHOLDING),
    ],
)
def test_a_damaged_card_is_one_line(run, tmp_path, words):
    bootdiff.save_student(bootdiff.load_student(run), tmp_path / "student")
    path = tmp_path / "student/bootdiff.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    with pytest.raises(bootdiff.BootdiffError, match=r"bootdiff\.json") as caught:
        bootdiff.load_student(tmp_path / "student")
    assert "\n" not in str(caught.value)


def test_what_a_student_learned_of_the_weight_can_be_said_anew(run):
    student = bootdiff.load_student(run)
    student.guidance = (3.0, 3.0)
    assert student.guidance == (3.0, 3.0) and student.told_weight() == 3.0
    student.guidance = 2.0
    assert student.guidance == 2.0 and student.told_weight() is None and student.weight() == 2.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda student, noise: student.sample(noise.numpy()), "expected noises"),
        (lambda student, noise: student.sample(noise, bootdiff.Classes([1]).listed(0, 0, 2)), "not on classes"),
        (lambda student, noise: bootdiff.Classes([]), "expected class labels"),
        (lambda student, noise: bootdiff.Classes("3"), "expected class labels"),
        (lambda student, noise: bootdiff.sample_noise(0, 5, 5, (1, 8, 8)), "start below stop"),
        (lambda student, noise: bootdiff.draw_samples(student), "expected the folder"),
    ],
)
def test_what_does_not_fit_a_student_is_one_line(run, call, said):
    with pytest.raises(bootdiff.BootdiffError, match=said):
        call(bootdiff.load_student(run), bootdiff.sample_noise(0, 0, 2, (1, 8, 8)))


def test_a_student_is_not_loaded_with_another_teacher_or_from_its_export(run):
    with pytest.raises(bootdiff.BootdiffError, match="does not fit the teacher digits-class"):
        bootdiff.load_student(run, bootdiff.load_teacher("digits-class"))
    assert bootdiff.load_student(run, bootdiff.load_teacher("digits")).teacher_name == "digits"
    with pytest.raises(bootdiff.BootdiffError, match="exported student"):
        bootdiff.load_student(run / "student")


def test_a_condition_is_for_as_many_samples_as_there_are_noises(tmp_path):
    settings = bootdiff.BootSettings(steps=1, batch_size=2, watch_every=0, sample_every=0)
    student = bootdiff.distill("digits-class", tmp_path / "run", settings)
    noise = bootdiff.sample_noise(0, 0, 4, student.shape)
    with pytest.raises(bootdiff.BootdiffError, match="for 4 samples, got 'classes' for 2"):
        student.sample(noise, bootdiff.Classes([1]).listed(0, 0, 2))


@pytest.mark.parametrize("words", [{"method": None}, {"method": 5}, {"method": ["boot"]}])
def test_a_method_that_is_no_name_is_refused(words, tmp_path):
    with pytest.raises(bootdiff.BootdiffError, match="method= expects a name such as 'boot', got"):
        bootdiff.distill("digits", tmp_path / "run", **words)


@pytest.mark.parametrize("output", [None, 5, ""])
def test_an_output_that_is_no_folder_is_refused(output):
    with pytest.raises(bootdiff.BootdiffError, match="output= expects the name of a folder, got"):
        bootdiff.distill("digits", output)
    with pytest.raises(bootdiff.BootdiffError, match="output= expects the name of a folder, got"):
        bootdiff.train_teacher("digits", output, bootdiff.TeacherSettings())


def test_a_dry_run_refuses_the_student_of_another_conditioning(run, tmp_path, cli):
    words = ("--method", "dm", "--set", f"start={run}", "--dry-run")
    result = cli("distill", "digits-class", "--output", tmp_path / "x", *words)
    assert result.code == 2 and "does not fit the teacher" in result.err and "on classes" in result.err, result.err


def test_a_file_of_a_run_that_is_no_object_names_its_cure(run, tmp_path, cli):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/done.json").write_text("[1, 2]")
    result = cli("report", tmp_path / "run")
    assert result.code == 2 and "found a list; remove done.json and repeat the run's command." in result.err, result.err


def test_what_a_terminal_would_obey_is_written_out():
    assert str(bootdiff.BootdiffError("a\x00b \x1b[31m red\x9b ß\tend")) == "a\\x00b \\x1b[31m red\\x9b ß\tend"
