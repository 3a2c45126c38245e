"""The poster's rows on the builtin digits-text: DDIM 8 and 1, one call of LCM and of BOOT, on the same words. A record.

    python benchmarks/poster.py [--output runs/poster]      # writes docs/records/poster.json

All have the guidance weight 2.5, and the methods an equal budget of passes; a guided step of the teacher is two network
evaluations. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from commands import bootdiff
from records import FOLDER, ROOT, new_record, write_record

PASSES, WEIGHT = 400_000, 2.5
METHODS = ("boot", "boot+dm", "direct", "lcm")
#: settings of the recipes that latents and one weight need
SETTINGS = ("boot.t_max=0.8", "boot+dm.t_max=0.8", "direct.t_max=0.8", "lcm.guidance_range=null")


def main() -> None:
    """Make the runs, compare them with the teacher's steps, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "poster")
    asked = parser.parse_args()
    words = ("--prompts", "digits", "--guidance-scale", WEIGHT, "--methods", ",".join(METHODS), "--passes", PASSES)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    bootdiff("benchmark", "digits-text", "--output", asked.output / "runs", *words, *settings)
    runs = [asked.output / "runs" / "passes" / method / "seed-0" for method in METHODS]
    beside = ("--samplers", "ddim:8", "--no-heun", "--repeats", 3)
    bootdiff("compare", *runs, "--output", asked.output / "compare", *beside)
    told = json.loads((asked.output / "compare" / "compare.json").read_text(encoding="utf-8"))
    record = new_record({"rows": list(rows(told))}, seeds=(0,), command="python benchmarks/poster.py")
    write_record(FOLDER / "poster.json", record)


def rows(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the teacher's DDIM and best rows and the students', with the network's evaluations of an image."""
    for row in told["rows"]:
        taught = row["kind"] == "teacher"
        figures = {key: (row["figures"].get(key) or {}).get("value") for key in ("precision", "recall")}
        yield {
            "sampler": row["name"] if taught else row["title"],
            "steps": row["steps"] if taught else row["calls"],
            "evaluations": row["calls"],
            "Fréchet distance": row["frechet_distance"],
            **figures,
            "faithful": row["faithfulness"],
        }


if __name__ == "__main__":
    main()
