"""What others wrote: images, data sets, prompts. Read as it is meant, or refused in one line; never read wrongly."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import struct
import zlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bootdiff.core.errors import LONGEST, BootdiffError
from bootdiff.data.images import image_batches, load_images
from bootdiff.data.labels import load_captions, load_class_names, load_labels, natural
from bootdiff.data.prompts import MOST_PROMPT, read_prompts
from bootdiff.samplers.refine import open_kept
from bootdiff.system import notes

SIDE = 8


@pytest.fixture(autouse=True)
def new_command():
    """Notes are said once a command, and each test is one."""
    notes.begin()


def one_line(call, *args) -> str:
    """The message of the error that a call raises."""
    with pytest.raises(BootdiffError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message and len(message) <= LONGEST, message
    return message


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def from_folder(folder: Path, data: bytes, name: str) -> np.ndarray:
    (folder / "images").mkdir()
    (folder / "images" / name).write_bytes(data)
    return load_images(str(folder / "images"))[0].numpy()


def from_reference(folder: Path, data: bytes, name: str) -> np.ndarray:
    (folder / "reference").mkdir()
    (folder / "reference" / name).write_bytes(data)
    return next(image_batches(str(folder / "reference"), 4)[1])[0].numpy()


def from_parquet(folder: Path, data: bytes, name: str) -> np.ndarray:
    return load_images(str(table(folder / "a.parquet", image=[{"bytes": data, "path": name}])))[0].numpy()


def from_option(folder: Path, data: bytes, name: str) -> np.ndarray:
    """What ``sample --image`` starts from, at the picture's own size."""
    (folder / name).write_bytes(data)
    channels, height, width = from_folder(folder, data, name).shape
    kept = open_kept(folder / name, None, (channels, height, width), None).sample[0]
    return ((kept + 1) / 2 * 255).round().to(torch.uint8).numpy()


def table(path: Path, **columns) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), path, compression="zstd")
    return path


WAYS = [from_folder, from_reference, from_parquet, from_option]
ways = pytest.mark.parametrize("read", WAYS, ids=lambda way: way.__name__)

# -- images: as they are meant to be seen ----------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled_by_their_range(tmp_path, read, kind):
    if kind == "PPM" and read is not from_parquet:
        pytest.skip("only what has no suffix is asked what it is")
    values = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    seen = read(tmp_path, encoded(Image.fromarray(values), kind), f"a.{kind.lower()}")
    assert np.array_equal(seen[0], np.rint(values / 257).astype(np.uint8))


@ways
def test_a_photo_is_turned_as_its_exif_says(tmp_path, read):
    image, exif = Image.fromarray(noise(SIDE, SIDE // 2, 3)), Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        data = encoded(image, exif=exif)
        (tmp_path / f"{orientation}").mkdir()
        seen = read(tmp_path / f"{orientation}", data, "a.png")
        turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert np.array_equal(seen.transpose(1, 2, 0), turned), orientation


def transparent() -> dict[str, bytes]:
    """Red and black of which the first pixel is transparent, in all of the ways that PNG has."""
    red, key = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    red[1:] = 255, 0, 0
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[0] = 0
    palette = Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    hidden = np.asarray(palette)[0, 0].item()
    key[1:] = 7
    return {
        "RGBA": encoded(Image.fromarray(np.dstack([red, alpha]))),
        "LA": encoded(Image.fromarray(np.dstack([key, alpha]), "LA")),
        "a colour": encoded(Image.fromarray(red), transparency=(0, 0, 0)),
        "a grey": encoded(Image.fromarray(key), transparency=0),
        "a palette": encoded(palette, transparency=hidden),
    }


@ways
@pytest.mark.parametrize("kind", ["RGBA", "LA", "a colour", "a grey", "a palette"])
def test_what_is_transparent_is_white_and_said_once(tmp_path, capsys, read, kind):
    seen = read(tmp_path, transparent()[kind], "a.png")
    assert (seen[:, 0] == 255).all() and (seen[:, 1:] != 255).any(0).all()
    assert capsys.readouterr().err.count("laid on white") == 1


def test_an_opaque_alpha_changes_nothing_and_is_not_remarked_on(tmp_path, capsys):
    opaque = np.dstack([noise(SIDE, SIDE, 3), np.full((SIDE, SIDE), 255, np.uint8)])
    assert np.array_equal(
        from_folder(tmp_path, encoded(Image.fromarray(opaque)), "a.png"), opaque[..., :3].transpose(2, 0, 1)
    )
    assert capsys.readouterr().err == ""


def test_a_mask_must_not_be_transparent(tmp_path):
    (tmp_path / "mask.png").write_bytes(transparent()["RGBA"])
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(noise(SIDE, SIDE))))
    assert "mask.png has transparent parts" in one_line(
        open_kept, tmp_path / "a.png", tmp_path / "mask.png", (1, SIDE, SIDE), None
    )


