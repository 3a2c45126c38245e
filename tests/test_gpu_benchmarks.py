"""The GPU benchmarks at toy size on this machine's processor: every stage, its record, and what comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "benchmarks" / "gpu" / "run.py"
STAGES = ("smoke", "step", "sample", "fashion", "fashion-long", "colour-teacher", "colour-student", "colour-methods")
#: what the repository may weigh: the GPU pack needs the rest of its 64 MiB for wheels, teachers and images
TRACKED = 44 * 2**20

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@dataclass
class Ran:
    """A run of the stages."""

    code: int
    out: str
    output: Path
    work: Path

    def tables(self, stage: str) -> dict:
        return json.loads((self.output / f"{stage}.json").read_text(encoding="utf-8"))["values"]


def run(folder: Path, *words: object) -> Ran:
    output, work = folder / "output", folder / "work"
    command = [sys.executable, RUN, *words, "--output", output, "--work", work]
    few = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    environment = {**os.environ, **few, "BOOTDIFF_CACHE": str(folder / "cache")}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, env=environment, cwd=folder
    )
    return Ran(done.returncode, done.stdout + done.stderr, output, work)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All stages, one after another, in one call: one for all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "gpu-benchmarks"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        kept = folder / "ran.json"
        if not kept.exists():
            ran = run(folder, *STAGES, "--minutes", "9", "--toy")
            kept.write_text(json.dumps([ran.code, ran.out]), encoding="utf-8")
        return Ran(*json.loads(kept.read_text(encoding="utf-8")), folder / "output", folder / "work")


@pytest.mark.slow
def test_every_stage_runs_and_leaves_a_record(everything):
    assert everything.code == 0, everything.out
    for stage in STAGES:
        assert f"{stage}: done" in everything.out
        record = json.loads((everything.output / f"{stage}.json").read_text(encoding="utf-8"))
        assert record["command"].startswith(f"python benchmarks/gpu/run.py {stage} ")
        assert record["commit"] and record["machine"] and record["versions"]["torch"]
        assert record["values"] and "unfinished" not in record["values"]


@pytest.mark.slow
def test_the_records_are_such_as_tables_are_made_of(everything, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import records
    import tables

    for stage in STAGES:
        record = records.read_record(everything.output / f"{stage}.json")
        assert all(tables.markdown(rows).count("\n") == len(rows) + 2 for rows in record.values.values())


@pytest.mark.slow
def test_smoke_compares_a_family_with_the_cpu_and_with_stock_diffusers(everything):
    families = everything.tables("smoke")["families"]
    assert [row["family"] for row in families] == ["classes", "dit"]
    for row in families:
        assert row["verdict"] == "passed" and row["bf16"] == "finite" and row["steps"] == 5
        assert 0 <= row["CPU − here"] <= 1e-3 and 0 <= row["stock − ours"] <= 1e-3
    assert everything.tables("smoke")["suite"][0]["what"]


@pytest.mark.slow
def test_step_counts_operations_and_compares(everything):
    tables = everything.tables("step")
    assert {"synchronisations", "step", "ratios", "optimiser", "compiled"} <= set(tables)
    assert all(row["ms a step"] > 0 and row["TFLOP a step"] > 0 for row in tables["step"])
    assert [row["AdamW"] for row in tables["optimiser"]] == ["fused", "foreach"]
    assert tables["compiled"][0]["what"] == "not tried at toy size"
    assert all(row["median"] > 0 for row in tables["ratios"])


@pytest.mark.slow
def test_sample_has_one_call_and_many_of_each_network(everything):
    rows = everything.tables("sample")["images a second"]
    networks = {row["network"] for row in rows}
    assert any("SD-" in name for name in networks) and any("SDXL-" in name for name in networks)
    measured = [row for row in rows if "images/s" in row]
    assert {row["calls"] for row in measured} == {1, 10, 50} and {row["batch"] for row in measured} == {1, 2}


@pytest.mark.parametrize("stage", ["fashion", "colour-student"])
@pytest.mark.slow
def test_a_student_has_its_table_and_its_curve(everything, stage):
    tables = everything.tables(stage)
    assert [row["sampler"] for row in tables["samplers"]] == ["student", "first stage, BOOT alone", "teacher, DDIM 2"]
    assert all(row["Fréchet distance"] >= 0 for row in tables["samplers"])
    assert {row["stage"] for row in tables["curve"]} == {"BOOT", "correction"}
    seconds = [row["seconds"] for row in tables["curve"]]
    assert seconds == sorted(seconds)


@pytest.mark.slow
def test_the_colour_teacher_can_be_opened_and_is_in_float16(everything, tmp_path):
    import torch
    from safetensors.torch import load_file

    from bootdiff import load_teacher

    with zipfile.ZipFile(everything.output / "colour-teacher.zip") as archive:
        archive.extractall(tmp_path)
    teacher = load_teacher(str(tmp_path / "colour"))
    assert teacher.denoiser.adapter.null_class == 10 and teacher.shape == (3, 32, 32)
    weights = load_file(tmp_path / "colour/unet/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    data = everything.tables("colour-teacher")["data"][0]
    assert data["onnxruntime − torch"] < 1e-4


@pytest.mark.slow
def test_what_comes_back_is_few_and_small(everything):
    files = [path for path in everything.output.rglob("*") if path.is_file()]
    assert len(files) == 8 and all(path.stat().st_size <= 16 * 2**20 for path in files)
    assert {path.name for path in files if path.suffix == ".zip"} == {"colour-teacher.zip"}
    assert all(f"{name}.zip stays in" in everything.out for name in ("fashion", "fashion-long", "colour-student"))


@pytest.mark.slow
def test_a_second_call_does_nothing_and_says_so(everything):
    before = {path: path.stat().st_mtime_ns for path in everything.output.glob("*.json")}
    again = run(everything.output.parent, "smoke", "fashion", "--minutes", "9", "--toy")
    assert again.code == 0 and again.out.count("resumed: its record is in") == 2
    assert before == {path: path.stat().st_mtime_ns for path in everything.output.glob("*.json")}


@pytest.mark.slow
def test_a_stage_that_fails_takes_no_other_with_it_and_one_that_was_cut_off_goes_on(everything, tmp_path):
    """The student's copy of its teacher is damaged, as one line says. The record is unfinished: it is made anew."""
    shutil.copytree(everything.work / "colour-teacher", tmp_path / "work" / "colour-teacher")
    (tmp_path / "work" / "colour-teacher" / "colour" / "model_index.json").unlink()
    own = tmp_path / "work" / "colour-student" / "colour"
    shutil.copytree(everything.work / "colour-teacher" / "colour", own)
    (own / "model_index.json").write_text("{", encoding="utf-8")
    words = json.loads((everything.output / "colour-teacher.json").read_text(encoding="utf-8"))
    words["values"]["unfinished"] = [{"what": "stopped"}]
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "colour-teacher.json").write_text(json.dumps(words), encoding="utf-8")
    ran = run(tmp_path, "colour-student", "colour-teacher", "--minutes", "5", "--toy")
    assert ran.code == 1 and "colour-student: failed: BootdiffError" in ran.out, ran.out
    assert "colour-teacher: done" in ran.out, ran.out
    assert ran.tables("colour-teacher")["plan"] == everything.tables("colour-teacher")["plan"]


