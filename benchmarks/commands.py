"""Runs of the command line by a benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def bootdiff(*words: object, cwd: Path | None = None) -> None:
    """Run a command of bootdiff in a folder, and end with it if it fails."""
    subprocess.run([sys.executable, "-m", "bootdiff", *map(str, words)], check=True, cwd=cwd)
