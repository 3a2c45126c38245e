"""The work of ``bootdiff sample``: it draws samples and saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bootdiff.cli.words import read_times
from bootdiff.sampling.sample import Wanted, plan_samples
from bootdiff.sampling.saving import check_output, check_room, save_images


def run_sample(students: Sequence[str], wanted: Wanted, times: str | None, output: Path) -> None:
    """Draw samples, and save them as a grid or as files.

    Raises:
        BootdiffError: if students, prompts, classes or the output do not fit.
    """
    check_output(output)
    drawing = plan_samples(students, wanted, None if times is None else read_times(times))
    check_room(drawing.shape, drawing.count, drawing.columns, output)
    scales = save_images(drawing.batches, output, drawing.columns, drawing.own)
    print(f"{drawing.count} images: {output}")
    for line in (*drawing.told, *scales):
        print(line)