def test_without_time_a_stage_is_not_begun(tmp_path):
    ran = run(tmp_path, "smoke", "--minutes", "0.001", "--toy")
    assert ran.code == 1 and "smoke: not begun" in ran.out and not list(ran.output.glob("*.json"))


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A stage's surroundings."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu"))
    from context import Context

    folders = (tmp_path / "work" / "some", tmp_path / "output", tmp_path / "work")
    return Context("some", *folders, deadline=time.monotonic() + 60, minutes=1, toy=True, command="python some.py")


def test_a_part_that_takes_too_long_is_cut_off(context):
    """In the middle of whatever swallows errors, as a compiler does; and no alarm rings afterwards."""
    from context import OutOfTime

    started = time.monotonic()
    with pytest.raises(OutOfTime), context.limited(0.2):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.05)
    assert time.monotonic() - started < 5
    with context.limited(0.2):
        pass
    time.sleep(0.3)


def test_a_record_is_there_from_the_first_row_and_says_that_it_is_unfinished(context):
    from context import read_tables

    path = context.output / "some.json"
    context.add("rows", {"a": 1})
    assert "unfinished" in json.loads(path.read_text(encoding="utf-8"))["values"] and read_tables(path) is None
    context.finish()
    assert read_tables(path) == {"rows": [{"a": 1}]}


