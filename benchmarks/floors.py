"""Whether the suite passes with the lowest versions that pyproject.toml allows, beside the torch of constraints.txt.

    python benchmarks/floors.py               # a new environment; writes docs/records/floors.json
    python benchmarks/floors.py --keep FOLDER # make the environment there, or use the one that is there

The registry is needed once. torch's own floor is not tried: it is the lowest that bootdiff was run with elsewhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import replace
from pathlib import Path

from records import FOLDER, ROOT, new_record, write_record
from suite import run_suite

#: extras that the suite needs; what is installed for trackers, types and style is not run by it
EXTRAS = ("train", "onnx", "lora", "prompts", "dev")
NOT_RUN = ("mypy", "ruff", "types-PyYAML", "bootdiff")


def main() -> None:
    """Install, run, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="the environment's folder")
    parser.add_argument("--target", default="test-all", help="of the Makefile: test, test-slow or test-all")
    parser.add_argument("--output", type=Path, default=FOLDER / "floors.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = install(options.keep or Path(folder) / "venv")
        row = {"target": options.target, **run_suite(str(python), options.target, {"PYTHONPATH": str(ROOT / "src")})}
    rows = [{"library": name, "version": version} for name, version in sorted(floors().items())]
    record = new_record(
        {"versions": rows, "suite": [row]}, command=f"python benchmarks/floors.py --target {options.target}"
    )
    own = {name: floors().get(name, "not installed") for name in record.versions}  # not those of this environment
    write_record(options.output, replace(record, versions=own, threads=1))
    if row["failed"]:
        sys.exit("the suite does not pass at the floors.")


def floors() -> dict[str, str]:
    """The lowest version of each dependency; of torch the one of constraints.txt.

    Raises:
        ValueError: for a dependency without a lowest version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = {}
    for line in (*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])):
        name = re.split(r"[^\w-]", line)[0]
        if name in NOT_RUN:
            continue
        floor = re.fullmatch(r"[\w-]+>=([\w.]+)", line)
        if floor is None:
            raise ValueError(f"pyproject.toml: {line} has no lowest version.")
        found[name] = floor[1]
    (pinned,) = re.findall(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    return {**found, "torch": pinned}


def install(folder: Path) -> Path:
    """The Python of an environment with exactly these versions, without bootdiff itself."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    known = floors()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*pip, f"torch=={known['torch']}", "setuptools", "wheel"], check=True)
    subprocess.run([*pip, *(f"{name}=={version}" for name, version in known.items())], check=True)
    return python


if __name__ == "__main__":
    main()
