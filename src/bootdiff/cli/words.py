"""The reading of options' words: prompts, classes, counts and times."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from bootdiff.builtin import DIGITS
from bootdiff.core.errors import BootdiffError, shown
from bootdiff.data.prompts import check_words, read_prompt_labels, read_prompts

#: the largest number of prompts that a pattern may stand for
MOST_SWAPPED = 10_000


def read_words(
    prompt: Sequence[str], prompts: Path | None, column: str | None, swap: str | None = None
) -> Sequence[str] | None:
    """Return the prompts of ``--prompt``, ``--prompts`` or ``--swap``; None if none of them is given.

    Raises:
        BootdiffError: if several are given, or the file cannot be read.
    """
    if bool(prompt) + (prompts is not None) + (swap is not None) > 1:
        raise BootdiffError("--prompt, --prompts and --swap exclude each other; give one of them.")
    for text in (*prompt, swap or ""):
        check_words(text, "--prompt or --swap")
    if swap is not None:
        return read_pattern(swap)
    return read_prompts(prompts, column).prompts if prompts is not None else prompt or None


def read_labels(prompts: Path | None, column: str | None, label_column: str | None) -> Sequence[int] | None:
    """Return the classes that a file's prompts ask for; None if no column names them.

    Raises:
        BootdiffError: if a column is named without a file, or has gaps.
    """
    if label_column is None and prompts is not None and str(prompts) == DIGITS and not prompts.exists():
        label_column = "label"
    if label_column is None:
        return None
    if prompts is None:
        raise BootdiffError("--label-column names a column of the --prompts file; give both.")
    return read_prompt_labels(prompts, column, label_column)


def read_pattern(pattern: str) -> list[str]:
    """Return every prompt that a pattern such as ``"a {bold,thin} {one,two}"`` stands for.

    Raises:
        BootdiffError: if it has no choice in braces, or stands for too many prompts.
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    count = math.prod(map(len, choices))
    if count > MOST_SWAPPED:
        raise BootdiffError(f"--swap makes more than {MOST_SWAPPED:,} prompts of {shown(pattern)}; give fewer words.")
    if count < 2:
        raise BootdiffError(
            f"--swap expects words to choose from, such as 'a {{bold,thin}} seven', got {shown(pattern)}."
        )
    return [" ".join("".join(words).split()) for words in itertools.product(*choices)]


def read_counts(words: str, option: str) -> list[int]:
    """Return the comma-separated numbers of steps or calls that an option holds.

    Raises:
        BootdiffError: if one is no whole number from 1 to 1,000.
    """
    try:
        steps = [int(word) for word in words.split(",")]
    except ValueError:
        steps = [0]
    from bootdiff.samplers.rows import MOST_STEPS

    if not all(1 <= step <= MOST_STEPS for step in steps):
        raise BootdiffError(
            f"{option} expects whole numbers from 1 to {MOST_STEPS} such as 1,10,50, got {shown(words)}."
        )
    return steps


def read_calls(words: str | None) -> Sequence[int]:
    """Return the numbers of network calls, rising; those of the full curve if none are given.

    Raises:
        BootdiffError: if one is no whole number from 1 to 1,000.
    """
    from bootdiff.evaluation.curve import LADDER

    return LADDER if words is None else sorted(set(read_counts(words, "--calls")))


def read_times(words: str) -> list[float]:
    """Return the comma-separated times that ``--times`` holds.

    Raises:
        BootdiffError: if one is no number.
    """
    try:
        times = [float(word) for word in words.split(",")]
    except ValueError:
        times = [math.nan]
    if not all(map(math.isfinite, times)):
        raise BootdiffError(f"--times expects numbers such as 0.9,0.5,0.1, got {shown(words)}.")
    return times
