"""Every family of pipelines, on tiny random ones: how far the student is from its teacher, and the export from it.

    python benchmarks/families.py

Columns: the largest difference of the new student to its teacher; of the folded student to the unfolded one, and of the
stock pipeline's images to ours for the same generators, after every weight was moved; what four steps give.
Differences of images are in units of their range, [−1, 1] or [0, 1].
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from common import table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import family_table as families
from bootdiff.core.randomness import sample_noise
from bootdiff.export.diffusers import export_student
from bootdiff.students import Student


def main() -> None:
    """Measure and print."""
    rows = [measure(name) for name in families.FAMILIES]
    table(rows, ["family", "student − teacher", "folded − unfolded", "stock − ours", "four steps"])


@torch.no_grad()
def measure(name: str) -> list[str]:
    """One family's row."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _, teacher = families.opened(name, place / "teacher")
        condition = families.conditions(teacher)
        eps = sample_noise(families.SEED, 0, families.COUNT, teacher.shape)
        student = Student.from_teacher(teacher).requires_grad_(False)
        first = teacher.denoiser.x0(eps, torch.full((len(eps),), student.t_max), condition)
        start = gap(student(eps, torch.full((len(eps),), 0.4), condition), first)
        student = families.disturbed(families.grown(name, teacher).requires_grad_(False))
        ours = student.sample(eps, condition)
        folded = gap(student.one_step()(eps, condition), ours)
        export_student(student, place / "student", {})
        pipe = families.stock_pipeline(place / "student")
        stock = families.stock_images(name, pipe)
        images = families.in_stock_range(name, student.decode(ours))
        try:
            more = f"{gap(families.stock_images(name, pipe, num_inference_steps=4), stock):.0e} away"
        except ValueError:
            more = "refused"
        return [name, *(f"{value:.0e}" for value in (start, folded, gap(stock, images))), more]


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the larger of 1 and the largest value."""
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


if __name__ == "__main__":
    main()
