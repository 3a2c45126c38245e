"""The run keeps its best look, alarms have names, and a short run that diverged says so."""

import json
import shutil
from collections.abc import Callable

import pytest
import torch

from bootdiff.core.errors import BootdiffError, Interrupted, NonFiniteLossError
from bootdiff.data.conditions import Unconditional
from bootdiff.distillation.distill import distill
from bootdiff.methods.boot import Boot, BootSettings
from bootdiff.monitoring.alarms import alarm_of
from bootdiff.monitoring.best import BestLook
from bootdiff.monitoring.convergence import is_better, judge, read_watch, relative_distance, verdict_of
from bootdiff.monitoring.pulse import Pulse
from bootdiff.monitoring.watch import Watch
from bootdiff.monitoring.watch_plan import WatchPlan
from bootdiff.schedules import Cosine
from bootdiff.storage.files import load_tensors, save_tensors
from bootdiff.students import Student
from bootdiff.teachers import CallableTeacher, Gaussian
from bootdiff.teachers.base import Teacher, Wrapper
from bootdiff.training.accelerator import make_accelerator
from bootdiff.training.loop import Loop
from tiny_pipelines import save_class_unet

SHAPE, TIMES = (1, 2, 2), (0.02, 0.7)


def teacher(shape=SHAPE) -> Gaussian:
    return Gaussian(0.0, 0.5, shape, Cosine())


