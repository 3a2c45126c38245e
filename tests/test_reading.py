"""Configs, JSON, arrays and runs that others wrote or that were edited by hand: one line, never a traceback; and how
messages and reports quote what they read."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import bootdiff
from bootdiff.cli.terminal import show_every_character
from bootdiff.cli.words import read_pattern, read_words
from bootdiff.config.settings import make_settings
from bootdiff.core.errors import LONGEST, BootdiffError, shown
from bootdiff.data.prompts import MOST_PROMPT
from bootdiff.evaluation.cache import cache_folder
from bootdiff.evaluation.references import find_reference
from bootdiff.metrics.features import PixelFeatures
from bootdiff.report.privacy import command_without_places, sentence_without_places, without_place
from bootdiff.storage.arrays import read_npz
from bootdiff.storage.files import read_json
from bootdiff.storage.reading import MOST_JSON, MOST_YAML, parse_yaml, read_config
from bootdiff.storage.runs import Run
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.training.log import read_log
from toys import command

SOURCE = Path(bootdiff.__file__).parent
#: the length of the longest message with "bootdiff: error: " before it
LINE = LONGEST + len("bootdiff: error: ") + 1


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def bomb() -> str:
    """9 values, nine of those, …: 9^10 in all."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    return "\n".join(lines)


def chain(length: int) -> str:
    """A short text whose aliases nest a list in a list in a list …"""
    return "\n".join(["a0: &a0 []", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, length))])


HOSTILE_YAML = {
    "aliases": bomb(),
    "aliases of steps": f"{bomb()}\nsteps: *j",
    "aliases of prompts": f"{bomb()}\nprompts: *j",
    "chain": chain(200),
    "itself": "steps: &a [*a]",
    "base 60": f"steps: {':'.join(['59'] * 2500)}",
    "base 60 with a fraction": f"steps: {':'.join(['59'] * 2500)}.5",
    "hexadecimal": f"steps: 0x{'f' * 5000}",
    "thirty digits": f"steps: {'9' * 30}",
    "nineteen digits": f"steps: {'9' * 19}",
    "deep": nested(5000),
    "somewhat deep": nested(70),
    "deep blocks": "".join(f"{' ' * i}a:\n" for i in range(500)),
    "wide": f"steps: [{'1,' * 30_000}]",
    "long": f"steps: {'x' * 500_000}",
    "long key": f"{'x' * 1000}: 1",
    "no integer": "steps: !!int ''",
    "no truth": "steps: !!bool x",
    "no day": "steps: 2001-99-99",
    "no time": "steps: !!timestamp x",
    "code": "steps: !!python/object/apply:os.system ['true']",
    "list": "- steps",
    "not a number": "learning_rate: .nan",
    "bytes": "steps: \0",
    "two": "--- 1\n--- 2",
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_a_config_that_explodes_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "a.yaml"
    path.write_text(HOSTILE_YAML[name])
    with pytest.raises(BootdiffError) as caught:
        make_settings(TeacherSettings, read_config(path))
    assert len(str(caught.value)) <= LONGEST and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words", [("distill", "digits", "--config"), ("train-teacher", "digits", "--config"), ("ablate",)]
)
def test_every_command_reads_its_config_so(cli, tmp_path, words):
    (tmp_path / "a.yaml").write_text(HOSTILE_YAML["aliases of steps"])
    done = cli(*words, tmp_path / "a.yaml", "--output", tmp_path / "out")
    assert done.code == 2 and "unfold" in done.err and done.err.count("\n") == 1 and len(done.err) <= LINE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("read", "most", "noun"),
    [(read_config, MOST_YAML, "config file"), (read_json, MOST_JSON, "JSON file")],
    ids=["YAML", "JSON"],
)
def test_what_is_read_must_be_a_regular_file_of_a_stated_size(tmp_path, read, most, noun):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(most + 1)
    refused = {"pipe": "a pipe", "device": "a device", "large": f"{most + 1:,} bytes", "nothing": "found none"}
    for name, words in refused.items():
        with pytest.raises(BootdiffError, match=words) as caught:
            read(tmp_path / name)
        assert noun in str(caught.value)


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 2\nprompts: 'a cât'\n", encoding="utf-8-sig")
    assert read_config(tmp_path / "a.yaml") == {"steps": 2, "prompts": "a cât"}


