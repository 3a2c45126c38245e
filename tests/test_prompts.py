"""Readers of prompt files: every format gives the same prompts, and what cannot be read is said in one line."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest

from bootdiff.core.errors import BootdiffError
from bootdiff.data.prompts import PromptFile, read_prompts

# A quoted word first, commas, a letter outside Latin-1, and a repeated prompt: what a format could lose.
PROMPTS = ('"PEACE" on a wall, painted', "a red café, at dawn", "两只猫", "a red café, at dawn")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "prompts"

CSV = '"""PEACE"" on a wall, painted"\n"a red café, at dawn"\n\n两只猫\n  \n" a red café, at dawn "\n'
ITEMS = [PROMPTS[0], PROMPTS[1], "", PROMPTS[2], "  ", f" {PROMPTS[3]} "]
TEXTS = {
    "lines.txt": "\n".join(ITEMS),
    "lines": "\n".join(ITEMS) + "\n",
    "lines.prompts": "\n".join(ITEMS) + "\n",
    "one.csv": "Text\n" + CSV,
    "bare.csv": CSV,
    "bare.tsv": "\n".join(ITEMS),
    "several.CSV": "id,Caption\n" + "".join(f'{i},"{t.replace(chr(34), chr(34) * 2)}"\n' for i, t in enumerate(ITEMS)),
    "several.tsv": "Prompt\tNote\n" + "".join(f"{item}\tnone\n" for item in ITEMS),
    "strings.jsonl": "".join(json.dumps(item) + "\n" for item in ITEMS),
    "objects.jsonl": "".join(json.dumps({"id": 1, "text": item}) + "\n" for item in ITEMS),
    "objects.ndjson": "".join(json.dumps({"prompt": item or None}, ensure_ascii=False) + "\n" for item in ITEMS),
    "gaps.jsonl": "".join((json.dumps(item) if item.strip() else item) + "\n" for item in ITEMS),
    "strings.json": json.dumps(ITEMS, indent=1),
    "objects.json": json.dumps([{"prompts": item, "seed": 3} for item in ITEMS]),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(path: Path | str, column: str | None = None) -> str:
    """The message of the error that reading a file raises: one line, which names the file."""
    with pytest.raises(BootdiffError) as caught:
        read_prompts(path, column)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_text_format_gives_the_same_prompts(tmp_path, name, ending, mark):
    path = write(tmp_path, name, mark + TEXTS[name].replace("\n", ending).encode())
    assert read_prompts(path) == PromptFile(PROMPTS, 2, str(path))


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_parquet_gives_the_same_prompts(tmp_path, kind):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    kinds = {"string": pa.string(), "large_string": pa.large_string(), "dictionary": pa.dictionary(pa.int8(), "string")}
    items = pa.array([item or None for item in ITEMS]).cast(kinds[kind])
    path = tmp_path / "prompts.parquet"
    # Columns with dots and a struct must not be taken for the one asked for; small groups make several batches.
    table = pa.table({"prompt.id": range(6), "prompt": items, "nested": [{"prompt": "no"}] * 6})
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    assert read_prompts(path) == PromptFile(PROMPTS, 2, str(path))
    assert read_prompts(path, "prompt").prompts == PROMPTS


def test_the_source_is_the_name_as_given(tmp_path, monkeypatch):
    write(tmp_path, "a.txt", "a cat\n")
    monkeypatch.chdir(tmp_path)
    assert read_prompts("a.txt").source == "a.txt"


@pytest.mark.parametrize(
    "header, taken",
    [
        ("text,caption,prompts,prompt", "4"),
        ("text,caption,Prompts,id", "3"),
        ("text,CAPTION,id,url", "2"),
        ("id,url, Text ,size", "3"),
        ("id,PROMPT,prompt,size", "2"),
    ],
)
def test_the_most_telling_column_is_taken(tmp_path, header, taken):
    assert read_prompts(write(tmp_path, "a.csv", f"{header}\n1,2,3,4\n")).prompts == (taken,)


def test_a_named_column_goes_before_a_telling_one(tmp_path):
    named = {"a.csv": "prompt,long\na,b\n", "a.tsv": "prompt\tlong\na\tb\n", "a.json": '[{"prompt": "a", "long": "b"}]'}
    for name, content in named.items():
        assert read_prompts(write(tmp_path, name, content), "long").prompts == ("b",)


def test_a_short_row_is_blank_and_empty_cells_at_its_end_are_nothing(tmp_path):
    found = read_prompts(write(tmp_path, "a.csv", "id,prompt\n1\n2,a cat,,\n"))
    assert found.prompts == ("a cat",) and found.blank == 1


def test_a_quoted_prompt_may_have_several_lines(tmp_path):
    path = write(tmp_path, "a.csv", 'prompt\n"a cat\r\nand a dog"\na bird\n')
    assert read_prompts(path).prompts == ("a cat\nand a dog", "a bird")


def test_a_huge_cell_is_read_and_the_limit_of_the_process_stays(tmp_path):
    before = csv.field_size_limit(12_345)
    huge = "word " * 100_000
    path = write(tmp_path, "a.csv", f"prompt,notes\na cat,{huge}\n{huge},none\n")
    assert read_prompts(path).prompts == ("a cat", huge.strip())
    said(write(tmp_path, "b.csv", f"prompt\n{huge}\na,b\n"))
    assert csv.field_size_limit(before) == 12_345


def test_the_digest_tells_prompts_order_and_borders_apart(tmp_path):
    lists = [["a", "b"], ["b", "a"], ["a", "b", "b"], ["ab"], ["a\nb"]]
    digests = [read_prompts(write(tmp_path, "a.json", json.dumps(items))).digest for items in lists]
    assert len(set(digests)) == len(lists)
    assert all(len(digest) == 16 and int(digest, 16) for digest in digests)
    assert read_prompts(write(tmp_path, "other.txt", "a\n\nb\n")).digest == digests[0]


COLUMN_ERRORS = [
    ("a.csv", "prompt,style\na,b\n", "promt", ["line 1 has no column 'promt'", "prompt, style", "mean 'prompt'?"]),
    ("a.jsonl", '{"prompt": "a"}\n', "promt", ["line 1 has no column 'promt'", "mean 'prompt'?"]),
    ("a.csv", "id,words\n1,a\n", None, ["line 1 has columns id, words", "--prompt-column", "caption"]),
    ("a.tsv", "id\twords\n1\ta\n", None, ["line 1 has columns id, words", "--prompt-column"]),
    ("a.json", '[{"id": 1, "words": "a"}]', None, ["item 1 has columns id, words", "--prompt-column"]),
    ("a.json", "[{}]", None, ["item 1 has columns none"]),
    ("a.csv", '"first\nhalf",b\n1,2\n', None, ["first half, b"]),
    ("a.txt", "a cat\n", "prompt", ["has no columns", "leave out --prompt-column prompt"]),
    ("a", "a cat\n", "prompt", ["has no columns", "leave out --prompt-column prompt"]),
    ("a.jsonl", '"a cat"\n', "prompt", ["line 1 is a string without columns", "'prompt'"]),
    ("a.jsonl", '{"prompt": "a"}\n\n{"caption": "b"}\n', None, ["line 3 has no column 'prompt'", "caption"]),
    ("a.csv", "prompt;id\na cat;1\n", None, ["'prompt;id'", "expected commas"]),
    ("a.tsv", "prompt,id\na cat,1\n", None, ["'prompt,id'", "expected tabs"]),
]
CONTENT_ERRORS = [
    ("a.csv", "prompt\na cat\na cat, sitting\n", ["line 3 has 2 cells, expected 1", "double quotes"]),
    ("a.csv", 'prompt\n"a cat\nsits"\n\na cat, sitting\n', ["line 5 has 2 cells"]),
    ("a.tsv", "prompt\na cat\tsitting\n", ["line 2 has 2 cells, expected 1", "tabs"]),
    ("a.csv", 'prompt\na cat\n"PEACE" on a wall\n', ["line 3 is not CSV", "double those inside"]),
    ("a.csv", 'prompt\na cat\n"a dog\na bird\n', ["line 3 is not CSV", "close its quotes"]),
    ("a.jsonl", '"a"\n{"prompt": \n', ["line 2 is not JSON", "Expecting value"]),
    ("a.jsonl", '"a"\n' + "[" * 100_000 + "\n", ["line 2 is not JSON", "recursion"]),
    ("a.jsonl", '"a"\n' + "1" * 5000 + "\n", ["line 2 is not JSON", "digits"]),
    ("a.json", '["a",\n"b",,\n]', ["line 2 is not JSON"]),
    ("a.json", '{"prompts": ["a"]}', ["type dict", "expected a list"]),
    ("a.jsonl", '"a"\n{"prompt": 3}\n', ["line 2", "type int", "expected a string"]),
    ("a.jsonl", '"a"\n["b"]\n', ["line 2", "type list", "expected a string"]),
    ("a.json", '["a", true]', ["item 2", "type bool", "expected a string"]),
    ("a.json", r'["a", "b\ud800"]', ["item 2", "half a character"]),
    ("a.json", r'["a", "b\u0000"]', ["item 2", "NUL"]),
    ("a.txt", b"a cat\na caf\xe9\n", ["line 2 is not UTF-8", "byte 0xe9", "save"]),
    ("a.csv", b"prompt\na cat\na caf\xe9\n", ["line 3 is not UTF-8", "byte 0xe9"]),
    ("a.jsonl", b'"a"\n"caf\xe9"\n', ["line 2 is not UTF-8", "byte 0xe9"]),
    ("a.json", b'["a",\n"caf\xe9"]', ["line 2 is not UTF-8", "byte 0xe9"]),
    ("a.txt", "a cat\n".encode("utf-16"), ["line 1 is not UTF-8"]),
    ("a.txt", "a cat\n".encode("utf-16-le"), ["line 1 is not UTF-8", "byte 0x00"]),
    ("a.tsv", b"prompt\tid\na\t1\na\0cat\t2\n", ["line 3 is not UTF-8", "byte 0x00"]),
]
EMPTY = [
    ("a.txt", "", 0),
    ("a.txt", " \n\t\r\n\n", 3),
    ("a.csv", "", 0),
    ("a.csv", "\n\n", 0),
    ("a.csv", "prompt,id\n", 0),
    ("a.csv", "prompt,id\n ,1\n,2\n", 2),
    ("a.tsv", "prompt\n\n", 1),
    ("a.json", "", 0),
    ("a.json", '["", null, {"prompt": ""}]', 3),
    ("a.jsonl", "\n", 1),
]


@pytest.mark.parametrize("name, content, column, fragments", COLUMN_ERRORS)
def test_an_unclear_column_is_said_in_one_line(tmp_path, name, content, column, fragments):
    message = said(write(tmp_path, name, content), column)
    assert all(fragment in message for fragment in [str(tmp_path / name), *fragments]), message


@pytest.mark.parametrize("name, content, fragments", CONTENT_ERRORS)
def test_content_that_cannot_be_read_is_said_in_one_line(tmp_path, name, content, fragments):
    message = said(write(tmp_path, name, content))
    assert all(fragment in message for fragment in [str(tmp_path / name), *fragments]), message


@pytest.mark.parametrize("name, content, blank", EMPTY)
def test_a_file_without_prompts_is_said_in_one_line(tmp_path, name, content, blank):
    assert f"{name} holds no prompts (blank ones: {blank})" in said(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.parquet", "a\0b"])
def test_a_missing_file_and_a_folder_are_told_apart(tmp_path, name):
    path = tmp_path / name
    assert "found no such file" in said(path)
    if "\0" not in name:
        path.mkdir()
        assert "found a folder" in said(path)


def test_what_the_system_refuses_is_said_in_one_line(tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path, "a.txt", "a cat\n")
    monkeypatch.setattr(Path, "open", refuse)
    assert "a.txt cannot be read (Permission denied)" in said(path)
    said(tmp_path / ("a" * 5000))


def test_an_error_can_be_printed_whatever_the_file_is_called(tmp_path):
    message = said(os.fsdecode(os.fsencode(tmp_path) + b"/two\nlines \xff.txt"))
    assert "two lines ?.txt" in message and message.encode()


def test_a_long_list_of_columns_is_cut_and_keeps_its_cure(tmp_path):
    message = said(write(tmp_path, "a.csv", ",".join(f"column{i}" for i in range(1000)) + "\n1\n"))
    assert "column1," in message and "…" in message and "--prompt-column" in message and len(message) < 800


def test_parquet_that_cannot_be_read_is_said_in_one_line(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"id": [1], "words": ["a"]}), path)
    assert "has columns id, words" in said(path) and "--prompt-column" in said(path)
    assert "has no column 'wrods'" in said(path, "wrods") and "mean 'words'?" in said(path, "wrods")
    assert "row 1" in said(path, "id") and "type int" in said(path, "id")
    whole = path.read_bytes()
    for damaged in (b"", b"no parquet", whole[:-20], whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:]):
        path.write_bytes(damaged)
        assert "cannot be read as parquet" in said(path)
    pyarrow.parquet.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    assert "holds no prompts" in said(path)