def settings(steps: int, **fields) -> BootSettings:
    usual = {"batch_size": 64, "learning_rate": 2e-3, "ema_decay": 0.9, "t_min": TIMES[0], "t_max": TIMES[1]}
    kept = {"sample_every": 0, "log_every": 50, "checkpoint_every": 10_000, "delta": 0.1}
    return BootSettings(**{"steps": steps, "watch_every": max(1, steps // 12), **usual, **kept, **fields})


def drifting(**fields) -> BootSettings:
    """It learns while the rate is low, and loses all of it as the rate goes on rising."""
    return settings(240, learning_rate=0.03, warmup_steps=240, ema_decay=0, gradient_clip=0, **fields)


def done(run) -> dict:
    return json.loads((run / "done.json").read_text())


@pytest.fixture(scope="module")
def drifted(tmp_path_factory):
    """One run made to drift, with every look's weights, and the same run with ``keep=last``."""
    folder, seen = tmp_path_factory.mktemp("drifted"), {}
    original = Watch.look

    def spy(self, step, networks):
        original(self, step, networks)
        seen[step] = {name: value.clone() for name, value in networks["student"].state_dict().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watch, "look", spy)
        best = distill(teacher(), folder / "best", drifting())
    last = distill(teacher(), folder / "last", drifting(keep="last"))
    return folder, best, last, seen


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_student_of_a_drifting_run_is_that_of_its_best_look(drifted):
    folder, best, last, seen = drifted
    looks = read_watch(folder / "best")
    nearest = min(looks, key=relative_distance)
    assert done(folder / "best")["student_step"] == nearest["step"] < 240
    assert equal(best.state_dict(), seen[nearest["step"]])
    assert equal(last.state_dict(), seen[240])
    assert relative_distance(looks[-1]) > 10 * relative_distance(nearest)


def test_keep_last_says_so(drifted):
    folder, *_ = drifted
    assert done(folder / "last")["student_step"] == 240 and not (folder / "last" / "best").exists()
    assert verdict_of(folder / "last").sentence.endswith("The student is that of step 240, the last.")


def test_the_verdict_names_the_step_and_stays_what_it_is(drifted):
    folder, *_ = drifted
    step = done(folder / "best")["student_step"]
    verdict = verdict_of(folder / "best")
    assert f"The student is that of step {step}, the best look" in verdict.sentence
    assert verdict.word == judge(read_watch(folder / "best")).word != "converged"


def test_results_that_were_removed_are_made_again_of_the_same_step(drifted, tmp_path):
    folder, best, *_ = drifted
    shutil.copytree(folder / "best", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "student-path")
    again = distill(teacher(), tmp_path / "run", drifting())
    assert done(tmp_path / "run") == done(folder / "best") and equal(again.state_dict(), best.state_dict())
    assert not list((tmp_path / "run").glob(".*"))


def test_a_run_that_ends_at_its_best_hands_over_its_last_state_bit_for_bit(tmp_path):
    asked = settings(180, ema_decay=0.98)
    best = distill(teacher(), tmp_path / "best", asked)
    last = distill(teacher(), tmp_path / "last", asked.model_copy(update={"keep": "last"}))
    assert len(read_watch(tmp_path / "best")) == 12 and done(tmp_path / "best")["student_step"] == asked.steps
    assert not (tmp_path / "best" / "best").exists()
    assert equal(best.state_dict(), last.state_dict())


def test_four_looks_are_too_few_to_choose_from(tmp_path):
    distill(teacher(), tmp_path / "run", drifting(watch_every=60))
    assert len(read_watch(tmp_path / "run")) == 4 and done(tmp_path / "run")["student_step"] == 240


def test_a_difference_within_the_noise_of_both_looks_is_none():
    """It is measured in shares of the teacher's variance, and what the network's last block sees counts, too."""
    at = {"teacher_variance": 2.0, "teacher_texture_variance": 5.0, "count": 130, "frechet_distance": 0.1}
    best = {**at, "texture_distance": 0.1}
    assert relative_distance(best) == pytest.approx(0.05 + 0.02)
    # 0.02 of noise and 0.007 of wandering
    assert not is_better(best, {**at, "texture_distance": 0.23}) and is_better(best, {**at, "texture_distance": 0.24})
    assert not is_better(best, {**best, "frechet_distance": 0.153}) and is_better(
        best, {**best, "frechet_distance": 0.155}
    )


def test_a_student_that_has_learned_less_of_the_path_is_not_the_best(tmp_path):
    """A student of natural images was that of step 14 of 343: its blurred first answers had the teacher's features."""
    look = {"teacher_variance": 1.0, "count": 512}
    early = {**look, "step": 14, "frechet_distance": 0.1, "path_error": 0.5}
    late = {**look, "step": 343, "frechet_distance": 0.3, "path_error": 0.1}
    assert not is_better(early, late)
    assert is_better({**early, "path_error": 0.19}, late)
    kept = BestLook(tmp_path / "best")
    for number, each in enumerate((early, late, {**late, "step": 350, "frechet_distance": 0.4})):
        network = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(network.weight, number)
        kept.offer(each, network)
    assert kept.look["step"] == 343  # not the first, and not one whose features are farther
    kept.restore(network)
    assert network.weight.item() == 1


@pytest.mark.parametrize("cut", [30, 130])
def test_a_run_that_was_interrupted_keeps_the_same_look(drifted, cut, tmp_path, monkeypatch):
    """Before its best look, and after it: the look is made again, or its weights are still there."""
    folder, best, *_ = drifted
    original = Loop._report

    def stop(self, bar):
        if self.step == cut and self.saved != cut:
            self.stop_signal = 2
        original(self, bar)

    monkeypatch.setattr(Loop, "_report", stop)
    with pytest.raises(Interrupted):
        distill(teacher(), tmp_path / "run", drifting())
    monkeypatch.setattr(Loop, "_report", original)
    again = distill(teacher(), tmp_path / "run", drifting())
    assert done(tmp_path / "run")["student_step"] == done(folder / "best")["student_step"]
    assert equal(again.state_dict(), best.state_dict())


def test_the_card_and_the_command_name_the_step(tiny, tmp_path, cli):
    words = {"steps": 30, "learning_rate": 0.02, "warmup_steps": 60, "ema_decay": 0, "gradient_clip": 0, "keep": "best"}
    asked = {**words, "batch_size": 8, "watch_every": 5, "sample_every": 0, "delta": 0.1, "t_max": 0.7}
    sets = [part for key, value in asked.items() for part in ("--set", f"{key}={value}")]
    result = cli("distill", tiny, "--output", tmp_path / "run", *sets)
    assert result.code == 0, result.err
    step = done(tmp_path / "run")["student_step"]
    assert f"The student is that of step {step}, the best look" in result.out
    assert f"| student_step | {step}, the best look of 30 |" in (tmp_path / "run/student/README.md").read_text()
    assert f"step {step}, the best look" in (tmp_path / "run/report.html").read_text()


def test_a_run_from_before_there_was_such_a_setting_goes_on(tmp_path):
    asked = settings(24, watch_every=0)
    distill(teacher(), tmp_path / "run", asked)
    config = tmp_path / "run" / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "keep:" not in line))
    distill(teacher(), tmp_path / "run", asked)
    with pytest.raises(BootdiffError, match="steps is 24 there and 25 here"):
        distill(teacher(), tmp_path / "run", settings(25, watch_every=0))


def test_a_run_that_an_earlier_version_began_keeps_its_looks(drifted, tmp_path):
    """Its references hold no textures; and it knows of no best look, so that its last state is handed over."""
    folder, *_ = drifted
    shutil.copytree(folder / "last", tmp_path / "run")
    for name in ("student-path", "best"):
        shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    (tmp_path / "run" / "done.json").unlink()
    stored = load_tensors(tmp_path / "run" / "path_ends.safetensors")
    save_tensors(tmp_path / "run" / "path_ends.safetensors", {k: v for k, v in stored.items() if k != "textures"})
    config = tmp_path / "run" / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "keep:" not in line))
    looks = read_watch(tmp_path / "run")
    distill(teacher(), tmp_path / "run", drifting())
    assert read_watch(tmp_path / "run") == looks and done(tmp_path / "run")["student_step"] == 240


