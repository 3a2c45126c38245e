"""``bootdiff sample``."""

from __future__ import annotations

from pathlib import Path

import torch

from bootdiff.errors import BootdiffError
from bootdiff.files import write_whole
from bootdiff.pictures import grid, is_picture, to_image
from bootdiff.pipelines.samplers import noise_batches, open_student, path_folder
from bootdiff.pipelines.student_files import load_student


def run_sample(student: str, num: int, seed: int, times: str | None, output: Path, batch_size: int) -> None:
    """Draw samples and save them as a grid or as files."""
    if times is not None:
        images, columns = path_images(student, num, seed, read_times(times), batch_size)
    else:
        sampler, _ = open_student(student)
        images = torch.cat([sampler(eps) for eps in noise_batches(seed, num, sampler.shape, batch_size)])
        columns = None
    if not is_picture(images.shape[1:]):
        raise BootdiffError(f"samples of shape {tuple(images.shape[1:])} are no pictures; sample from Python instead.")
    save_images(images, output, columns)
    print(f"{len(images)} images: {output}")


def path_images(student: str, num: int, seed: int, times: list[float], batch_size: int) -> tuple[torch.Tensor, int]:
    """(images, columns): y_t at each time, a row a noise."""
    path = load_student(path_folder(Path(student)))
    outside = [t for t in times if not path.t_min <= t <= path.t_max]
    if outside:
        raise BootdiffError(f"--times {outside[0]:g} is outside this student's [{path.t_min:g}, {path.t_max:g}].")
    rows = [
        torch.stack([path.to(eps.device).sample(eps, t=t) for t in times], dim=1).flatten(0, 1)
        for eps in noise_batches(seed, num, path.shape, batch_size)
    ]
    return torch.cat(rows), len(times)


def read_times(words: str) -> list[float]:
    """Comma-separated times.

    Raises:
        BootdiffError: if one is no number.
    """
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise BootdiffError(f"--times expects numbers such as 0.9,0.5,0.1, got '{words}'.") from None


def save_images(images: torch.Tensor, output: Path, columns: int | None) -> None:
    """A grid where ``output`` ends in .png, else a folder with one file a sample.

    Raises:
        BootdiffError: if the folder exists and holds other files.
    """
    if output.suffix.lower() == ".png":
        write_whole(output, grid(images, columns).save)
        return
    if output.suffix:
        raise BootdiffError(f"--output {output}: expected a file that ends in .png, or a folder.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BootdiffError(f"{output} exists and holds other files; choose a new folder.")

    def write(folder: Path) -> None:
        folder.mkdir()
        for i, image in enumerate(images):
            to_image(image).save(folder / f"{i:05d}.png")

    write_whole(output, write)
