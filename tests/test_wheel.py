"""The built wheel in an environment of its own, without a network: it brings its data, imports, and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def quiet(*words: object, **more) -> str:
    """What a command says; a command that fails fails the test with its words."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), env=outside, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def environment(tmp_path) -> Path:
    """The Python of a new environment with the wheel, and with the dependencies of this one but not its bootdiff."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-index", "--no-deps", "--no-cache-dir"]
    source = tmp_path / "source"  # a build leaves files beside what it builds
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet(*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", tmp_path, source)
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    own = Path(quiet(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path in a .pth file is searched after the environment's own, and the .pth files that lie there, such as an
    # editable bootdiff's, are not read.
    (own / "dependencies.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    quiet(*pip, "--python", python, "install", *alone, next(tmp_path.glob("bootdiff-*.whl")))
    return python


@pytest.mark.slow
def test_the_wheel_brings_its_data_imports_and_runs_the_quickstart(environment, tmp_path):
    said = quiet(environment, "-P", ROOT / "tests/wheel_check.py", cwd=tmp_path)
    assert "modules, which import, and runs the quickstart" in said