# -- images: refused in one line -------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, body: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


#: of a picture of 64×64, the first half
HALF = zlib.compress(noise(65 * 64).tobytes())[:2000]
DAMAGED = {
    "bomb.png": (png_of(20_000, 20_000, chunk(b"IDAT", zlib.compress(bytes(2**20)))), "too many pixels"),
    "large.png": (png_of(13_000, 13_000, chunk(b"IDAT", zlib.compress(bytes(2**20)))), "too many pixels (13000×13000)"),
    "chunk.png": (
        png_of(64, 64, chunk(b"IDAT", HALF) + b"\0\0\0\x04ID\0T1234" + bytes(4)),
        "cannot be read as an image",
    ),
    "first.png": (png_of(SIDE, SIDE, b"\0\0\0\x04ID\0T1234" + bytes(4)), "image of a known kind"),
    "cut.png": (encoded(Image.fromarray(noise(SIDE, SIDE, 3)))[:60], "cannot be read as an image"),
    "cut.jpg": (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:700], "cannot be read as an image"),
    "text.png": (b"no picture", "image of a known kind"),
    "page.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image of a known kind"),
    "real.tiff": (encoded(Image.fromarray(np.ones((SIDE, SIDE), np.float32)), "TIFF"), "real numbers"),
    "long.tiff": (encoded(Image.fromarray(np.ones((SIDE, SIDE), np.int32)), "TIFF"), "32-bit integers"),
    "empty.png": (b"", ""),
}


@ways
@pytest.mark.parametrize("name", DAMAGED)
def test_a_picture_that_cannot_be_read_is_said_in_one_line(tmp_path, read, name):
    data, words = DAMAGED[name]
    if read is from_option:
        (tmp_path / name).write_bytes(data)
        message = one_line(open_kept, tmp_path / name, None, (1, SIDE, SIDE), None)
    else:
        message = one_line(read, tmp_path, data, name)
    assert words in message and ("a.parquet row 0" if read is from_parquet else name) in message


@pytest.mark.parametrize("name", ["bomb.png", "chunk.png"])
def test_the_commands_say_it_and_write_nothing(cli, tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(DAMAGED[name][0])
    done = cli("train-teacher", tmp_path / "data", "--output", tmp_path / "out")
    assert done.code == 2 and name in done.err and done.err.count("\n") == 1 and not (tmp_path / "out").exists()


# -- data sets: which files, in which order ---------------------------------------------------------------------------


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE), value, np.uint8)).save(path)


def values(folder: Path) -> list[int]:
    return load_images(str(folder))[:, 0, 0, 0].tolist()


def test_class_folders_are_counted_as_people_count_and_keep_their_names(cli, tmp_path):
    for number in range(12):
        save(tmp_path / "data" / f"{number}" / "a.png", number)
    assert load_labels(str(tmp_path / "data")).tolist() == values(tmp_path / "data")
    words = ["--kind", "classes", "--steps", 1, "--batch-size", 2, "--set", "sample_every=0", "--set", "channels=[8,8]"]
    done = cli("train-teacher", tmp_path / "data", "--output", tmp_path / "teacher", *words)
    assert done.code == 0, done.err
    names = [f"{number}" for number in range(12)]
    assert json.loads((tmp_path / "teacher" / "labels.json").read_text()) == {"null_class": 12, "names": names}
    assert "2 2, 3 3" in cli("inspect", tmp_path / "teacher").out


def test_one_name_may_begin_another():
    names = ["cat2", "cat", "dog", "cat10", "2", "10", "2b", ""]
    assert sorted(names, key=natural) == ["", "2", "2b", "10", "cat", "cat2", "cat10", "dog"]


