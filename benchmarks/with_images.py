"""BOOT, then consistency distillation on a share of the real images, beside both alone at equal passes. A record.

    python benchmarks/with_images.py [--output runs/with-images]        # writes docs/records/with-images.json

The paper calls learning without data a limitation where there are some. On the builtin digits: BOOT alone and
consistency distillation on the teacher's own samples have no image; with 10, 50 and 100 % of the 1,797 images there are
``boot+consistency`` and consistency distillation alone. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

#: the passes of every run
PASSES = 400_000
#: the shares of the images, in percent
SHARES = (10, 50, 100)
BOTH = "boot+consistency"
RECIPES = ROOT / "configs" / "with-images"


def main() -> None:
    """Make the runs and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "with-images")
    parser.add_argument("--training-seeds", default="0")
    asked = parser.parse_args()
    options = ("--passes", PASSES, "--training-seeds", asked.training_seeds)
    bootdiff("benchmark", "digits", "--output", asked.output / "none", "--methods", "boot,consistency", *options)
    found = list(rows(asked.output / "none", 0))
    for share in SHARES:
        folder = asked.output / f"share-{share}"
        images = share_of_digits(share, asked.output / f"digits-{share}-idx3-ubyte")
        methods = f"consistency,{BOTH}"
        settings = [w for name in methods.split(",") for w in ("--set", f"{name}.images={images}")]
        words = ("--methods", methods, "--recipes", RECIPES, *settings)
        bootdiff("benchmark", "digits", "--output", folder, *words, *options)
        found += rows(folder, share)
    seeds = [int(seed) for seed in asked.training_seeds.split(",")]
    record = new_record({"shares": found}, seeds=seeds, command="python benchmarks/with_images.py")
    write_record(FOLDER / "with-images.json", record)


def share_of_digits(share: int, path: Path) -> Path:
    """Write a share of the digits, drawn once, as an IDX file, and return its path."""
    from sklearn.datasets import load_digits

    if not path.exists():
        images = np.round(load_digits().images * 255 / 16).astype(np.uint8)
        chosen = np.random.default_rng(0).permutation(len(images))[: len(images) * share // 100]
        path.parent.mkdir(parents=True, exist_ok=True)
        header = np.array([0x0803, len(chosen), *images.shape[1:]], ">i4")
        path.write_bytes(header.tobytes() + images[np.sort(chosen)].tobytes())
    return path


def rows(folder: Path, share: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a benchmark's folder, one for each method and number of calls."""
    told = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    for row in told["rows"]:
        if row["figures"]:
            figures = {name: row["figures"][name]["value"] for name in ("frechet_distance", "precision", "recall")}
            yield {
                "method": row["method"],
                "images, %": share,
                "calls": row["calls"],
                "Fréchet distance": figures["frechet_distance"],
                "precision": figures["precision"],
                "recall": figures["recall"],
                "passes, thousands": round(row["passes"] / 1000),
            }


if __name__ == "__main__":
    main()
