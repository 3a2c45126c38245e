"""Ablations: every set of settings once, planned before the first is trained, resumed, and told in one table."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bootdiff.ablation import run as running
from bootdiff.ablation.config import read_ablation
from bootdiff.ablation.pictures import rows_figure
from bootdiff.ablation.variants import Design, folder_name, make_design
from bootdiff.benchmark.recipes import recipe, shipped
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.methods.registry import find_method
from tiny_unet import save_teacher

CONFIGS = Path(__file__).parent.parent / "configs"
SETTINGS = {"steps": 2, "batch_size": 4, "sample_every": 0, "log_every": 1, "watch_every": 1, "delta": 0.1}
EVALUATE = {"num": 8, "calls": [2]}
DDIM = [f"teacher, DDIM {steps}" for steps in (1, 4)]


def write(path: Path, teacher: object, **words) -> Path:
    base = {"teacher": str(teacher), "settings": SETTINGS, "evaluate": EVALUATE}
    path.write_text(yaml.safe_dump({**base, **words}))
    return path


def design_of(tmp_path, **words):
    path = write(tmp_path / "c.yaml", "digits", **words)
    return make_design(read_ablation(path), path)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def table(folder: Path) -> dict[str, dict]:
    """The lines of ablation.json by label; each label is there once."""
    rows = json.loads((folder / "ablation.json").read_text())["rows"]
    assert len({row["label"] for row in rows}) == len(rows)
    return {row["label"]: row for row in rows}


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A finished ablation: (its file, its folder, what the command said)."""
    from bootdiff.ablation.measuring import measure_run as measure

    here = tmp_path_factory.mktemp("ablation")
    path = write(here / "c.yaml", tiny, vary={"boundary_weight": [1, 0], "time_sampling": ["uniform", "progressive"]})
    running.Runner(running.plan_ablation(path, here / "out"), measure).run()
    return path, here / "out"


@pytest.fixture
def copied(finished, tmp_path):
    path, folder = finished
    shutil.copytree(folder, tmp_path / "out")
    return Path(shutil.copy(path, tmp_path / "c.yaml")), tmp_path / "out"


def test_the_planning_of_many_runs_is_shown_and_takes_each_once(cli, tiny, tmp_path, monkeypatch):
    made = []
    place = Design._place
    monkeypatch.setattr(Design, "_place", lambda *words: made.append(words) or place(*words))
    path = write(tmp_path / "c.yaml", tiny, vary={"log_every": list(range(1, 61))})
    done = cli("ablate", path, "--output", tmp_path / "out", "--dry-run")
    assert done.code == 0 and "planning: 60/60" in done.err and "time: 60 runs" in done.out
    assert len(made) == 2 * 60  # while they are planned, and once more for all that is done after that


def test_vary_changes_one_setting_and_the_baseline_comes_once(tmp_path):
    design = design_of(tmp_path, vary={"boundary_weight": [1, 0], "solver": ["euler", "heun"]})
    assert [v.label for v in design.variants] == ["baseline", "boundary_weight = 0", "solver = heun"]
    assert [v.name for v in design.variants] == ["baseline", "boundary_weight-0", "solver-heun"]
    assert [(v.settings.boundary_weight, v.settings.solver) for v in design.variants] == [
        (1, "euler"), (0, "euler"), (1, "heun"),
    ]  # fmt: skip
    assert dict(design.axes[0].members) == {
        "boundary_weight = 1": "baseline",
        "boundary_weight = 0": "boundary_weight-0",
    }


def test_a_grid_holds_all_combinations(tmp_path):
    design = design_of(tmp_path, grid={"delta": [0.1, 0.2], "solver": ["euler", "heun"]})
    assert [v.label for v in design.variants] == [
        "delta = 0.1, solver = euler", "delta = 0.1, solver = heun", "delta = 0.2, solver = euler",
        "delta = 0.2, solver = heun",
    ]  # fmt: skip
    assert [v.name for v in design.variants] == ["baseline", "solver-heun", "delta-0.2", "delta-0.2+solver-heun"]


def test_what_vary_and_grid_share_is_one_variant_in_the_same_folder(tmp_path):
    grid = {"delta": [0.1, 0.2], "solver": ["euler", "heun"]}
    both = design_of(tmp_path, vary={"delta": [0.1, 0.2]}, grid=grid)
    assert sorted(v.name for v in both.variants) == sorted(v.name for v in design_of(tmp_path, grid=grid).variants)


