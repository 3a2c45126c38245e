"""Small labelled images as one JPEG sheet a class: written where there is much room, read where there is little.

    python benchmarks/gpu/sheets.py DATA FOLDER --mib 12

DATA holds ``train.parquet`` and ``test.parquet`` with the columns ``image.bytes`` and ``label``. The sheets have 4:2:0
chroma, whose blocks of 16 pixels no tile shares with another, and as many images a class as the room allows.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIDE, COLUMNS = 32, 64
QUALITY = 70
#: images a class that are kept apart for the classifier's accuracy
HELD_OUT = 200
_NAME = re.compile(r"(?P<part>train|test)-(?P<label>\d+)-(?P<count>\d+)\.jpg")


def sheet(tiles: Sequence[np.ndarray]) -> bytes:
    """Tiles (32, 32, 3) in uint8, row by row on a black ground, as JPEG."""
    from PIL import Image

    rows = -(-len(tiles) // COLUMNS)
    ground = np.zeros((rows * COLUMNS, SIDE, SIDE, 3), np.uint8)
    ground[: len(tiles)] = np.stack(list(tiles))
    picture = ground.reshape(rows, COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(rows * SIDE, -1, 3)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=2, optimize=True, progressive=True)
    return file.getvalue()


def tiles_of(path: Path) -> np.ndarray:
    """The tiles of a sheet, (count, 32, 32, 3) in uint8; the count is in the file's name."""
    from PIL import Image

    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is no sheet; expected a name such as train-3-4500.jpg.")
    picture = np.asarray(Image.open(path).convert("RGB"))
    rows = picture.shape[0] // SIDE
    tiles = picture.reshape(rows, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)
    return tiles[: int(match["count"])]


def read_sheets(folder: Path, part: str) -> tuple[Any, Any]:
    """(pixels (n, 3, 32, 32) in uint8, labels (n,) in int64) of the sheets of ``train`` or ``test``.

    Raises:
        ValueError: if there are none; it names the command that makes them.
    """
    import torch

    found = {
        int(m["label"]): p for p in sorted(folder.glob("*.jpg")) if (m := _NAME.fullmatch(p.name)) and m["part"] == part
    }
    if not found:
        raise ValueError(f"no {part} images in {folder}; run benchmarks/gpu/pack.sh first, which makes them.")
    tiles = {label: tiles_of(found[label]) for label in sorted(found)}
    pixels = torch.from_numpy(np.concatenate(list(tiles.values()))).permute(0, 3, 1, 2).contiguous()
    labels = torch.cat([torch.full((len(own),), label) for label, own in tiles.items()])
    return pixels, labels


def read_parquet(path: Path) -> dict[int, list[bytes]]:
    """Encoded images by class, in the file's order."""
    import pyarrow.parquet

    images: dict[int, list[bytes]] = {}
    for row in pyarrow.parquet.read_table(path, columns=["image", "label"]).to_pylist():
        images.setdefault(row["label"], []).append(row["image"]["bytes"])
    return dict(sorted(images.items()))


def write_sheets(data: Path, folder: Path, room: int) -> int:
    """Write as many images a class as fit into ``room`` bytes, the held-out ones included; returns that number."""
    train = read_parquet(data / "train.parquet")
    made = {f"test-{label}": own[:HELD_OUT] for label, own in read_parquet(data / "test.parquet").items()}
    held_out = encoded(made)
    left, most = room - sum(map(len, held_out.values())), min(map(len, train.values()))
    tried = min(most, 500)
    size = sum(map(len, encoded({label: own[:tried] for label, own in train.items()}).values()))
    count = min(most, int(tried * left / size))
    while True:
        sheets = encoded({f"train-{label}": own[:count] for label, own in train.items()})
        size = sum(map(len, sheets.values()))
        if size <= left:
            break
        count = int(count * left / size * 0.999)
        if count < 1:
            raise ValueError(
                f"not one image a class fits into {room} bytes beside the {HELD_OUT} held out; raise --mib."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    for name, content in {**held_out, **sheets}.items():
        (folder / name).write_bytes(content)
    return count


def encoded(images: Mapping[Any, Sequence[bytes]]) -> dict[str, bytes]:
    """Sheets by file name, of encoded images by part and label."""
    return {f"{name}-{len(own)}.jpg": sheet([_decoded(one) for one in own]) for name, own in images.items()}


def _decoded(image: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mib", type=float, default=12.0, help="room for all sheets")
    asked = parser.parse_args()
    try:
        count = write_sheets(asked.data, asked.folder, int(asked.mib * 2**20))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{count} images a class, and {HELD_OUT} more held out")


if __name__ == "__main__":
    main()
