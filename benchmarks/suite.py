"""How long the suite takes: the command of ``make test``, several times, one after the other.

    python benchmarks/suite.py                    # three runs; writes docs/records/suite.json
    python benchmarks/suite.py --target test-all  # everything, also the slow tests

Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from records import FOLDER, ROOT, new_record, write_record


def main() -> None:
    """Run and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--target", default="test", help="of the Makefile")
    parser.add_argument("--output", type=Path, default=FOLDER / "suite.json")
    options = parser.parse_args()
    rows = [run_suite(sys.executable, options.target) for _ in range(options.runs)]
    record = replace(new_record({options.target: rows}), threads=1)  # of each worker, as tests/conftest.py sets it
    write_record(options.output, record)
    if any(row["failed"] for row in rows):
        sys.exit("some tests failed.")


def run_suite(python: str, target: str, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Minutes, and how many tests passed, were skipped and failed, of one run of a target of the Makefile."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        started = time.monotonic()
        words = [python, *pytest_words(target), f"--junitxml={report}"]
        subprocess.run(words, cwd=ROOT, env={**os.environ, **(environment or {})})
        minutes = (time.monotonic() - started) / 60
        row = {"minutes": round(minutes, 2), **counts(report)}
    print(row, flush=True)
    return row


def pytest_words(target: str) -> list[str]:
    """What follows the Python in the last command of a target, as the Makefile has it."""
    said = subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True)
    return shlex.split(said.stdout.splitlines()[-1])[1:]


def counts(report: Path) -> dict[str, int]:
    """Tests that passed, were skipped and failed, from pytest's report."""
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    known = {name: int(suite.get(name, 0)) for name in ("tests", "skipped", "failures", "errors")}
    failed = known["failures"] + known["errors"]
    return {"passed": known["tests"] - known["skipped"] - failed, "skipped": known["skipped"], "failed": failed}


if __name__ == "__main__":
    main()