def test_lines_that_hold_nan_elsewhere_are_prompts_still(tmp_path):
    """As Python's own json module writes a score that could not be computed."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "a cat", "score": NaN}\n{"prompt": "a dog", "score": 1}\n')
    assert read_prompts(tmp_path / "a.jsonl").prompts == ("a cat", "a dog")


def test_names_with_numbers_within_are_in_natural_order_too(tmp_path):
    names = ["b10", "b2", "a", "B1", "b2-x"]
    for value, name in enumerate(names):
        save(tmp_path / name / "a.png", value)
    assert load_class_names(str(tmp_path)) == ("B1", "a", "b2", "b2-x", "b10")


def test_what_is_hidden_is_not_read_but_may_hold_the_data(tmp_path):
    root = tmp_path / ".cache" / "data"
    for value, name in enumerate(["cat/a.png", "dog/a.png"]):
        save(root / name, value)
    for name in (".ipynb_checkpoints/a.png", "cat/.ipynb_checkpoints/b.png", "cat/._a.png", ".x/y/z.png"):
        save(root / name, 9)
    assert values(root) == [0, 1] and load_labels(str(root)).tolist() == [0, 1]


def test_linked_class_folders_and_images_are_followed(tmp_path):
    save(tmp_path / "far" / "one" / "a.png", 1)
    save(tmp_path / "data" / "zero" / "a.png", 0)
    (tmp_path / "data" / "one").symlink_to(tmp_path / "far" / "one")
    (tmp_path / "data" / "zero" / "b.png").symlink_to(tmp_path / "far" / "one" / "a.png")
    assert load_labels(str(tmp_path / "data")).tolist() == [0, 1, 1] and values(tmp_path / "data") == [1, 0, 1]


@pytest.mark.parametrize("name", ["dead.png", "dead", "loop", "pipe.png"])
def test_a_link_to_nothing_a_loop_and_a_pipe_are_named(tmp_path, name):
    save(tmp_path / "data" / "a.png", 0)
    path = tmp_path / "data" / name
    if name == "pipe.png":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "data" if name == "loop" else tmp_path / "nothing")
    assert f"{path} is a" in one_line(load_images, str(tmp_path / "data"))


def idx(*dims: int, values: bytes = b"", ndim: int | None = None) -> bytes:
    return struct.pack(f">HBB{len(dims)}I", 0, 8, ndim or len(dims), *dims) + values


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (idx(2**31, 2**31, 4), "cut short"),
        (idx(2**16, 2**16, 2**16), "cut short"),
        (idx(0, 28, 28), "holds nothing"),
        (idx(5, 0, 3), "holds nothing"),
        (idx(*[1] * 65, values=b"1"), "cannot be read as an IDX file"),
        (idx(ndim=200), "cannot be read as an IDX file"),
        (b"\0\0", "cannot be read as an IDX file"),
        (idx(2, 3, values=b"123456"), "no IDX file of images"),
    ],
)
def test_an_idx_file_with_impossible_sizes_is_refused(tmp_path, data, words, packed):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert words in one_line(load_images, str(path))


@pytest.mark.parametrize(
    "cells",
    [
        [date(2026, 1, 1)],
        [1, 2],
        [[1], [2]],
        [True],
        ["a.png"],
        [{"path": "a"}],
        [{"bytes": 3}],
        [1.5],
        [None],
        [b"no"],
    ],
    ids=str,
)
def test_a_parquet_column_that_holds_no_images_is_refused(tmp_path, cells):
    assert "a.parquet" in one_line(load_images, str(table(tmp_path / "a.parquet", image=cells)))


def repeated(value, count: int):
    """A column that holds one value once and names it ``count`` times."""
    pa = pytest.importorskip("pyarrow")
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def test_a_parquet_file_that_unpacks_without_end_is_refused(tmp_path):
    picture = encoded(Image.fromarray(noise(SIDE, SIDE))) + bytes(2**20)
    for column, cell, read in (("image", picture, load_images), ("prompt", "x" * 900_000, read_prompts)):
        path = table(tmp_path / f"{column}.parquet", **{column: repeated(cell, 10_000)})
        assert path.stat().st_size < 20_000
        assert "times its size" in one_line(read, str(path))


@pytest.mark.parametrize(
    "labels", [[0, 2**62], [-1, 0], [0.5, 1.0], ["a", "b"], [2**63, 0], [0, None], [[0], [1]]], ids=str
)
def test_labels_that_are_none_are_refused(cli, tmp_path, labels):
    cells = [encoded(Image.fromarray(noise(SIDE, SIDE)))] * 2
    pa = pytest.importorskip("pyarrow")
    column = pa.array(labels, pa.uint64()) if 2**63 in labels else pa.array(labels)
    table(tmp_path / "a.parquet", image=cells, label=column)
    done = cli("train-teacher", tmp_path / "a.parquet", "--kind", "classes", "--output", tmp_path / "out")
    assert done.code == 2 and "label" in done.err and len(done.err) < 330 and done.err.count("\n") == 1


def test_class_names_in_a_parquet_schema_are_kept(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    words = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    held = pa.table({"label": [0, 1]}).replace_schema_metadata({"huggingface": json.dumps(words)})
    pyarrow.parquet.write_table(held, tmp_path / "a.parquet")
    assert load_class_names(str(tmp_path / "a.parquet")) == ("cat", "dog")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "a.png"}', ["lacks a caption", "text", "caption"]),
        ('{"text": "a cat"}', ["lacks file_name"]),
        ('{"file_name": 3, "text": "a cat"}', ["lacks file_name"]),
        ('{"file_name": "a.png", "text": ["a cat"]}', ["should be text"]),
        ('{"file_name": "a.png", "text": "\\ud800"}', ["half a character"]),
        (json.dumps({"file_name": "a.png", "text": "x" * (MOST_PROMPT + 1)}), ["1,000,001 characters"]),
        ("[1, 2]", ["expected an object"]),
        ("[" * 100_000, ["not JSON", "recursion"]),
        ("{", ["not JSON"]),
    ],
)
def test_a_line_of_metadata_says_what_it_lacks(tmp_path, line, words):
    save(tmp_path / "a.png", 0)
    (tmp_path / "metadata.jsonl").write_text(f"\n{line}\n")
    message = one_line(load_captions, str(tmp_path))
    assert "line 2" in message and all(word in message for word in words), message


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", "a cat\na dog\n"),
        ("a.gz", "a cat\na dog\n"),
        ("a.csv.gz", "id,prompt\n1,a cat\n2,a dog\n"),
        ("a.TSV.GZ", "id\tprompt\n1\ta cat\n2\ta dog\n"),
        ("a.jsonl.gz", '"a cat"\n{"text": "a dog"}\n'),
        ("a.json.gz", '["a cat", "a dog"]'),
        ("a.txt", "a cat\na dog\n"),
    ],
)
def test_gzipped_prompts_are_read_whatever_the_file_is_called(tmp_path, name, content):
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert read_prompts(tmp_path / name).prompts == ("a cat", "a dog")


def test_what_is_packed_otherwise_or_damaged_is_said(tmp_path):
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(b"a cat\n"))
    assert "packed (bzip2)" in one_line(read_prompts, tmp_path / "a.txt.bz2")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(noise(4000).tobytes())[:900])
    assert "a.txt.gz" in one_line(read_prompts, tmp_path / "a.txt.gz")
    # A member names what came before it, so that a small file unpacks to as many of them as there are.
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress((b"x" * 900_000 + b"\n") * 20) * 10)
    assert "times its size" in one_line(read_prompts, tmp_path / "bomb.txt.gz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a red cat\na blue dog\n"),
        ("a.tsv", "a red cat\na blue dog\n"),
        ("a.csv", '"a red cat"\n"a blue dog"\n'),
        ("a.csv", "\n\na red cat\n\na blue dog\n"),
    ],
)
def test_a_lone_column_without_a_header_is_prompts_from_its_first_line_on(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    for _ in range(2):
        assert read_prompts(tmp_path / name).prompts == ("a red cat", "a blue dog")
    assert capsys.readouterr().err.count("no header") == 1


@pytest.mark.parametrize("header", ["prompt", "Text", " CAPTION ", "prompts"])
def test_a_lone_column_with_a_usual_name_has_a_header(tmp_path, capsys, header):
    (tmp_path / "a.csv").write_text(f"{header}\na red cat\n")
    assert read_prompts(tmp_path / "a.csv").prompts == ("a red cat",) and capsys.readouterr().err == ""


def test_a_lone_column_that_is_named_has_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("words\na red cat\n")
    assert read_prompts(tmp_path / "a.csv", "words").prompts == ("a red cat",)


def test_a_first_prompt_with_a_comma_is_no_row_of_columns(tmp_path):
    (tmp_path / "a.csv").write_text('"a cat, red"\n"a dog; blue"\n')
    assert read_prompts(tmp_path / "a.csv").prompts == ("a cat, red", "a dog; blue")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,prompt\na cat,a dog\n"),
        ("a.csv", "id,text, text \n1,a cat,a dog\n"),
        ("a.tsv", "prompt\tprompt\na cat\ta dog\n"),
        ("a.jsonl", '{"prompt": "a cat", "prompt": "a dog"}\n'),
        ("a.json", '[{"prompt": "a cat", "prompt": "a dog"}]'),
    ],
)
@pytest.mark.parametrize("column", [None, "the usual one"])
def test_a_column_that_is_named_twice_is_refused(tmp_path, name, content, column):
    (tmp_path / name).write_text(content)
    usual = None if column is None else "text" if "text" in content else "prompt"
    assert "twice" in one_line(read_prompts, tmp_path / name, usual)


def test_an_image_with_two_captions_is_refused(tmp_path):
    save(tmp_path / "a.png", 0)
    lines = [json.dumps({"file_name": "a.png", "text": text}) for text in ("a cat", "a cat", "a dog")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines[:2]))
    assert load_captions(str(tmp_path)).texts == ("a cat",)
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert "line 3 gives 'a.png' a second caption" in one_line(load_captions, str(tmp_path))


@pytest.mark.parametrize("suffix", ["", ".txt", ".csv", ".json", ".jsonl", ".parquet", ".txt.gz"])
def test_devices_and_pipes_are_no_prompts(tmp_path, suffix):
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    assert "is a pipe" in one_line(read_prompts, path)
    link = tmp_path / f"zero{suffix}"
    link.symlink_to("/dev/zero")
    assert "is a device" in one_line(read_prompts, link)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "{}"),
        ("a.csv", "prompt\n{}\n"),
        ("a.json", '["{}"]'),
        ("a.jsonl", '{{"text": "{}"}}'),
    ],
)
def test_a_prompt_longer_than_the_limit_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content.format("x" * MOST_PROMPT))
    assert len(read_prompts(tmp_path / name).prompts[0]) == MOST_PROMPT
    (tmp_path / name).write_text(content.format("x" * (MOST_PROMPT + 1)))
    assert "1,000,001 characters" in one_line(read_prompts, tmp_path / name)


def test_files_that_are_too_large_are_refused_before_they_are_read(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(5 * 2**30)
    assert "5.0 GiB" in one_line(read_prompts, tmp_path / "a.txt")


def test_pictures_that_are_left_out_are_counted(tmp_path, capsys):
    for number in range(3):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.heic").write_bytes(b"a picture of a telephone")
    assert len(load_images(str(tmp_path))) == 3
    assert "3 files of" in (err := capsys.readouterr().err) and ".heic is not read" in err


def test_an_animated_picture_s_first_one_is_read_with_a_note(tmp_path, capsys):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert int(load_images(str(tmp_path))[0].float().mean()) == 10
    assert "holds several pictures, and the first of them is read" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_a_name(tmp_path):
    from bootdiff.evaluation.cache import data_hash

    for number in range(2):
        with open(os.fsencode(tmp_path) + b"/%d\xff\xfe.png" % number, "wb") as file:
            Image.new("L", (4, 4), number).save(file, "PNG")
    assert len(data_hash(str(tmp_path))) == 20


@pytest.mark.parametrize("words", [("distill", "digits"), ("train-teacher", "digits")])
def test_a_run_does_not_hide_the_builtin_whose_name_its_folder_would_have(cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    refused = cli(*words, "--output", "digits", "--steps", "1")
    assert refused.code == 2 and "would hide the builtin digits" in refused.err and not Path("digits").exists()
