"""The figures of docs/results.md are records, and a record is made again by its own command."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from records import FOLDER, Record, new_record, read_record, write_record  # noqa: E402
from tables import TEXTS, filled, markdown  # noqa: E402

RECORDS = sorted(FOLDER.glob("*.json"))


def record(**values) -> Record:
    return Record("python benchmarks/x.py", "0123abcd", "a machine", 2, (0,), "2026-01-01", {"torch": "2"}, values)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_tables_of_the_texts_are_those_of_the_records(path):
    text = path.read_text(encoding="utf-8")
    assert "<!-- record: " in text and filled(text) == text, "run: python benchmarks/tables.py"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_how_it_is_made_again(path):
    known = read_record(path)
    python, script, *_ = shlex.split(known.command)
    assert python == "python" and (ROOT / script).is_file()
    assert known.machine and known.threads > 0 and known.date and known.commit != "unknown" and known.versions["torch"]
    assert known.values and all(rows for rows in known.values.values())
    assert "/" not in known.machine and str(Path.home()) not in path.read_text(encoding="utf-8")


def test_a_record_is_made_again_by_its_command(tmp_path):
    known = read_record(FOLDER / "path.json")
    _, *words = shlex.split(known.command)
    subprocess.run([sys.executable, *words, "--output", tmp_path / "path.json"], cwd=ROOT, check=True)
    again = read_record(tmp_path / "path.json")
    assert again.seeds == known.seeds and again.values.keys() == known.values.keys()
    for old, new in zip(known.values["solvers"], again.values["solvers"], strict=True):
        error = new.pop("path error")
        assert error == pytest.approx(old.pop("path error"), rel=1e-3) and new == old


def test_a_table_is_filled_in_between_its_marks(tmp_path):
    rows = [{"name": "a", "value": 0.123456, "calls": 1234}, {"name": "b", "value": None, "calls": 5, "more": 4.0}]
    write_record(tmp_path / "one.json", record(first=rows))
    text = "before\n<!-- record: one first -->\nold\n<!-- end -->\nafter\n"
    new = filled(text, tmp_path)
    assert new.startswith("before\n<!-- record: one first -->\n| name | value | calls | more |\n")
    assert "| a | 0.1235 | 1,234 | – |" in new and "| b | – | 5 | 4 |" in new
    assert "old" not in new and new.endswith("<!-- end -->\nafter\n") and filled(new, tmp_path) == new


def test_a_mark_without_its_record_is_told(tmp_path):
    write_record(tmp_path / "one.json", record(first=[{"a": 1}]))
    with pytest.raises(ValueError, match="has no table 'second'; it has first"):
        filled("<!-- record: one second -->\n<!-- end -->", tmp_path)
    with pytest.raises(ValueError, match="holds no record"):
        filled("<!-- record: two first -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(
    "change", [{"values": 1}, {"values": {"t": [1]}}, {"versions": {}}, {"threads": None}, {"x": 1}]
)
def test_a_damaged_record_is_told_in_a_line(change, tmp_path):
    write_record(tmp_path / "r.json", record(t=[{"a": 1}]))
    words = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps({**words, **change}))
    with pytest.raises(ValueError, match=r"holds no record .*; make it again"):
        read_record(tmp_path / "r.json")


def test_a_new_record_knows_its_surroundings(tmp_path):
    made = new_record({"t": [{"a": 1}]}, [3], "python benchmarks/x.py")
    write_record(tmp_path / "r.json", made)
    assert read_record(tmp_path / "r.json").values == {"t": [{"a": 1}]}
    assert json.loads((tmp_path / "r.json").read_text())["seeds"] == [3]
    assert not list(tmp_path.glob(".*"))


def test_large_and_small_numbers_keep_four_digits():
    assert "| 12,346 | 1.235e-05 |" in markdown([{"a": 12345.6, "b": 1.2346e-5}])
