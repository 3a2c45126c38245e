"""The benchmarks that hold two commits against each other: what they see, and what they make of it."""

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
OLD_RUNS = ROOT / "tests" / "fixtures" / "old-runs"
sys.path.insert(0, str(ROOT / "benchmarks"))

import same_bits  # noqa: E402
import sides  # noqa: E402
import step_pairs  # noqa: E402
from contents import bits  # noqa: E402
from records import read_record  # noqa: E402

#: a package whose command writes a student and a log into its --output
WRITER = """
import json, sys, time
from pathlib import Path
run = Path(sys.argv[sys.argv.index("--output") + 1])
run.mkdir()
(run / "student.safetensors").write_bytes(b"{weights}")
(run / "log.jsonl").write_text(json.dumps({{"step": 2, "loss": {loss}, "seconds": time.time()}}) + "\\n")
(run / "report.html").write_text("{page}")
"""
#: one that trains two networks, of which a step of the second takes so many ticks
TRAINER = """
import ticks, torch
from bootdiff.cost import COST
first, second = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]) for _ in range(2))
ticks.order.append(COST)
for _ in range({steps}):
    ticks.now += COST / 2
    first.step()
    ticks.now += COST / 2
    second.step()
print("the end")
"""


def package(folder: Path, main: str, **modules: str) -> Path:
    """A folder that holds a package of that name."""
    place = folder / "src" / "bootdiff"
    place.mkdir(parents=True)
    for name, text in {"__init__": "", "__main__": main, **modules}.items():
        (place / f"{name}.py").write_text(text)
    return folder


def writer(folder: Path, weights: str = "1234", loss: float = 0.5, page: str = "") -> Path:
    return package(folder, WRITER.format(weights=weights, loss=loss, page=page))


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Run a benchmark's main; gives its exit code, its words on stderr and its record."""

    def run(module, *words: object) -> SimpleNamespace:
        path = tmp_path / "record.json"
        monkeypatch.setattr("sys.argv", [str(module.__file__), *map(str, words), "--output", str(path)])
        code = 0
        try:
            module.main()
        except SystemExit as end:
            code = end.code
        return SimpleNamespace(
            code=code, err=capsys.readouterr().err, record=read_record(path) if path.exists() else None
        )

    return run


def test_the_sources_of_a_commit_are_those_that_git_keeps(tmp_path):
    if not (ROOT / ".git").exists() or sides.git("rev-parse", "HEAD").returncode:
        pytest.skip("no git history here")
    side = sides.take("HEAD", tmp_path / "before")
    kept = sides.git("show", "HEAD:src/bootdiff/__init__.py").stdout
    assert (side.src / "bootdiff" / "__init__.py").read_bytes() == kept
    assert side.name == side.word and len(side.name) == 8
    tree = sides.take(".", tmp_path / "after")
    assert (tree.src / "bootdiff" / "__init__.py").read_bytes() == (ROOT / "src/bootdiff/__init__.py").read_bytes()


@pytest.mark.parametrize("module", [same_bits, step_pairs])
def test_a_word_that_names_no_sources_is_told_in_one_line(module, call):
    done = call(module, "nowhere", ".")
    assert done.code == 2 and done.record is None
    assert done.err.count("\n") == 1 and "expected a commit, a folder that holds src, or ." in done.err


# Whether two commits compute the same


def test_a_picture_counts_by_its_pixels_and_a_page_not_at_all(tmp_path):
    seen = []
    for number, (value, level) in enumerate(((7, 0), (7, 9), (8, 9))):
        folder = tmp_path / str(number)
        (folder / "samples").mkdir(parents=True)
        Image.fromarray(np.full((40, 40), value, np.uint8)).save(folder / "samples" / "a.png", compress_level=level)
        (folder / "report.html").write_text(str(number))
        seen.append(bits(folder))
    assert list(seen[0]) == ["samples/a.png"] and seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    "other, differing",
    [
        ({"page": "other words"}, []),
        ({"weights": "1235"}, ["run/student.safetensors"]),
        ({"loss": 0.25}, ["run/log.jsonl"]),
    ],
)
def test_what_differs_is_named_and_ends_with_exit_code_1(other, differing, call, tmp_path, monkeypatch):
    monkeypatch.setattr(same_bits, "JOBS", {"one": ["distill --output run"], "two": ["distill --output run"]})
    done = call(same_bits, writer(tmp_path / "old"), writer(tmp_path / "new", **other))
    same = "no" if differing else "yes"
    assert done.code == (1 if differing else 0), done.err
    assert done.record.values["commits"] == [{"before": "old", "after": "new"}]
    rows = [{"job": name, "files compared": 2, "same": same} for name in ("one", "two")]
    assert done.record.values["jobs"] == rows and str(tmp_path) not in done.record.command
    assert all(f"{job}: {name}\n" in done.err for job in ("one", "two") for name in differing)


