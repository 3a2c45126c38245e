"""``bootdiff sample``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bootdiff.cli.words import read_times
from bootdiff.sampling.sample import Wanted, draw_samples
from bootdiff.sampling.saving import check_output, save_images


def run_sample(students: Sequence[str], wanted: Wanted, times: str | None, output: Path) -> None:
    """Draw samples and save them as a grid or as files.

    Raises:
        BootdiffError: for students, words or an output that do not fit.
    """
    check_output(output)
    samples = draw_samples(students, wanted, None if times is None else read_times(times))
    save_images(samples.images, output, samples.columns)
    print(f"{len(samples.images)} images: {output}")
    for line in samples.told:
        print(line)
