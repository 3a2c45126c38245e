"""Whether two commits compute the same: short runs with each, and their students, pictures and logs to the bit.

    python benchmarks/same_bits.py                      # what was changed since the parent of the present commit
    python benchmarks/same_bits.py 0123abcd .           # a commit and the working tree; about four minutes

Each job is a few commands as ``bootdiff`` knows them, in a process and a folder of their own, with one thread. Every
tensor that was saved, every picture's pixels and every line of a log count, but for the time that things took. It ends
with exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from common import table
from contents import bits, unlike
from records import FOLDER, Tables, new_record, write_record
from sides import Side, add_sides, last_words, refuse, take

SHORT = "--steps 8 --batch-size 8 --set log_every=2 --set sample_every=4 --set checkpoint_every=4 --output"
LOOKS, NONE = "--set watch_every=4", "--set watch_every=0"
GUIDED = "--prompts digits --guidance-scale 3"
#: commands by job; the samples are drawn from the run and from its export
JOBS: Mapping[str, Sequence[str]] = {
    "digits": [
        f"distill digits {SHORT} run {LOOKS}",
        "sample run --num 8 --output drawn",
        "sample run/student --num 8 --output exported",
    ],
    "digits-class": [
        f"distill digits-class {SHORT} run {NONE} --guidance-range 1 4",
        "sample run --num 8 --class 3,5 --guidance-scale 2 --output drawn",
        "sample run/student --num 8 --class 3,5 --output exported",
    ],
    "digits-text": [
        f"distill digits-text {SHORT} run {NONE} {GUIDED}",
        "sample run --num 8 --prompt 'a bold seven' --output drawn",
        "sample run/student --num 8 --prompt 'a bold seven' --output exported",
    ],
    "boot+dm": [
        f"distill digits --method boot+dm {SHORT} run {LOOKS} --set fake_warmup=2"
        " --set boot.steps=8 --set boot.batch_size=8 --set boot.watch_every=0",
        "sample run --num 8 --output drawn",
        "sample run/student --num 8 --output exported",
    ],
    "digits-cascade": [
        f"distill digits-cascade {SHORT} base {NONE} {GUIDED}",
        f"distill digits-cascade-upscaler {SHORT} run {NONE} --prompts digits --base base",
        "sample base run --num 8 --prompt 'a bold seven' --output drawn",
    ],
}
#: carries out command lines in one process, as one ``bootdiff`` after another would
COMMANDS = """
import json, pathlib, runpy, sys
import bootdiff
src, lines = json.loads(sys.argv[1])
if not pathlib.Path(bootdiff.__file__).is_relative_to(src):
    sys.exit(f"another package was imported, from {bootdiff.__file__}")
for words in lines:
    sys.argv = ["bootdiff", *words]
    try:
        runpy.run_module("bootdiff", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def carry_out(job: str, side: Side, place: Path) -> dict[str, str]:
    """What a job's commands leave in a folder, as a hash of every file; a command that fails ends the program."""
    place.mkdir(parents=True)
    own = {"PYTHONPATH": str(side.src), "BOOTDIFF_CACHE": f"{side.src}-cache", "HF_HUB_OFFLINE": "1"}
    lines = [shlex.split(line) for line in JOBS[job]]
    command = [sys.executable, "-c", COMMANDS, json.dumps([str(side.src), lines])]
    done = subprocess.run(command, cwd=place, env={**os.environ, **ONE_THREAD, **own}, capture_output=True, text=True)
    if done.returncode:
        refuse(f"the job '{job}' failed with {side.name}: {last_words(done.stderr)}")
    left = bits(place)
    if not left:
        refuse(f"the job '{job}' left nothing to compare with {side.name}.")
    return left


def compare(jobs: Sequence[str], before: Side, after: Side, place: Path) -> tuple[Tables, list[str]]:
    """A row for every job, and the files that are not the same."""
    rows, wrong = [], []
    for number, job in enumerate(jobs):
        here, there = (carry_out(job, side, place / f"{number}-{side.src.name}") for side in (before, after))
        found = unlike(here, there)
        rows.append({"job": job, "files compared": len({**here, **there}), "same": "no" if found else "yes"})
        print(f"{job}: {f'{len(found)} files differ' if found else 'the same'}", file=sys.stderr, flush=True)
        wrong += [f"{job}: {name}" for name in found]
    return {"commits": [{"before": before.name, "after": after.name}], "jobs": rows}, wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_sides(parser)
    parser.add_argument("--job", action="append", choices=list(JOBS), help="one of them alone; may be repeated")
    parser.add_argument("--output", type=Path, default=FOLDER / "same-bits.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        before, after = take(asked.before, place / "before"), take(asked.after, place / "after")
        tables, wrong = compare(asked.job or list(JOBS), before, after, place)
    table([list(row.values()) for row in tables["jobs"]], list(tables["jobs"][0]))
    only = [word for job in asked.job or () for word in ("--job", job)]
    command = shlex.join(["python", "benchmarks/same_bits.py", before.word, after.word, *only])
    write_record(asked.output, new_record(tables, [0], command))
    if wrong:
        print("", *wrong, f"{before.name} and {after.name} differ in {len(wrong)} files.", sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