@pytest.mark.parametrize("name", ["config.yaml", "meta.json", "done.json", "log.jsonl", "evaluation.json"])
def test_a_run_s_files_may_begin_with_a_byte_order_mark(cli, run, name):
    """As some editors save them."""
    if name == "evaluation.json":
        assert cli("evaluate", run, "--num", 2, "--no-heun", "--calls", 1, "--output", run / name).code == 0
    lines = read_log(run / "log.jsonl")
    (run / name).write_text((run / name).read_text(encoding="utf-8"), encoding="utf-8-sig")
    done = cli("report", run)
    assert done.code == 0 and read_log(run / "log.jsonl") == lines, done.err


def test_aliases_and_merges_that_stay_small_are_read():
    assert parse_yaml("a: &a {b: 1}\nc: {<<: *a, d: *a}\ne: 0x1F\nf: 1:30\ng: 1e-4\nh: .inf") == {
        **{"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}},
        **{"e": 31, "f": 90, "g": "1e-4", "h": float("inf")},
    }


@pytest.mark.parametrize(
    "words",
    [
        ["boot=1", "boot.steps=2"],
        ["boot.steps=2", "boot=1"],
        ["boot.steps=2", "boot.steps.x=1"],
        ["steps=" + "[" * 5000],
        ["steps=" + nested(5000)],
        ["steps=" + "x" * 100_000],
        ["x" * 100_000 + "=1"],
        ["x" * 100_000],
        [".".join("x" * 5000) + "=1"],
        ["steps=" + ":".join(["59"] * 2500)],
        ["steps=&a [*a]"],
        [".steps=1"],
        ["=1"],
        ["steps=\ud800"],
    ],
    ids=lambda words: words[-1][:20].encode(errors="replace").decode(),
)
def test_settings_on_the_command_line_that_explode_are_refused_in_one_line(cli, tmp_path, words):
    assigned = [part for word in words for part in ("--set", word)]
    done = cli("distill", "digits", "--method", "boot+dm", "--output", tmp_path / "out", *assigned)
    assert done.code == 2 and done.err.count("\n") == 1 and len(done.err) <= LINE, done.err[:500]


@pytest.mark.parametrize(
    "words",
    [
        ["--steps", "9" * 100_000],
        ["--" + "x" * 100_000],
        ["--method", "x" * 100_000],
        ["--classes", "9," * 50_000 + "x"],
        ["--prompts", "x" * 100_000],
        ["x" * 100_000],
    ],
    ids=lambda words: words[0][:20],
)
def test_what_was_typed_is_cut_where_a_message_quotes_it(cli, tmp_path, words):
    done = cli("distill", "digits", "--output", tmp_path / "out", *words)
    assert done.code == 2 and len(done.err) < 1500  # with the usage and the box around it


@pytest.mark.parametrize(
    ("command", "words", "names"),
    [
        ("distill", ["--steps", 2, "--set", "steps=nan"], "--steps gives 2 and --set steps gives nan"),
        ("distill", ["--set", "batch_size=4", "--batch-size", 8], "--batch-size gives 8 and --set batch_size gives 4"),
        ("distill", ["--guidance-range", 1, 5, "--set", "guidance_range=[1, 6]"], "--set guidance_range gives [1, 6]"),
        ("distill", ["--set", "steps=2", "--set", "steps=3"], "'steps' the values 2 and 3"),
        ("distill", ["--set", "boot.steps=2", "--set", "boot={seed: 1}"], "'boot' the values"),
        (
            "train-teacher",
            ["--steps", 1, "--with-student", "--set", "with_student=shared"],
            "--with-student gives 'beside'",
        ),
    ],
)
def test_two_values_for_one_setting_are_refused_whichever_way_they_are_given(cli, tmp_path, command, words, names):
    done = cli(
        command, "digits", "--output", tmp_path / "out", *words, *(["--dry-run"] if command == "distill" else [])
    )
    assert done.code == 2 and names in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "out").exists()