def test_a_list_without_the_baseline_s_value_is_shown_beside_it(tmp_path):
    (axis,) = design_of(tmp_path, vary={"delta": [0.2]}).axes
    assert axis.members == (("delta = 0.1", "baseline"), ("delta = 0.2", "delta-0.2"))


def test_numbers_written_in_two_ways_are_the_same_variant(tmp_path):
    design = design_of(tmp_path, vary={"boundary_weight": [1, 1.0, 0], "learning_rate": ["1e-4", 1e-4]})
    assert [v.name for v in design.variants] == ["baseline", "boundary_weight-0"]


def test_settings_lie_over_the_config_file_below_them(tmp_path):
    (tmp_path / "below.yaml").write_text("delta: 0.3\nsolver: heun\n")
    design = design_of(tmp_path, config=str(tmp_path / "below.yaml"), vary={"loss_weight": ["uniform", "signal"]})
    assert all((v.settings.delta, v.settings.solver) == (0.1, "heun") for v in design.variants)


def test_folder_names_are_safe_and_differ():
    assert folder_name({}) == "baseline"
    names = [folder_name({"classes": "[0, 1]"}), folder_name({"classes": "[0 1]"}), folder_name({"prompts": "../../x"})]
    assert len(set(names)) == 3 and not any("/" in name or name == ".." for name in names)
    assert len(folder_name({"prompts": "x" * 300})) < 100


def test_the_teacher_s_own_time_is_no_variant(tiny, tmp_path):
    path = write(tmp_path / "c.yaml", tiny, vary={"t_min": [None, 0.0, 0.1]})
    plan = running.plan_ablation(path, tmp_path / "out")
    assert [v.label for v in plan.design.variants] == ["baseline", "t_min = 0.1"]
    assert [name for _, name in plan.design.axes[0].members] == ["baseline", "baseline", "t_min-0.1"]


def test_every_variant_is_an_ordinary_run_and_once_in_every_table(finished):
    _, folder = finished
    names = ["baseline", "boundary_weight-0", "time_sampling-progressive"]
    assert sorted(p.name for p in (folder / "runs").iterdir()) == names
    assert all((folder / "runs" / name / "student" / "model_index.json").exists() for name in names)
    assert yaml.safe_load((folder / "runs" / names[1] / "config.yaml").read_text())["settings"]["boundary_weight"] == 0
    labels = [*DDIM, "baseline", "boundary_weight = 0", "time_sampling = progressive"]
    assert list(table(folder)) == labels
    with (folder / "ablation.csv").open() as file:
        assert [line["variant"] for line in csv.DictReader(file)] == labels
    text = (folder / "ablation.md").read_text()
    assert all(text.count(f"\n| {label} |") == 1 for label in labels)
    assert "The baseline has boundary_weight = 1, time_sampling = uniform." in text


def test_the_table_s_figures_are_the_evaluations(finished):
    _, folder = finished
    rows = table(folder)
    for name, label in (("baseline", "baseline"), ("boundary_weight-0", "boundary_weight = 0")):
        run = folder / "runs" / name
        measured = json.loads((run / "evaluation.json").read_text())
        student = measured["rows"][-1]
        assert rows[label]["figures"]["path_error"]["value"] == student["path_error"] > 0
        assert rows[label]["seconds"] == json.loads((run / "done.json").read_text())["seconds"]
        assert rows[label]["verdict"] == "unknown" and "too few" in rows[label]["runs"][0]["reason"]


def test_the_teacher_is_the_same_beside_every_variant(finished):
    runs = finished[1] / "runs"
    measured = [json.loads(p.read_text())["rows"] for p in sorted(runs.glob("*/evaluation.json"))]
    first, *others = ([row["figures"] for row in rows if row["kind"] == "teacher"] for rows in measured)
    assert len(others) == 2 and all(rows == first for rows in others)


def test_pictures_show_every_variant(finished):
    _, folder = finished
    pictures = {p.stem: Image.open(p).size for p in folder.glob("*.png")}
    assert set(pictures) == {"samples", "path", "boundary_weight", "time_sampling", "curves"}
    # 48 pixels and a gap a row; the teacher's is one more.
    assert pictures["samples"][1] == 4 + 4 * 52 and pictures["boundary_weight"][1] == 4 + 2 * 52
    assert pictures["path"][1] == 20 + 3 * 52


