"""One engine, one table: the same row by every command, the teacher at its best, and what a call is worth."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from bootdiff.builtin import DIGITS
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import sample_noise
from bootdiff.data.prompts import read_prompt_labels, read_prompts
from bootdiff.distillation.distill import distill
from bootdiff.evaluation import curve
from bootdiff.evaluation.curve import Chooser, Stock, teacher_entries
from bootdiff.evaluation.engine import Engine, Entry, Noises
from bootdiff.evaluation.equivalence import Point, equivalence, worth
from bootdiff.evaluation.measure import Listed
from bootdiff.methods.boot import BootSettings
from bootdiff.samplers import kinds
from bootdiff.samplers.choice import Choice
from bootdiff.samplers.rows import path_end
from bootdiff.samplers.stock import candidates, within
from bootdiff.sampling.opening import open_alone
from bootdiff.schedules import EDM, Cosine, Linear, RectifiedFlow, VarianceExploding
from bootdiff.teachers import Gaussian, load_teacher

ASKED = ["--num", "24", "--calls", "1,3"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    distill("digits", folder, BootSettings(steps=1, batch_size=4, sample_every=0))
    return folder


def rows_of(path) -> dict[str, dict]:
    """Of a command's JSON, by what they are."""
    rows = json.loads(path.read_text())["rows"]
    keys = ("kind", "method", "sampler", "steps", "calls", "spacing", "stage", "start")
    return {json.dumps([row[key] for key in keys]): row for row in rows}