def test_the_same_value_may_be_given_twice_and_a_config_s_be_replaced(cli, tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 9\nbatch_size: 3\n")
    words = ["--steps", 2, "--set", "steps=2", "--set", "steps=2", "--config", tmp_path / "a.yaml"]
    done = cli("distill", "digits", "--output", tmp_path / "out", "--dry-run", *words)
    assert done.code == 0 and "  steps: 2\n" in done.out and "  batch_size: 3\n" in done.out, done.err


def test_a_pattern_of_too_many_prompts_is_refused():
    with pytest.raises(BootdiffError, match="more than 10,000 prompts"):
        read_pattern("{a,b}" * 40)
    assert len(read_pattern("{a,b}" * 3)) == 8


def test_a_grid_of_too_many_variants_is_refused(cli, tmp_path):
    grid = {name: list(range(1, 40)) for name in ("steps", "batch_size", "log_every", "keep_last")}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"teacher": "digits", "grid": grid}))
    done = cli("ablate", tmp_path / "a.yaml", "--output", tmp_path / "out")
    assert done.code == 2 and "more than 10,000 variants" in done.err and not (tmp_path / "out").exists()


def test_words_that_no_tokenizer_takes_are_refused_on_the_command_line():
    for words in (("a\0cat",), ("\udcff",), ("x" * (MOST_PROMPT + 1),)):
        with pytest.raises(BootdiffError, match="--prompt"):
            read_words(words, None, None)


def test_values_are_quoted_short_whatever_they_are():
    for value in (
        "x" * 10**6,
        10**5000,
        [[0] * 10**5] * 3,
        {"a": "b" * 10**5},
        b"x" * 10**6,
        {(i,): i for i in range(999)},
    ):
        assert len(shown(value)) <= 80
    assert shown([1, "a", 0.5]) == "[1, 'a', 0.5]" and shown("a\nb") == "'a\\nb'"


@pytest.mark.parametrize("length", [10, 300, 301, 10**6])
def test_a_message_is_one_line_that_keeps_its_beginning_and_its_end(length):
    message = str(BootdiffError(f"begin\n{'x' * length}\nend."))
    assert message.startswith("begin x") and message.endswith("x end.") and len(message) <= LONGEST


# -- JSON -------------------------------------------------------------------------------------------------------------

HOSTILE_JSON = {
    "deep": '{"a": ' * 100_000,
    "deep lists": '{"a": ' + nested(100_000) + "}",
    "somewhat deep": '{"a": ' + nested(70) + "}",
    "digits": '{"a": ' + "9" * 5000 + "}",
    "fifty digits": '{"a": ' + "9" * 50 + "}",
    "not a number": '{"a": NaN}',
    "two values for a name": '{"a": {"b": 1, "b": 2}}',
    "list": "[1]",
    "number": "3",
    "empty": "",
    "cut": '{"a": ',
    "bytes": "\udcff",
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_json_that_explodes_or_is_none_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "a.json").write_bytes(HOSTILE_JSON[name].encode(errors="surrogateescape"))
    with pytest.raises(BootdiffError, match=r"a\.json") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) <= LONGEST


def test_stock_configs_hold_infinity_and_may_begin_with_a_mark(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"lambda_min_clipped": -Infinity, "a": [[18446744073709551615]]}')
    assert read_json(tmp_path / "a.json") == {"lambda_min_clipped": float("-inf"), "a": [[2**64 - 1]]}
    # As transformers writes the longest text of a tokenizer that knows none.
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert read_json(tmp_path / "tokenizer_config.json") == {"model_max_length": int(1e30)}


def test_images_yaml_and_json_are_opened_in_one_place_each():
    """A reader beside those that have limits would have none."""
    allowed = {
        "Image.open": {"data/decode.py"},
        "np.load": {"data/prompt_cache.py"},  # our own arrays, mapped
        "json.loads": {
            "storage/reading.py",
            "teachers/loading/components.py",
        },  # the second: what json.dumps has just written
        "json.load": set(),
        "yaml.safe_load": set(),
        "yaml.load": set(),
        "yaml.SafeLoader": {"storage/safe_yaml.py"},
        "gzip.decompress": set(),
        "gzip.open": set(),
        "parquet.read_table": set(),
        "parquet.ParquetFile": {"data/parquet.py"},
    }
    last = {words.split(".")[1] for words in allowed}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in last:
                words = ast.unparse(node).replace("numpy.load", "np.load").replace("pyarrow.parquet", "parquet")
                inside = path.relative_to(SOURCE).as_posix()
                assert inside in allowed.get(words, {inside}), f"{inside} uses {words}: see the modules that read"


# -- arrays ------------------------------------------------------------------------------------------------------------


def header(shape: str, kind: str = "<f8") -> bytes:
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