def test_rows_are_drawn_pixel_by_pixel(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (2, 10, 30), dtype=np.uint8)
    strips = [Image.fromarray(value) for value in values]
    rows_figure([("one", strips[0]), ("a longer label", strips[1])]).savefig(tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    assert drawn.shape[0] == 4 + 2 * 14
    for number, value in enumerate(values):
        top = 4 + 14 * number
        assert np.abs(drawn[top : top + 10, -34:-4] - value).max() <= 1


def test_the_same_command_leaves_what_is_finished(cli, copied):
    path, folder = copied
    before = contents(folder / "runs")
    result = cli("ablate", path, "--output", folder)
    assert result.code == 0, result.err
    assert contents(folder / "runs") == before
    assert "variant 2 of 3: boundary_weight = 0 (done)" in result.out and "boundary_weight = 0" in result.out
    assert "ablation.md" in result.out


def test_an_interruption_keeps_the_first_variant_and_the_command_goes_on(cli, tiny, tmp_path, monkeypatch):
    path = write(tmp_path / "c.yaml", tiny, vary={"boundary_weight": [1, 0]})
    folder, trained = tmp_path / "out", running.run_plan

    def interrupted(plan):
        if plan.output.name != "baseline":
            raise Interrupted("stopped at step 1 of 2.")
        return trained(plan)

    monkeypatch.setattr(running, "run_plan", interrupted)
    stopped = cli("ablate", path, "--output", folder)
    assert stopped.code == 130 and "stopped at step 1 of 2." in stopped.err
    rows = table(folder)
    assert rows["boundary_weight = 0"]["verdict"] == "not trained yet" and rows["baseline"]["figures"]
    before = contents(folder / "runs" / "baseline")

    trained_now = []
    monkeypatch.setattr(running, "run_plan", lambda plan: trained_now.append(plan.output.name) or trained(plan))
    resumed = cli("ablate", path, "--output", folder)
    assert resumed.code == 0, resumed.err
    assert trained_now == ["boundary_weight-0"] and contents(folder / "runs" / "baseline") == before
    assert table(folder)["boundary_weight = 0"]["figures"]


@pytest.mark.slow
def test_other_figures_are_measured_without_training_again(cli, copied, tiny):
    path, folder = copied
    weights = contents(folder / "runs" / "baseline" / "student-path")
    write(path, tiny, vary={"boundary_weight": [1, 0]}, evaluate={**EVALUATE, "num": 6})
    assert cli("ablate", path, "--output", folder).code == 0
    assert contents(folder / "runs" / "baseline" / "student-path") == weights
    assert json.loads((folder / "runs" / "baseline" / "evaluation.json").read_text())["num"] == 6
    assert list(table(folder)) == [*DDIM, "baseline", "boundary_weight = 0"]


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused_and_more_variants_run(cli, copied, tiny):
    path, folder = copied
    write(path, tiny, settings={**SETTINGS, "delta": 0.2}, vary={"boundary_weight": [1, 0]})
    before = contents(folder)
    refused = cli("ablate", path, "--output", folder)
    assert refused.code == 2 and "delta is 0.1 there and 0.2 here" in refused.err and contents(folder) == before
    write(path, tiny, vary={"boundary_weight": [1, 0], "solver": ["euler", "heun"]})
    runs = contents(folder / "runs" / "boundary_weight-0")
    assert cli("ablate", path, "--output", folder).code == 0
    assert "solver = heun" in table(folder) and contents(folder / "runs" / "boundary_weight-0") == runs


@pytest.mark.slow
def test_figures_are_means_over_training_seeds_with_their_range(copied, tiny, cli):
    path, folder = copied
    write(path, tiny, vary={"boundary_weight": [1, 0]}, seeds=[0, 3])
    before = contents(folder / "runs" / "baseline")
    result = cli("ablate", path, "--output", folder)
    assert result.code == 0 and "variant 1 of 2: baseline, seed 3" in result.out
    assert contents(folder / "runs" / "baseline") == before and (folder / "runs" / "baseline-seed-3").is_dir()
    row = table(folder)["baseline"]
    values = [run["figures"]["path_error"]["value"] for run in row["runs"]]
    assert values[0] != values[1]
    figure = row["figures"]["path_error"]
    assert figure["value"] == pytest.approx(sum(values) / 2)
    assert (figure["low"], figure["high"]) == (min(values), max(values))
    assert f"({min(values):.4f} to {max(values):.4f})" in (folder / "ablation.md").read_text()


@pytest.mark.slow
def test_a_variant_that_diverges_does_not_lose_the_others(cli, tiny, tmp_path):
    wild = {**SETTINGS, "steps": 6, "learning_rate": 1, "gradient_clip": 0, "watch_every": 0}
    path = write(tmp_path / "c.yaml", tiny, settings=wild, vary={"weight_decay": [0, 100], "learning_rate": [1, 1e-4]})
    folder = tmp_path / "out"
    result = cli("ablate", path, "--output", folder)
    assert result.code == 0, result.err
    rows = table(folder)
    assert rows["weight_decay = 100"]["verdict"] == "unstable: not finite" and not rows["weight_decay = 100"]["figures"]
    assert "is not finite at step" in rows["weight_decay = 100"]["runs"][0]["reason"]
    assert rows["learning_rate = 0.0001"]["figures"] and "unstable: not finite" in result.out
    before = contents(folder / "runs")
    again = cli("ablate", path, "--output", folder)
    assert again.code == 0 and contents(folder / "runs") == before


def test_a_student_that_cannot_be_measured_is_told_and_the_others_go_on(finished, tiny, tmp_path):
    path = write(tmp_path / "c.yaml", tiny, vary={"boundary_weight": [1, 0]})
    shutil.copytree(finished[1], tmp_path / "out")
    for run in (tmp_path / "out" / "runs").iterdir():
        (run / "evaluation.json").unlink()

    def measure(run, asked):
        if run.name == "baseline":
            raise BootdiffError("the features of 8 samples are not finite; look at the samples.")
        return json.loads((finished[1] / "runs" / run.name / "evaluation.json").read_text())

    running.Runner(running.plan_ablation(path, tmp_path / "out"), measure).run()
    rows = table(tmp_path / "out")
    assert rows["baseline"]["verdict"] == "not measured" and "8 samples" in rows["baseline"]["runs"][0]["reason"]
    assert rows["boundary_weight = 0"]["figures"]


def test_the_teacher_has_a_row_for_every_guidance_weight(cli, tmp_path):
    teacher = save_teacher(tmp_path / "labels", unet={"num_class_embeds": 3})
    settings = {**SETTINGS, "guidance_scale": 1, "null_class": 2, "watch_every": 0}
    path = write(tmp_path / "c.yaml", teacher, settings=settings, vary={"guidance_scale": [1, 3]})
    result = cli("ablate", path, "--output", tmp_path / "out")
    assert result.code == 0, result.err
    rows = table(tmp_path / "out")
    labels = [f"{name}, guidance_scale = {weight}" for weight in (1, 3) for name in DDIM]
    assert list(rows) == [*labels, "baseline", "guidance_scale = 3"]
    errors = [rows[f"{DDIM[1]}, guidance_scale = {weight}"]["figures"]["path_error"]["value"] for weight in (1, 3)]
    assert errors[0] != errors[1]
    assert rows[f"{DDIM[1]}, guidance_scale = 3"]["calls"] == 2 * rows[f"{DDIM[1]}, guidance_scale = 1"]["calls"]
    assert Image.open(tmp_path / "out" / "samples.png").size[1] == 4 + 2 * 52  # no teacher's row: there are two


def test_a_dry_run_lists_the_variants_and_writes_nothing(cli, tiny, tmp_path):
    path = write(tmp_path / "c.yaml", tiny, vary={"boundary_weight": [1, 0]}, seeds=[0, 1])
    result = cli("ablate", path, "--output", tmp_path / "out", "--dry-run")
    assert result.code == 0, result.err
    for words in ("steps: 2", "1. baseline", "2. boundary_weight = 0", "4 runs", "minutes", "nothing was written"):
        assert words in result.out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_knows_what_is_trained(cli, copied):
    path, folder = copied
    result = cli("ablate", path, "--output", folder, "--dry-run")
    assert "(1 of 1 trained)" in result.out and "time: 0 runs" in result.out
    for run in ("baseline", "boundary_weight-0"):
        (folder / "runs" / run / "done.json").write_text('{"steps": 2, "seconds": 90}')
    shutil.rmtree(folder / "runs" / "time_sampling-progressive")
    # 180 seconds for 14 and, without a boundary, 10 passes of the batch; the third run takes 14 again.
    assert "time: 1 runs, 1.8 minutes" in cli("ablate", path, "--output", folder, "--dry-run").out


#: what the file says, and the words that the error must hold
BAD = {
    "no such key": ({"vari": {"delta": [0.1]}}, "no key 'vari'. Did you mean 'vary'?"),
    "no such key within": ({"evaluate": {"nmu": 8}}, "no key 'nmu' in 'evaluate'. Did you mean 'num'?"),
    "no such setting": ({"vary": {"boundary_wieght": [1, 0]}}, "Did you mean 'boundary_weight'?"),
    "no such shared setting": ({"settings": {"stepz": 2}}, "Did you mean 'steps'?"),
    "value out of range": ({"vary": {"solver": ["euler", "heun"], "delta": [0.1, 2]}}, "delta = 2: setting delta"),
    "value of another kind": ({"grid": {"solver": ["euler", "hoin"]}}, "solver = hoin"),
    "values that are no list": ({"vary": {"delta": 0.1}}, "vary.delta"),
    "no values": ({"vary": {"delta": []}}, "vary.delta"),
    "nothing varies": ({"vary": {}}, "varies nothing"),
    "seed varies": ({"vary": {"seed": [0, 1]}}, "seeds: [0, 1]"),
    "seeds below zero": ({"seeds": [-1]}, "seeds.0"),
    "no such method": ({"method": "boost"}, "method 'boost'"),
    "no such teacher option": ({"teacher_options": {"dtipe": "float16"}}, "Did you mean 'dtype'?"),
    "no config below": ({"config": "nowhere.yaml"}, "nowhere.yaml"),
    "features without a reference": ({"evaluate": {"features": "pixels"}}, "reference"),
    "features of another size": ({"evaluate": {"features": "fashion", "reference": "fashion"}}, "takes images of"),
    "a setting that the teacher refuses": ({"vary": {"guidance_scale": [None, 2]}}, "guidance_scale = 2"),
    "no calls": ({"evaluate": {"calls": [0]}}, "calls"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line_before_anything_is_written(cli, tiny, tmp_path, monkeypatch, name):
    words, expected = BAD[name]
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", tiny, **{"vary": {"boundary_weight": [1, 0]}, **words})
    result = cli("ablate", path, "--output", tmp_path / "out")
    assert result.code == 2 and expected in result.err, result
    assert len(result.err.strip().splitlines()) == 1 and "Traceback" not in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_a_missing_teacher_and_a_missing_file_are_one_line(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("vary: {delta: [0.1, 0.2]}\n")
    assert "'teacher' is missing" in cli("ablate", tmp_path / "c.yaml", "--output", tmp_path / "out").err
    assert "no config file" in cli("ablate", tmp_path / "no.yaml", "--output", tmp_path / "out").err


def test_a_folder_of_something_else_is_left_alone(cli, tiny, tmp_path):
    path, folder = write(tmp_path / "c.yaml", tiny, vary={"boundary_weight": [1, 0]}), tmp_path / "mine"
    folder.mkdir()
    (folder / "note.txt").write_text("mine")
    result = cli("ablate", path, "--output", folder)
    assert result.code == 2 and "it holds note.txt" in result.err
    assert [p.name for p in folder.iterdir()] == ["note.txt"]


def test_torchrun_is_refused(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    path = write(tmp_path / "c.yaml", tiny, vary={"boundary_weight": [1, 0]})
    assert "one process" in cli("ablate", path, "--output", tmp_path / "out").err


SHIPPED = sorted([*CONFIGS.rglob("ablate-*.yaml"), *CONFIGS.glob("tuning/*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_are_valid_and_list_the_baseline_first(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    ablation = read_ablation(path)
    design = make_design(ablation, path)
    assert all(axis.members[0][1] == "baseline" for axis in design.axes)
    combined = math.prod(len(values) for values in ablation.grid.values())
    assert len(design.variants) == combined + sum(len(axis.members) - 1 for axis in design.axes)


def test_every_method_with_a_recipe_has_four_runs_by_which_it_was_chosen():
    grids = {path.stem: read_ablation(path) for path in CONFIGS.glob("tuning/*.yaml")}
    assert set(grids) == set(shipped()) and len(list(CONFIGS.glob("ablate-*.yaml"))) == 7
    for name, asked in grids.items():
        assert asked.method == name and not asked.vary
        assert [len(values) for values in asked.grid.values()] == [2, 2]


def test_a_recipe_has_the_values_of_the_best_run():
    rows = json.loads((CONFIGS.parent / "docs" / "records" / "tuning.json").read_text())["values"]["runs"]
    best = {row["method"]: row["settings"] for row in rows if row["best"]}
    assert set(best) == set(shipped())
    for method, words in best.items():
        found = dict(re.findall(r"(\w+) = (\[.*?\]|[^,]+)", words))
        assert len(found) == 2
        for key, value in found.items():
            told = recipe(method).get(key, find_method(method).settings.model_fields[key].default)
            assert told == yaml.safe_load(value), (method, key)
