"""The picture of zero-shot editing in docs/gallery.md, by ``bootdiff sample --edit-task``.

    python docs/figures/editing.py FILE.png --grey TEACHER CONSISTENCY BOOT --colour TEACHER CONSISTENCY BOOT

Each option names a teacher and two of its students. For every task there are two strips: the picture (a sample of the
teacher), what is known of it, and answers of the consistency student; below, answers of the teacher, which takes the
image of the one-call student on by ``--refine``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

#: answers in a strip, calls of the consistency student, and steps of the teacher
ANSWERS, CALLS, STEPS = 6, 8, 10
#: pixels of a picture's side in the figure, of the space between two, and of the words before a strip
SIDE, GAP, WORDS = 96, 4, 150
TASKS = {"grey": ("inpaint", "super-resolution", "strokes"), "colour": ("colourise",)}


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    for kind in TASKS:
        parser.add_argument(f"--{kind}", nargs=3, metavar=("TEACHER", "CONSISTENCY", "BOOT"), required=True)
        parser.add_argument(f"--{kind}-seed", type=int, default=3, help="of the picture")
    parser.add_argument("--class", dest="label", help="of the grey picture, for a teacher of classes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for kind, tasks in TASKS.items():
            teacher, consistency, boot = getattr(asked, kind)
            more = ("--class", asked.label) if kind == "grey" and asked.label else ()
            seed = getattr(asked, f"{kind}_seed")
            for task in tasks:
                found += strips(task, (teacher, consistency, boot), seed, more, Path(folder))
    drawn(found).save(asked.output)


def strips(
    task: str, names: Sequence[str], seed: int, more: Sequence[str], folder: Path
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield a task's two strips, each with its words."""
    teacher, consistency, boot = names
    picture = samples(boot, folder, "--seed", seed, "--num", 1, "--refine", STEPS, "--teacher", teacher, *more)[0]
    known, options = given(task, picture, folder)
    shared = ("--edit-task", task, *options, "--num", ANSWERS, "--seed", 100, *more)
    students = samples(consistency, folder, *shared, "--calls", CALLS)
    teachers = samples(boot, folder, *shared, "--refine", STEPS, "--teacher", teacher)
    yield f"{task}\nconsistency,\n{CALLS} calls", [picture, known, *students]
    yield f"one call, then\n{STEPS} steps of the\nteacher", [picture, known, *teachers]


def given(task: str, picture: np.ndarray, folder: Path) -> tuple[np.ndarray, tuple[object, ...]]:
    """Return what is known of a picture (h, w, c), and the options that say so."""
    file, side = folder / "given.png", picture.shape[0]
    known, options = picture.copy(), ("--image", file)
    if task == "inpaint":
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[: side // 2] = 255
        saved(mask[..., None], folder / "mask.png")
        saved(picture, file)
        known[mask > 0] = 128
        return known, (*options, "--mask", folder / "mask.png")
    if task == "super-resolution":
        known = blocks(picture, 4)
        saved(known, file)
        return known, (*options, "--factor", 4)
    if task == "strokes":  # blocks in few tones, as a hand would lay them down
        known = (np.round(blocks(picture, 4) / 64) * 64).clip(0, 255).astype(np.uint8)
    if task == "colourise":
        known = np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))
    saved(known, file)
    return known, options


def blocks(picture: np.ndarray, size: int) -> np.ndarray:
    """Return the means of a picture's blocks, as large as the picture."""
    height, width, channels = picture.shape
    means = picture.reshape(height // size, size, width // size, size, channels).mean((1, 3))
    return means.repeat(size, 0).repeat(size, 1).astype(np.uint8)


def samples(name: str, folder: Path, *words: object) -> list[np.ndarray]:
    """Return what ``bootdiff sample`` draws, each (h, w, c) in 8 bits."""
    output = folder / "samples.npz"
    subprocess.run(
        [sys.executable, "-m", "bootdiff", "sample", name, "--output", str(output), *map(str, words)], check=True
    )
    values = np.load(output)["samples"]
    return list(np.round((values.transpose(0, 2, 3, 1).clip(-1, 1) + 1) * 127.5).astype(np.uint8))


def saved(picture: np.ndarray, path: Path) -> None:
    """Write a picture (h, w, c) as PNG."""
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(path)


def drawn(found: Sequence[tuple[str, list[np.ndarray]]]) -> Image.Image:
    """Return the figure."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (WORDS + (ANSWERS + 2) * step, len(found) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (words, pictures) in enumerate(found):
        pen.text((4, row * step + SIDE // 4), words, fill="black")
        for column, picture in enumerate(pictures):
            image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (WORDS + column * step, row * step))
    return sheet


if __name__ == "__main__":
    main()