def test_an_archive_leaves_out_what_would_make_it_too_large(context, tmp_path):
    files = {}
    for name, size in (("first", 9 * 2**20), ("second", 9 * 2**20), ("third", 100)):
        files[name] = tmp_path / name
        files[name].write_bytes(os.urandom(size))
    assert context.archive(files) == ["second"]
    path = context.everything / "archives" / "some.zip"
    assert path.stat().st_size <= 15 * 2**20 and zipfile.ZipFile(path).namelist() == ["first", "third"]


def test_wrong_words_end_with_one_line(tmp_path):
    for words, expected in (
        (("smok", "--minutes", "1", "--toy"), "there is no stage 'smok'; expected smoke, step,"),
        (("smoke", "--minutes", "-1", "--toy"), "--minutes should be above 0"),
        (("smoke", "--toy"), "--minutes"),
    ):
        ran = run(tmp_path, *words)
        assert ran.code == 2 and expected in ran.out and len(ran.out.strip().splitlines()) == 1


def test_a_pack_over_its_budget_is_refused(tmp_path):
    """With tools that do nothing in place of pip and of Python, and a wheel that is too large."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --dest ] && head -c 3000000 /dev/zero >"$2/one.whl"; shift; done\n'
    )
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "PACKED": str(tmp_path / "packed"), "WHEELS_MIB": "2"}
    for name in ("model_index.json", "train.parquet"):
        (tmp_path / name).touch()
    script = ROOT / "benchmarks" / "gpu" / "pack.sh"
    command = [str(script), "--teacher", str(tmp_path), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == "pack.sh: the wheels take 2.86 MiB, and the budget is 2 MiB; leave something out.\n"
    done = subprocess.run([*command, "--pyhton", "3.12"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "got '--pyhton'" in done.stderr
    for words, told in (
        (["--python"], "a value after '--python'"),
        (["--python", "banana"], "such as 3.12, got 'banana'"),
    ):
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
    done = subprocess.run([*command, "--data", "nowhere"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "no train.parquet in nowhere" in done.stderr


def test_sheets_give_back_what_was_put_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu"))
    import numpy as np
    import sheets

    tiles = [np.full((32, 32, 3), 2 * i + 40, np.uint8) for i in range(70)]
    (tmp_path / "train-3-70.jpg").write_bytes(sheets.sheet(tiles))
    (tmp_path / "train-11-2.jpg").write_bytes(sheets.sheet(tiles[:2]))
    pixels, labels = sheets.read_sheets(tmp_path, "train")
    assert pixels.shape == (72, 3, 32, 32) and labels.tolist() == [3] * 70 + [11] * 2
    assert int((pixels[:70].int() - np.stack(tiles).transpose(0, 3, 1, 2)).abs().max()) <= 2
    with pytest.raises(ValueError, match=r"no test images in .* run benchmarks/gpu/pack\.sh first"):
        sheets.read_sheets(tmp_path, "test")


def test_the_tracked_files_stay_small():
    if not (ROOT / ".git").exists():
        pytest.skip("no git history here, so that nothing says which files are tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git cannot list the tracked files here")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) <= TRACKED


@pytest.mark.slow
def test_methods_stand_in_one_table(everything):
    rows = everything.tables("colour-methods")["one call"]
    assert {row["method"] for row in rows} == {"boot", "direct"}
    assert all(row["Fréchet distance"] >= 0 and row["passes, thousands"] <= 3 for row in rows)