def zipped(path: Path, packed: bool = True, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, data in arrays.items():
            file.writestr(f"{name}.npy", data)
    return path


def spoiled(path: Path) -> Path:
    """With a byte of the packed data changed."""
    zipped(path, mu=header("(2,)") + bytes(16), sigma=header("(2, 2)") + os.urandom(32))
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    return path


def arrays(path: Path, **values) -> Path:
    np.savez(path, **{"mu": np.zeros(64), "sigma": np.eye(64), **values})
    return path


HOSTILE_ARRAYS = {
    "corrupt": spoiled,
    "a header of 10^12": lambda path: zipped(path, mu=header("(1000000000000,)"), sigma=header("(2, 2)")),
    "a negative size": lambda path: zipped(path, mu=header("(-1,)") + bytes(8), sigma=header("(2, 2)")),
    "no header": lambda path: zipped(path, mu=b"", sigma=b"\x93NUMPY"),
    "zeros": lambda path: zipped(
        path, mu=header("(3000,)") + bytes(24_000), sigma=header("(3000, 3000)") + bytes(72_000_000)
    ),
    "many zeros": lambda path: arrays(path, mu=np.zeros(1500), sigma=np.zeros((1500, 1500))),
    "complex": lambda path: arrays(path, sigma=np.eye(64) + 1j),
    "objects": lambda path: arrays(path, mu=np.array([print] * 64)),
    "words": lambda path: arrays(path, mu=np.array(["a"] * 64)),
    "nothing": lambda path: arrays(path, mu=np.zeros(0), sigma=np.zeros((0, 0))),
    "two counts": lambda path: arrays(path, count=np.array([1, 2])),
    "an endless count": lambda path: arrays(path, num=np.array([np.inf])),
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)) and path,
    "one array": lambda path: zipped(path, other=header("(2,)") + bytes(16)),
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_a_reference_that_is_none_is_refused_in_one_line(tmp_path, name):
    path = HOSTILE_ARRAYS[name](tmp_path / "a.npz")
    with pytest.raises(BootdiffError, match=r"a\.npz") as caught:
        find_reference(str(path), PixelFeatures((1, 8, 8)))
    assert len(str(caught.value)) <= LONGEST and "\n" not in str(caught.value)