def test_a_job_that_fails_or_leaves_nothing_is_no_comparison(call, tmp_path, monkeypatch):
    monkeypatch.setattr(same_bits, "JOBS", {"one": ["distill --output run"]})
    broken = package(tmp_path / "broken", "import sys; sys.exit('│ no such thing  │\\n╰────╯')")
    idle = package(tmp_path / "idle", "")
    for other, words in (
        (broken, "failed with broken: no such thing\n"),
        (idle, "left nothing to compare with idle.\n"),
    ):
        done = call(same_bits, writer(tmp_path / f"old-{other.name}"), other)
        assert done.code == 2 and done.record is None and f"the job 'one' {words}" in done.err


def test_commands_of_the_package_are_compared(call, monkeypatch):
    monkeypatch.setattr(same_bits, "JOBS", {"one": [f"sample {OLD_RUNS / 'run'} --num 3 --output drawn"]})
    done = call(same_bits, ".", ".")
    assert done.code == 0, done.err
    assert done.record.values["jobs"] == [{"job": "one", "files compared": 3, "same": "yes"}]
    assert done.record.threads == 1 and str(ROOT) not in done.record.command


@pytest.mark.parametrize(
    "line",
    [
        *(lines[0] for lines in same_bits.JOBS.values()),
        *(f"{job.command} --output run" for job in step_pairs.JOBS.values()),
    ],
)
def test_what_the_benchmarks_distil_can_be_planned(line, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*shlex.split(line), "--dry-run")
    assert done.code == 0 and "nothing was written" in done.out, done.err


# What a step costs in either


@pytest.fixture
def ticks(monkeypatch) -> SimpleNamespace:
    """The clock that the trainers move, and whose turn it was."""
    made = SimpleNamespace(now=0.0, order=[])
    monkeypatch.setitem(sys.modules, "ticks", made)
    monkeypatch.setattr(step_pairs, "clock", lambda: made.now)
    monkeypatch.setattr(step_pairs, "JOBS", {"two": step_pairs.Job("distill", 1)})
    return made


def trainer(folder: Path, cost: int, steps: int = 10**6) -> Path:
    return package(folder, TRAINER.format(steps=steps), cost=f"COST = {cost}")


def test_pairs_are_taken_in_turns_and_each_package_is_its_own(call, tmp_path, ticks):
    import bootdiff

    path = list(sys.path)
    done = call(step_pairs, trainer(tmp_path / "old", 2), trainer(tmp_path / "new", 3), "--pairs", 3, "--steps", 4)
    assert done.code == 0, done.err
    (row,) = done.record.values["steps"]
    assert row == {
        "method": "two",
        "after ÷ before, median": 1.5,
        "smallest": 1.5,
        "largest": 1.5,
        "pairs": 3,
        "ms a step, before": 2000,
        "ms a step, after": 3000,
    }
    assert ticks.order == [2, 3, 3, 2, 2, 3, 3, 2]  # the first pair warms up
    assert sys.modules["bootdiff"] is bootdiff and "bootdiff.cost" not in sys.modules and sys.path == path


def test_steps_that_warm_up_do_not_count(tmp_path, ticks):
    old = step_pairs.Package(sides.take(str(trainer(tmp_path / "old", 2)), tmp_path / "before"))
    assert step_pairs.turn(old, step_pairs.Job("distill", 1), 4) == 2
    assert ticks.now == 2 * (step_pairs.WARM + 4 + 1)


def test_a_run_that_ends_too_early_is_told(call, tmp_path, ticks):
    done = call(step_pairs, trainer(tmp_path / "old", 2), trainer(tmp_path / "new", 2, steps=3), "--steps", 4)
    assert done.code == 2 and "ended too early with new: the end" in done.err and done.record is None
    done = call(step_pairs, ".", ".", "--steps", 6)
    assert done.code == 2 and "multiple of 4" in done.err


def test_steps_of_the_package_are_seen(tiny, tmp_path, monkeypatch):
    """In BOOT and in the second stage of its correction, whose turns are of two networks."""
    monkeypatch.setattr(step_pairs, "WARM", 1)
    tree = step_pairs.Package(sides.take(".", tmp_path / "tree"))
    short = f"distill {tiny} --batch-size 4 --set sample_every=0 --set watch_every=0"
    stages = "--method boot+dm --set boot.steps=2 --set boot.watch_every=0 --set fake_warmup=1"
    assert step_pairs.turn(tree, step_pairs.Job(short, 0), 4) > 0
    assert step_pairs.turn(tree, step_pairs.Job(f"{short} {stages}", 2), 4) > 0