def test_parquet_without_pyarrow_names_the_install(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'bootdiff[train]'" in said(write(tmp_path, "a.parquet", b"PAR1"))


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real prompts are not beside this repository: {path}")
    return path


def test_partiprompts_is_read_as_it_was_written():
    found = read_prompts(shared("parti/PartiPrompts.tsv"))
    assert len(found.prompts) == len(set(found.prompts)) == 1632 and found.blank == 0
    # Read with CSV's quoting, this one loses its quotes.
    assert any(prompt.startswith('"G I G G L E" painted in thick') for prompt in found.prompts)
    assert sum('"' in prompt for prompt in found.prompts) == 22
    assert max(map(len, found.prompts)) == 389
    assert len(set(read_prompts(shared("parti/PartiPrompts.tsv"), "Category").prompts)) == 12


@pytest.mark.parametrize(
    "name, count, distinct",
    [
        ("3d_spatial", 1000, 1000),
        ("color", 860, 842),
        ("complex", 1000, 1000),
        ("non_spatial", 1000, 1000),
        ("numeracy", 1000, 1000),
        ("shape", 1000, 985),
        ("spatial", 1000, 998),
        ("texture", 1000, 995),
    ],
)
def test_t2i_compbench_keeps_its_repeated_prompts(name, count, distinct):
    found = read_prompts(shared(f"t2i-compbench/{name}.txt"))
    assert (len(found.prompts), len(set(found.prompts)), found.blank) == (count, distinct, 0)
    assert not any(prompt != prompt.strip() or "\r" in prompt for prompt in found.prompts)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that puts files of a data set into a hub's cache of the test's own."""
    from huggingface_hub import constants

    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"

    def put(name: str, files: dict[str, object]) -> None:
        repository = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text(commit)
        for file, held in files.items():
            path = repository / "snapshots" / commit / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(held, str):
                path.write_text(held)
            else:
                pyarrow.parquet.write_table(pyarrow.table(held), path)

    return put


#: DiffusionDB's columns
DIFFUSIONDB = {
    **{"image_name": ["a.png", "b.png"], "prompt": ["a doom eternal, game concept art", "beautiful porcelain ivory"]},
    **{"part_id": [1, 1], "seed": [38753269, 416330048], "step": [50, 50], "cfg": [7.0, 7.0], "sampler": [8, 8]},
}


def test_prompts_of_the_hub_have_diffusiondbs_form(hub, cli, tmp_path):
    hub("poloclub/diffusiondb", {"metadata.parquet": DIFFUSIONDB, "metadata-large.parquet": DIFFUSIONDB})
    read = read_prompts("hf:poloclub/diffusiondb/metadata.parquet")
    assert list(read.prompts) == DIFFUSIONDB["prompt"] and read.source == "hf:poloclub/diffusiondb/metadata.parquet"
    with pytest.raises(BootdiffError, match=r"has several tables \(metadata-large, metadata\); name one of its files"):
        read_prompts("hf:poloclub/diffusiondb")
    asked = ("--prompts", "hf:poloclub/diffusiondb/metadata.parquet", "--output", tmp_path / "run", "--dry-run")
    done = cli("distill", "digits-text", *asked)
    assert done.code == 0 and "prompts: 2" in done.out, done.err


def test_prompts_of_the_hub_come_from_all_parts_of_the_training_split_in_order(hub):
    parts = {f"data/train-0000{i}-of-00002.parquet": {"Prompt": [f"{i}a", f"{i}b"]} for i in range(2)}
    hub("me/prompts", {**parts, "data/eval.parquet": {"Prompt": ["not me"]}})
    assert read_prompts("hf:me/prompts").prompts == ("0a", "0b", "1a", "1b")
    hub("me/lines", {"list.txt": "one\ntwo\n"})
    assert read_prompts("hf:me/lines/list.txt").prompts == ("one", "two")


@pytest.mark.parametrize(
    "word, told",
    [
        ("hf:me/nothing", "the data set me/nothing is not in the hub's cache and could"),
        ("hf:me/nothing/a.parquet", "a.parquet of the data set me/nothing is not in the hub's cache and could"),
        ("hf:a b", "expected hf:NAME"),
    ],
)
def test_prompts_of_the_hub_that_are_not_to_be_had(hub, word, told, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BootdiffError, match=told):
        read_prompts(word)


def test_cocos_captions_are_prompts(tmp_path):
    captions = [
        {"image_id": 203564, "id": 37, "caption": "A bicycle replica with a clock as the front wheel.\n"},
        {"image_id": 322141, "id": 49, "caption": "A room with blue walls and a white sink and door."},
    ]
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps({"info": {}, "images": [{"id": 203564}], "licenses": [], "annotations": captions}))
    assert read_prompts(path).prompts == tuple(one["caption"].strip() for one in captions)
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(BootdiffError, match="expected a list of prompts"):
        read_prompts(path)