def test_arrays_of_any_real_type_and_order_are_read(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    for kind in ("<f4", ">f8", "<i2", "|u1"):
        np.savez_compressed(tmp_path / "a.npz", a=np.asfortranarray(values.astype(kind)), b=np.array("word"))
        held = read_npz(tmp_path / "a.npz", ("a", "c"), ("b",))
        assert np.array_equal(held["a"], values) and str(held["b"]) == "word" and "c" not in held


@pytest.mark.parametrize("name", ["corrupt", "a header of 10^12", "complex", "no zip", "words"])
def test_our_own_cache_is_made_anew_where_it_is_damaged(tmp_path, monkeypatch, capsys, name):
    from PIL import Image

    monkeypatch.setenv("BOOTDIFF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    first = find_reference(str(tmp_path / "images"), PixelFeatures((1, 8, 8)))
    kept = next(cache_folder().glob("*.npz"))
    whole = kept.read_bytes()
    HOSTILE_ARRAYS[name](kept)
    again = find_reference(str(tmp_path / "images"), PixelFeatures((1, 8, 8)))
    assert np.array_equal(again.statistics.mean, first.statistics.mean) and kept.stat().st_size == len(whole)
    assert "computed anew" in capsys.readouterr().err


# -- runs --------------------------------------------------------------------------------------------------------------

SMALL = ["--steps", 2, "--batch-size", 2, "--set", "sample_every=0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny) -> Path:
    """A folder with a teacher and its finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("somewhere") / "secret-place"
    folder.mkdir()
    shutil.copytree(tiny, folder / "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["bootdiff", "distill", str(folder / "teacher"), "--output", "run", *map(str, SMALL)])
        from bootdiff.cli.main import app

        app(standalone_mode=False)
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A run of this test's own, beside its teacher, in the working folder."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copytree(finished / "teacher", tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


BROKEN_CONFIGS = {
    "aliases": bomb(),
    "list": "- a",
    "deep": nested(5000),
    "settings": "{task: distill, teacher: teacher, method: boot, settings: 3}",
    "no settings": "{task: distill, teacher: teacher, method: boot}",
    "teacher": "{task: distill, teacher: [1], method: boot, settings: {}}",
    "base": "{task: distill, teacher: teacher, method: boot, settings: {base: 3, prompts: [x]}}",
    "options": "{task: distill, teacher: teacher, method: boot, settings: {}, teacher_options: x}",
    "bytes": "\0",
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_a_run_whose_config_is_broken_is_said_in_one_line(tmp_path, name):
    (tmp_path / "config.yaml").write_text(BROKEN_CONFIGS[name])
    with pytest.raises(BootdiffError, match=r"config\.yaml") as caught:
        _ = Run(tmp_path).config
    assert len(str(caught.value)) <= LONGEST


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "run", "--num", 1, "--output", "a.png"),
        ("distill", "teacher", "--output", "run", *SMALL),
        ("export", "run", "--output", "exported"),
        ("report", "run"),
        ("evaluate", "run", "--num", 2, "--output", "a.json"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_reads_a_run_so(cli, run, words):
    (run / "config.yaml").write_text(BROKEN_CONFIGS["aliases"])
    done = cli(*words)
    assert done.code == 2 and done.err.count("\n") == 1 and len(done.err) <= LINE, done.err[-900:]
    assert "config.yaml" in done.err


def test_more_samples_than_the_disk_has_room_for_are_refused_and_others_written_one_by_one(cli, run, monkeypatch):
    free = shutil.disk_usage("/")._replace(free=40_000)
    monkeypatch.setattr("shutil.disk_usage", lambda place: free)
    done = cli("sample", "run", "--num", 10, "--output", "new/files")
    assert done.code == 2 and "10 images may need" in done.err and done.err.count("\n") == 1, done.err
    assert not Path("new").exists()
    assert cli("sample", "run", "--num", 9, "--batch-size", 4, "--output", "new/files").code == 0
    assert sorted(path.name for path in Path("new/files").iterdir()) == [f"{number:05d}.png" for number in range(9)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done.json", '{"steps": "2", "seconds": 1}'),
        ("done.json", '{"steps": 2}'),
        ("done.json", '{"steps": 2, "seconds": 1, "student_step": [1]}'),
        ("done.json", '{"steps": 2, "seconds": Infinity}'),
        ("done.json", nested(100_000)),
        ("meta.json", '{"sources": [1]}'),
        ("meta.json", '{"command": 3, "versions": {}}'),
        ("meta.json", "[]"),
    ],
)
def test_a_run_whose_other_files_are_broken_is_said_in_one_line(cli, run, name, content):
    (run / name).write_text(content)
    (run / "report.html").unlink(missing_ok=True)
    done = cli("report", run)
    assert done.code == 2 and name in done.err and done.err.count("\n") == 1 and len(done.err) <= LINE, done.err[-900:]


@pytest.mark.parametrize("place", ["./teacher", "other/../teacher/", "moved"])
def test_a_teacher_that_is_named_by_another_path_is_the_same(cli, run, place):
    (run.parent / "other").mkdir()
    if place == "moved":
        (run.parent / "teacher").rename(run.parent / "moved")
    done = cli("distill", place, "--output", run, *SMALL)
    assert done.code == 0 and "is finished" in done.out and "the run goes on" in done.err, done.err


def test_a_run_that_goes_on_from_another_folder_keeps_its_words(cli, run, monkeypatch):
    shutil.rmtree(run / "student-path")
    (run / "done.json").unlink()
    (run.parent / "other").mkdir()
    monkeypatch.chdir(run.parent / "other")
    done = cli("distill", "../teacher", "--output", run, *SMALL)
    assert done.code == 0 and "the run goes on" in done.err, done.err
    facts = json.loads((run / "student-path" / "bootdiff.json").read_text())
    assert facts["teacher"] == yaml.safe_load((run / "config.yaml").read_text())["teacher"]


def test_another_teacher_is_another_run_still(cli, run):
    from tiny_unet import save_teacher

    save_teacher(run.parent / "another", seed=3)
    done = cli("distill", "another", "--output", run, *SMALL)
    assert done.code == 2 and "holds another run" in done.err


#: a name of one byte, which is no UTF-8
BYTE = "\udcff"


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "run", "--num", 2, "--output", f"{BYTE}.png"),
        ("sample", "run", "--num", 2, "--output", BYTE),
        ("report", "run", "--output", f"{BYTE}.html"),
        ("evaluate", "run", "--num", 2, "--no-heun", "--calls", 1, "--output", f"{BYTE}.json"),
    ],
    ids=lambda words: words[0],
)
def test_results_may_have_any_name(cli, run, words):
    done = cli(*words)
    assert done.code == 0 and Path(words[-1]).exists(), done.err


@pytest.mark.parametrize(
    "words",
    [
        ("distill", "teacher", *SMALL),
        ("train-teacher", "digits", *SMALL),
        ("export", "run"),
        ("compare", "run", "--num", 2),
    ],
    ids=lambda words: words[0],
)
def test_what_holds_weights_has_a_name_in_utf_8(cli, run, words):
    done = cli(*words, "--output", f"out-{BYTE}")
    assert done.code == 2 and "no name in UTF-8" in done.err and done.err.count("\n") == 1, done.err
    assert sorted(path.name for path in Path().iterdir()) == ["run", "teacher"]


def test_weights_in_a_folder_that_is_not_called_in_utf_8_are_not_called_damaged(cli, run):
    Path("run").rename(BYTE)
    Path("teacher").rename(f"teacher-{BYTE}")
    for words in (("sample", BYTE, "--num", 2, "--output", "a.png"), ("inspect", f"teacher-{BYTE}")):
        done = cli(*words)
        assert done.code == 2 and "no name in UTF-8" in done.err and done.err.count("\n") == 1, done.err


def test_a_command_typed_in_bytes_is_kept_as_it_was(cli, run):
    """In the record of the run that it makes."""
    Path("settings.yaml").write_text("steps: 2\nbatch_size: 2\n")
    Path("settings.yaml").rename(f"{BYTE}.yaml")
    assert cli("distill", "teacher", "--output", "other", "--config", f"{BYTE}.yaml").code == 0
    assert BYTE in Run("other").meta["command"]
    assert cli("report", "other").code == 0


# -- reports and terminals ---------------------------------------------------------------------------------------------


def test_a_report_says_what_files_are_called_and_not_where_they_lay(finished):
    page = (finished / "run" / "report.html").read_text()
    assert "One-step student of teacher" in page and "bootdiff distill teacher --output run" in page
    assert "secret-place" not in page and "somewhere" not in page
    assert "secret-place" in (finished / "run" / "meta.json").read_text()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/home/me/secret/teacher", "teacher"),
        ("/home/me/My Documents/teacher/", "teacher"),
        ("../../secret/teacher", "teacher"),
        ("~/secret/teacher", "teacher"),
        ("C:\\Users\\me\\teacher", "teacher"),
        ("owner/model", "owner/model"),
        ("runs/one", "runs/one"),
        ("a cat, red / blue", "a cat, red / blue"),
    ],
)
def test_paths_lose_their_places(path, said):
    assert without_place(path) == said
    quoted = said if " " not in said else f"'{said}'"
    assert command_without_places(f"bootdiff distill '{path}' --set prompts='{path}'").startswith(
        f"bootdiff distill {quoted} "
    )


def test_sentences_lose_the_places_of_paths_and_nothing_else():
    assert (
        sentence_without_places("no file at /home/me/a.npz; 3 images/s, 1/3 of x / y")
        == "no file at a.npz; 3 images/s, 1/3 of x / y"
    )


def test_a_terminal_of_ascii_shows_a_table_in_ascii(monkeypatch):
    from rich.console import Console
    from rich.table import Table

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape"))
    show_every_character()
    drawn = Table(title="Fréchet")
    drawn.add_column("8×8 – ≥ 猫 \udcff")
    drawn.add_row("naïve …")
    Console(file=sys.stdout, width=60).print(drawn)
    print("✓ Fréchet")
    sys.stdout.flush()
    words = sys.stdout.buffer.getvalue().decode("ascii")
    assert "Frechet" in words and "8x8 - >= ? ?" in words and "naive ..." in words and "ok Frechet" in words


@pytest.mark.slow
def test_figures_are_shown_where_the_locale_is_c(tmp_path, run):
    words = ["evaluate", str(run), "--num", "2", "--output", str(tmp_path / "a.json"), "--no-heun", "--calls", "1"]
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command(*words), capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Frechet distance" in done.stdout and done.stdout.isascii()


def test_a_key_that_is_said_twice_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\nsteps: 2\nseed: 7\n")
    with pytest.raises(BootdiffError, match="says 'seed' twice"):
        read_config(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("a: &x {seed: 1}\nb: {<<: *x, steps: 2}\n")
    assert read_config(tmp_path / "d.yaml")["b"] == {"seed": 1, "steps": 2}