@pytest.fixture
def cut(drifted, tmp_path):
    """The drifting run as it was when it was stopped just before its last step."""
    folder, *_ = drifted
    shutil.copytree(folder / "best", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "student-path")
    (tmp_path / "run" / "done.json").unlink()
    return tmp_path / "run"


def test_a_line_of_garbage_loses_no_other_look(cut, drifted):
    folder, *_ = drifted
    lines = (cut / "watch.jsonl").read_text().splitlines(True)
    (cut / "watch.jsonl").write_bytes(b"\xff\xfe garbage\n{}\n[1]\n" + "".join(lines[1:]).encode())
    distill(teacher(), cut, drifting())
    assert done(cut)["student_step"] == done(folder / "best")["student_step"]
    assert len(read_watch(cut)) == 11


@pytest.mark.parametrize(
    ("file", "content"),
    [("look.json", b"{}"), ("look.json", b"{"), ("student.safetensors", b"no weights"), ("student.safetensors", None)],
)
def test_a_damaged_best_look_is_told_before_the_training(cut, file, content):
    path = cut / "best" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(BootdiffError, match=r"is damaged .* remove that folder: the student is then of a later look"):
        distill(teacher(), cut, drifting())
    shutil.rmtree(cut / "best")
    distill(teacher(), cut, drifting())
    assert done(cut)["student_step"] == 240


def test_a_run_that_keeps_its_best_is_not_continued_without_looks(cut):
    with pytest.raises(BootdiffError, match="watch_every=0 would forget them; leave watch_every out"):
        distill(teacher(), cut, drifting(watch_every=0))


def test_references_that_were_lost_are_told_of(cut, capsys):
    (cut / "path_ends.safetensors").unlink()
    distill(teacher(), cut, drifting())
    assert "has lost its looks so far" in capsys.readouterr().err
    assert done(cut)["student_step"] == 240


