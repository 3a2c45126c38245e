"""The quickstart as a stranger runs it: its table, what one call is worth, and how long it takes.

python benchmarks/quickstart.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from records import FOLDER, new_record, write_record

from bootdiff.evaluation.curve import is_shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=FOLDER / "quickstart.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        run, started = Path(folder) / "run", time.monotonic()
        command = [sys.executable, "-m", "bootdiff", "quickstart", "--output", str(run)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        minutes = (time.monotonic() - started) / 60
        result = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    print(said)
    rows = [
        {
            "sampler": row["name"],
            "calls": row["calls"],
            "Fréchet distance": row["frechet_distance"],
            "precision": row["figures"]["precision"]["value"],
            "recall": row["figures"]["recall"]["value"],
            "path error": row["path_error"],
            "images/s": round(row["images_per_second"]),
        }
        for row in result["rows"]
        if is_shown(row)
    ]
    worth = [
        {"student": row["name"], **{key: row["call_equivalence"][key] for key in ("says", "low", "high", "sentence")}}
        for row in result["rows"]
        if row["kind"] == "student"
    ]
    record = new_record({"table": rows, "worth": worth, "time": [{"minutes": round(minutes, 2)}]}, seeds=[0])
    write_record(asked.output, record)


if __name__ == "__main__":
    main()