@pytest.fixture(scope="module")
def measured(digits, tmp_path_factory):
    """The JSON of every command on the same noises."""
    from bootdiff.cli.main import run

    folder = tmp_path_factory.mktemp("measured")
    config = {
        "teacher": "digits", "settings": {"steps": 1, "batch_size": 4, "sample_every": 0, "watch_every": 0},
        "vary": {"boundary_weight": [1]}, "evaluate": {"num": 24, "seed": 0, "calls": [1, 3]},
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    commands = {
        "teacher": ["evaluate", "digits", *ASKED, "--no-heun", "--output", folder / "teacher.json"],
        "student": ["evaluate", digits, *ASKED, "--no-heun", "--output", folder / "student.json"],
        "compare": ["compare", digits, *ASKED, "--no-heun", "--output", folder / "compared"],
        "ablate": ["ablate", folder / "c.yaml", "--output", folder / "ablated"],
    }
    with pytest.MonkeyPatch.context() as patch:
        few = {name: kinds.VARIANCE_PRESERVING[name] for name in ("ddim", "unipc")}
        patch.setattr(kinds, "VARIANCE_PRESERVING", few)
        for number, words in enumerate(commands.values()):
            # Each command measures everything itself: what the others keep is not theirs to read.
            patch.setenv("BOOTDIFF_CACHE", str(folder / f"cache-{number}"))
            patch.setattr("sys.argv", ["bootdiff", *map(str, words)])
            try:
                run()
            except SystemExit as end:
                assert not end.code
    evaluations = list((folder / "ablated" / "runs").glob("*/evaluation.json"))
    return {
        "teacher": rows_of(folder / "teacher.json"),
        "student": rows_of(folder / "student.json"),
        "compare": rows_of(folder / "compared" / "compare.json"),
        "ablate": rows_of(evaluations[0]),
    }


def test_the_same_row_by_any_command_is_the_same_to_the_last_digit(measured):
    teachers = {
        name: {key: row["figures"] for key, row in rows.items() if row["kind"] == "teacher"}
        for name, rows in measured.items()
    }
    assert len(teachers["teacher"]) >= 3
    assert all(rows == teachers["teacher"] for rows in teachers.values())
    students = [
        [row["figures"] for row in measured[name].values() if row["kind"] == "student"]
        for name in ("student", "compare", "ablate")
    ]
    assert students[0] == students[1] == students[2] and len(students[0]) == 1


def test_every_command_holds_the_paper_s_rows_and_says_what_each_row_is(measured):
    for rows in measured.values():
        ddim = {row["steps"]: row for row in rows.values() if row["sampler"] == "ddim"}
        assert set(curve.PAPER) <= set(ddim) and all(row["calls"] == steps for steps, row in ddim.items())
        best = {row["best_of"]: row for row in rows.values() if row["best_of"] is not None}
        assert set(best) == {1, 3} and all(row["calls"] <= budget for budget, row in best.items())
        needed = {"kind", "method", "sampler", "calls", "spacing", "stage", "frechet_distance"}
        assert all(needed <= row.keys() for row in rows.values())


def test_all_samplers_changes_what_the_terminal_shows_and_nothing_else(cli, digits, tmp_path):
    brief = cli("evaluate", digits, *ASKED, "--no-heun", "--output", tmp_path / "a.json")
    full = cli("evaluate", digits, *ASKED, "--no-heun", "--all-samplers", "--output", tmp_path / "b.json")
    assert brief.code == full.code == 0
    assert len(full.out.splitlines()) > len(brief.out.splitlines()) + 20 and "UniPC" in full.out
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert [row["figures"] for row in a["rows"]] == [row["figures"] for row in b["rows"]]
    assert a["choice"] == b["choice"] and len(a["choice"]) > 20
    for result in (brief, full):
        assert result.out.splitlines()[-1].startswith("One call is worth ")


def test_what_is_known_of_a_teacher_is_not_measured_again(cli, digits, tmp_path, monkeypatch):
    from bootdiff.evaluation import engine

    monkeypatch.setenv("BOOTDIFF_CACHE", str(tmp_path / "cache"))
    counted = []
    true_measure = engine.measure

    def counting(candidate, *args):
        counted.append(candidate.row)
        return true_measure(candidate, *args)

    monkeypatch.setattr(engine, "measure", counting)
    words = ["evaluate", digits, "--num", "24", "--calls", "1", "--no-heun", "--output", tmp_path / "e.json"]
    assert cli(*words).code == 0 and len(counted) > 20
    counted.clear()
    assert cli(*words).code == 0 and [row.kind for row in counted] == ["student"]
    counted.clear()
    assert cli(*words, "--calls", "1,2").code == 0
    assert {row.calls for row in counted if row.kind == "teacher"} == {2}, "only what is missing is measured"
    for held in (tmp_path / "cache" / "curves").glob("*.json"):
        held.write_text(held.read_text()[:-40])
    counted.clear()
    again = cli(*words)
    assert again.code == 0 and len(counted) > 20, "a damaged file is measured anew"


SCHEDULES = [Cosine(), Linear(), RectifiedFlow(2.0), EDM(), VarianceExploding(0.01, 10.0)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("calls", [1, 2, 5, 9])
def test_a_call_is_an_evaluation_of_the_network_for_an_image(schedule, calls):
    teacher = Counting(schedule)
    eps = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = list(within(teacher, calls))
    assert found
    for candidate in [*found, path_end(teacher, teacher.t_range)]:
        teacher.asked = 0
        made = candidate.sample(eps, Condition())
        assert teacher.asked == 3 * candidate.row.calls, candidate.row
        assert bool(torch.isfinite(made).all()), candidate.row
    assert all(one.row.calls <= calls for one in found)


def test_guidance_by_a_second_pass_counts_two():
    teacher, conditions = open_alone("digits-class", choice=Choice(weight=3.0))
    asked = []
    teacher.denoiser.network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    for candidate in (*candidates(teacher, "ddim", 3), *candidates(teacher, "heun", 3), *within(teacher, 5)):
        asked.clear()
        candidate.sample(torch.zeros(2, *teacher.shape), conditions.listed(0, 0, 2))
        assert sum(asked) == 2 * candidate.row.calls, candidate.row
    assert not list(within(teacher, 1)), "no image is made in one call"
    plain, _ = open_alone("digits-class", choice=Choice(weight=1.0))
    assert candidates(plain, "ddim", 3)[0].row.calls == 3, "a weight of one needs one pass"


class Counting(Gaussian):
    """A Gaussian teacher that counts how many samples it was asked about."""

    asked = 0

    def __init__(self, schedule):
        super().__init__(1.0, 0.5, (4,), schedule)

    def x0(self, x_t, t, condition=None):
        self.asked += len(x_t)
        return super().x0(x_t, t)


def test_the_best_is_chosen_on_noises_of_its_own(monkeypatch):
    teacher = load_teacher("digits")
    monkeypatch.setattr(curve, "FIRST_LOOK", 70)
    monkeypatch.setattr(curve, "DECIDING", 70)
    from bootdiff.evaluation.measurement import Measurement

    judges, _ = Measurement().judges(teacher, None)
    seen = []
    original = Engine._measure

    def spy(self, entry, seed, advance):
        seen.append((seed, entry.candidate.row.best_of))
        return original(self, entry, seed, advance)

    monkeypatch.setattr(Engine, "_measure", spy)
    chooser = Chooser(Engine(judges, Noises(70, 5)), Stock(teacher), teacher, Listed(open_alone("digits")[1]))
    chosen = chooser.best_within(3)
    (first,) = {seed for seed, _ in seen}
    chosen_on = {tuple(sample_noise(first, i, i + 1, (2,)).flatten().tolist()) for i in range(70)}
    reported = {tuple(sample_noise(5, i, i + 1, (2,)).flatten().tolist()) for i in range(70)}
    assert not chosen_on & reported
    finalists = chooser.tried[len(list(within(teacher, 3))) :]
    best = min(finalists, key=lambda entry: entry["frechet_distance"])
    assert (chosen.row.sampler, chosen.row.spacing, chosen.row.best_of) == (best["sampler"], best["spacing"], 3)
    named = [entry.candidate.row for entry in teacher_entries(chooser, [3], path=False)]
    assert [row.steps for row in named if row.sampler == "ddim"][:2] == [1, 4]


@pytest.mark.parametrize("seed", [0, 2**62, 2**32, *curve.CHOICE_SEEDS, curve.CHOICE_SEEDS[0] - 1999, 5 * 2**32 - 3])
def test_the_choice_s_noises_are_never_the_table_s(seed):
    """torch's generator reads 32 bits of a seed, so that seeds which differ above them are one."""
    noises = Noises(2000, seed, 3)
    first = curve.choice_seed(noises) % 2**32
    table = {(seed + i) % 2**32 for i in range(6000)}
    assert not table & {(first + i) % 2**32 for i in range(curve.DECIDING)}


# --- the builtin teachers' curves ---


@pytest.mark.parametrize("teacher", ["digits", "digits-class", pytest.param("digits-text", marks=pytest.mark.slow)])
def test_a_row_of_a_curve_that_ships_is_made_again_to_the_last_digit(teacher, tmp_path, monkeypatch):
    """On the machine that made the curve; on another one to four digits."""
    from bootdiff.evaluation.measurement import Measurement

    monkeypatch.setenv("BOOTDIFF_CACHE", str(tmp_path))
    words = list(read_prompts(DIGITS).prompts) if teacher == "digits-text" else None
    labels = None if words is None else read_prompt_labels(DIGITS, None, "label")
    asked = Measurement(choice=Choice(words), labels=labels)
    model, conditions = open_alone(teacher, choice=asked.choice)
    judges, _ = asked.judges(model, words)
    engine, listed = Engine(judges, asked.noises), Listed(conditions, asked.labels_of(teacher), words)
    entry = Entry(candidates(model, "ddim", 1)[0], model, listed, (model, model.t_range))
    entry = next(
        Entry(one, model, entry.listed, entry.path_of)
        for one in candidates(model, "ddim", 1)
        if engine.known(entry).find(one.row.identity, 0, asked.num) is not None
    )
    shipped = engine.known(entry).find(entry.candidate.row.identity, 0, asked.num)
    made = engine._measure(entry, 0, lambda calls: None)
    assert shipped.keys() == made.keys() and len(made) >= 7
    for name, figure in made.items():
        assert figure.value == pytest.approx(shipped[name].value, rel=1e-4), name
    capability = torch.backends.cpu.get_cpu_capability()  # other instructions add in another order
    if (torch.__version__, capability) == ("2.13.0+cpu", "AVX2") and "AMD EPYC" in processor():
        assert made == shipped


def processor() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def test_a_teacher_is_told_from_a_student(tiny, digits, cli, tmp_path):
    from bootdiff.sampling.opening import is_teacher

    assert is_teacher("digits") and is_teacher(str(tiny)) and is_teacher("owner/model")
    assert not is_teacher(str(digits)) and not is_teacher(str(digits / "student"))
    (tmp_path / "runs").mkdir()
    assert not is_teacher(str(tmp_path / "runs" / "typo"))
    wrong = cli("evaluate", "digits-text", "--output", tmp_path / "e.json")
    assert wrong.code == 2 and "give --prompt TEXT or --prompts FILE" in wrong.err
    large = cli("evaluate", "digits-cascade-upscaler", "--output", tmp_path / "e.json")
    assert large.code == 2 and "evaluate a student of it" in large.err


# --- call equivalence ---

CURVE = [Point(1, 100.0), Point(10, 1.0), Point(20, 2.0), Point(40, 0.5)]


@pytest.mark.parametrize(
    ("distance", "calls"),
    [
        (100.0, 1.0),
        (10.0, math.sqrt(10)),  # half of the way in both logarithms
        (1.0, 10.0),
        (math.sqrt(0.5), math.sqrt(20 * 40)),  # the running minimum is flat from 10 to 20
        (0.5, 40.0),
        (0.49, math.inf),
        (101.0, 0.0),
    ],
)
def test_a_distance_is_worth_the_calls_at_which_the_running_minimum_meets_it(distance, calls):
    assert worth(distance, CURVE) == pytest.approx(calls)
    assert worth(distance, CURVE[::-1]) == pytest.approx(calls), "in any order"


def teacher_row(calls: int, *distances: float) -> dict:
    mean = sum(distances) / len(distances)
    return {
        "kind": "teacher", "sampler": "path" if calls == 10 else "unipc", "calls": calls, "start": None,
        "best_of": calls, "stage": None,
        "frechet_distance": mean, "frechet_distances": list(distances),
    }  # fmt: skip


def student(calls: int, *distances: float) -> dict:
    return {**teacher_row(calls, *distances), "kind": "student", "sampler": "one call", "best_of": None}


def test_the_sentence_says_number_interval_and_the_teacher_s_row():
    rows = [teacher_row(1, 100.0, 100.0), teacher_row(10, 1.0, 1.0)]
    told = equivalence(student(1, 10.0, 20.0), rows)
    assert told.calls == pytest.approx(10 ** ((2 - math.log10(15)) / 2))
    assert told.sentence == (
        "One call is worth 2.6 of the teacher's best calls: Heun's exact path with 10 calls reaches a Fréchet distance "
        "of 1. Over 2 noise seeds it is worth from 2.2 to 3.2."
    )
    assert "less than one of" in equivalence(student(1, 200.0), [teacher_row(1, 100.0)]).sentence
    never = equivalence(student(1, 0.5), rows)
    assert never.calls is None and "more than any number of" in never.sentence
    two = equivalence(student(2, 1.0), rows)
    assert two.calls == 5 and "makes an image in 2 calls" in two.sentence
    guided = equivalence(student(1, 200.0), [teacher_row(2, 100.0), teacher_row(20, 1.0)])
    assert "less than 2 of" in guided.sentence


def test_what_is_beyond_the_curve_is_said_with_care():
    rows = [teacher_row(1, 100.0), {**teacher_row(4, 10.0), "best_of": None}, {**teacher_row(2, 0.1), "start": 0.7}]
    assert equivalence(student(1, 1.0), rows).says == "more than 4", "nobody knows what more calls would reach"
    assert equivalence(student(1, 10.0), rows).calls == 4, "DDIM's rows count, those from elsewhere do not"
    none = equivalence(student(1, 1.0), rows[2:])
    assert none.calls is None and "no row of the teacher has a Fréchet distance" in none.sentence
    assert json.dumps(equivalence(student(1, 1.0), rows).as_json(), allow_nan=False)