class Walking(Wrapper):
    """A teacher that goes a little further wrong with every call."""

    def __init__(self, inner: Teacher, wrong: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
        super().__init__(inner)
        self.wrong, self.calls = wrong, 0

    def x0(self, x_t, t, condition=None):
        self.calls += 1
        return self.wrong(self.inner.x0(x_t, t), self.calls / 2500)


def brighter(answer, far):
    return answer + far


def greyer(answer, far):
    """The channels differ less and less, and what they have in common grows."""
    grey = answer.mean(1, keepdim=True)
    return (1 + 3 * far) * grey + (1 - 2 * far) * (answer - grey)


def larger(answer, far):
    return (1 + 2 * far) * answer


def watched(folder, wrong, shape=SHAPE):
    """The verdict on a run whose teacher goes wrong, watched beside the one that does not."""
    torch.manual_seed(0)
    folder.mkdir()
    asked = settings(240, learning_rate=1e-3, ema_decay=0.95, watch_every=30)
    objective = Boot.from_settings(Walking(teacher(shape), wrong), asked)
    watch = Watch(teacher(shape), Unconditional(), TIMES, folder, WatchPlan.of(asked, shape), asked.steps)
    Loop(objective, asked, folder, make_accelerator(asked, folder), watch=watch).run(show_progress=False)
    return watch.verdict


@pytest.mark.parametrize(
    ("wrong", "shape", "word", "told"),
    [
        (brighter, SHAPE, "brightness drift", "brighter than the teacher's"),
        (greyer, (3, 2, 2), "saturation drift", "as saturated as the teacher's"),
        (larger, SHAPE, "growing variance", "how a collapse begins"),
    ],
)
def test_what_walks_away_is_told_by_name(wrong, shape, word, told, tmp_path):
    verdict = watched(tmp_path / "run", wrong, shape)
    assert verdict.word == word and told in verdict.sentence, verdict


def look(step: int, **fields) -> dict:
    """One look at a student that is as its teacher is."""
    plain = {"path_error": 0.01, "frechet_distance": 0.05, "diversity": 1.0, "saturation": [0.0], "mean": [0.0]}
    teachers = {"teacher_diversity": 1.0, "teacher_variance": 1.0, "teacher_saturation": [0.0], "teacher_mean": [0.0]}
    both = {"deviation": [0.5], "teacher_deviation": [0.5], "colour": 0.2, "teacher_colour": 0.2}
    return {"step": step, **plain, **teachers, **both, **fields}


@pytest.mark.parametrize(
    ("name", "values", "alarm"),
    [
        ("mean", [[0.0], [0.0], [0.02], [0.05], [0.1], [0.16]], "brightness drift"),
        ("mean", [[0.0], [0.0], [-0.02], [-0.05], [-0.1], [-0.16]], "brightness drift"),
        ("mean", [[0.0], [0.4], [0.3], [0.2], [0.16], [0.15]], None),  # on its way back
        ("mean", [[0.05], [0.06], [0.05], [0.06], [0.05], [0.06]], None),  # little
        ("colour", [0.2, 0.2, 0.21, 0.22, 0.24, 0.26], "saturation drift"),
        ("colour", [0.2, 0.2, 0.19, 0.18, 0.16, 0.14], "saturation drift"),
        ("colour", [0.1, 0.12, 0.14, 0.15, 0.155, 0.158], None),
        ("deviation", [[0.5], [0.5], [0.51], [0.52], [0.53], [0.54]], "growing variance"),
        ("deviation", [[0.5], [0.5], [0.56], [0.55], [0.57], [0.56]], None),  # up and down
        ("deviation", [[0.3], [0.35], [0.4], [0.45], [0.49], [0.5]], None),  # up to the teacher's
    ],
)
def test_alarms_are_raised_by_what_walks_away_alone(name, values, alarm):
    raised = alarm_of([look(step, **{name: value}) for step, value in enumerate(values)])
    assert (raised and raised.name) == alarm


def test_looks_of_earlier_versions_raise_no_alarm():
    assert alarm_of([{key: value for key, value in look(0).items() if "deviation" not in key}] * 5) is None


@pytest.mark.parametrize(("rate", "word"), [(0.3, "unstable"), (2e-3, "unknown")])
def test_a_short_run_without_looks_says_whether_it_diverged(rate, word, tmp_path):
    asked = BootSettings(steps=12, batch_size=8, learning_rate=rate, watch_every=0, sample_every=0, ema_decay=0)
    distill("digits", tmp_path / "run", asked)
    verdict = verdict_of(tmp_path / "run")
    assert verdict.word == word and ("diverged" in done(tmp_path / "run")) == (word == "unstable")
    assert ("lower the learning rate" if word == "unstable" else "too short to be looked at") in verdict.sentence


def test_a_first_stage_that_diverged_is_told(tmp_path):
    for folder, words in (
        (tmp_path, {"steps": 2, "seconds": 1.0}),
        (tmp_path / "boot", {"steps": 2, "seconds": 1.0, "diverged": "it exploded"}),
    ):
        folder.mkdir(exist_ok=True)
        (folder / "done.json").write_text(json.dumps(words))
    (tmp_path / "config.yaml").write_text("{task: distill, teacher: digits, method: boot+dm, settings: {}}")
    verdict = verdict_of(tmp_path)
    assert verdict.word == "unstable" and "in the first stage it exploded" in verdict.sentence


def test_one_look_is_enough_for_unstable():
    assert judge([look(1, path_error=2.0)]).word == "unstable"
    assert judge([look(1, frechet_distance=float("inf"))]).word == "unstable"
    assert judge([look(1)]).word == "unknown"


def test_a_run_that_was_not_finite_is_unstable(tmp_path):
    class Overflowing(torch.nn.Linear):
        def forward(self, x, timestep):
            return super().forward(x) + torch.log(timestep - 500)[:, None]

    broken = CallableTeacher(Overflowing(3, 3), Cosine(), "sample", (3,))
    with pytest.raises(NonFiniteLossError, match="not finite"):
        distill(broken, tmp_path / "run", BootSettings(steps=4, batch_size=64, watch_every=0))
    assert verdict_of(tmp_path / "run").word == "unstable"


def test_the_pulse_of_a_new_student_is_its_teachers():
    """At t_max it answers as the teacher does; so nothing has diverged."""
    student = Student.from_teacher(teacher(), *TIMES)
    pulse = Pulse.of(student, teacher(), Unconditional())
    assert pulse.teacher > 0 and pulse.alarm(pulse) is None


@pytest.mark.parametrize(
    ("after", "anchored", "told"),
    [
        (Pulse(1.0, 1.2, 1.0), True, "at t_max its error is 1.2"),
        (Pulse(1.0, 1.05, 1.0), True, None),
        (Pulse(1.0, 1.2, 1.0), False, None),
        (Pulse(21.0, 0.0, 1.0), False, "the mean square of its samples is 21"),
        (Pulse(float("nan"), 0.0, 1.0), False, "not finite"),
        (Pulse(2.0, 0.5, 1.0), True, None),
    ],
)
def test_a_pulse_tells_how_a_student_left_its_teacher(after, anchored, told):
    said = after.alarm(Pulse(1.0, 0.1, 1.0), anchored)
    assert (said is None) if told is None else told in said


@pytest.mark.parametrize(
    ("method", "words", "warns"),
    [
        ("dm", ["--guidance-scale", "1.5"], True),
        ("boot+sid", ["--guidance-range", "1", "4"], True),
        ("dm", ["--guidance-scale", "1"], False),
        ("boot", ["--guidance-scale", "4"], False),
    ],
)
def test_a_guided_correction_of_classes_warns_of_its_recall(method, words, warns, tmp_path, cli):
    folder = save_class_unet(tmp_path / "teacher")
    result = cli("distill", folder, "--method", method, *words, "--set", "null_class=3", "--output", tmp_path / "run",
                 "--dry-run")  # fmt: skip
    assert result.code == 0, result.err
    assert ("costs recall (published for one call on ImageNet-256" in result.out) == warns
