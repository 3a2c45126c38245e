"""The feature spaces that an evaluation measures in, and the reference statistics that it compares with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from bootdiff.builtin import BUILTIN_TEACHERS, DIGITS, FASHION, builtin_folder
from bootdiff.core.device import best_device
from bootdiff.core.errors import BootdiffError, first_line, nearest
from bootdiff.data.images import image_batches
from bootdiff.data.pictures import to_unit
from bootdiff.evaluation.cache import cached
from bootdiff.evaluation.teacher_space import TeacherSpace
from bootdiff.metrics.callable_features import CallableFeatures
from bootdiff.metrics.features import DigitsFeatures, Features, load_features
from bootdiff.metrics.frechet import Accumulator, Statistics
from bootdiff.metrics.onnx_features import OnnxFeatures
from bootdiff.storage.arrays import read_npz
from bootdiff.system.notes import note
from bootdiff.system.progress import progress
from bootdiff.teachers import Teacher, adapter_of

#: the number of images whose features are computed at a time, by a small network and by a large one
BATCH, LARGE_BATCH = 512, 64
#: the largest number of feature vectors that are kept beside the statistics
SAMPLES = 10_000
#: the number of images from which on progress is shown
MANY = 5_000
#: the array of an .npz file that holds samples themselves, as ``bootdiff sample`` writes them
IMAGES = "images"
#: the name of the teacher's own features
TEACHER = "teacher"


@dataclass(frozen=True)
class Reference:
    """The images that samples are compared with, as features.

    Args:
        statistics: mean and covariance of the features of every image.
        samples: some features (n ≤ 10,000, d) in float32, drawn with a fixed seed; None if only the statistics are
            known.
        name: the name that the user gave.
        features: the feature space's name with its hash.
    """

    statistics: Statistics
    samples: Tensor | None
    name: str
    features: str

    @property
    def warning(self) -> str | None:
        """Return a line for the user if there are too few images for the covariance; otherwise None."""
        count, size = self.statistics.count, len(self.statistics.mean)
        if not 0 < count <= size:
            return None
        return (
            f"the reference {self.name} has {count} images for {size} features, so that its covariance is singular; "
            f"the Fréchet distance needs more than {size}."
        )


def find_reference(name: str | None, features: Features, shape: tuple[int, ...] | None = None) -> Reference:
    """Return a reference: ``digits``, ``fashion``, an ``.npz`` file, or images whose features are computed here.

    Images are a folder, an IDX file or a parquet file; their features are kept in the cache. An ``.npz`` file holds
    statistics, or samples of any shape as its array ``images``, in the teacher's own scale.

    Args:
        shape: the shape (c, h, w) of the images that will be measured. If the space takes any size, the reference's
            images must have it, too.

    Raises:
        BootdiffError: if it cannot be read, was made with other features, or its images have another size.
    """
    if name is None or not Path(name).exists():
        return _builtin(name, features, shape)
    if Path(name).suffix == ".npz" and IMAGES in (held := read_npz(Path(name), (IMAGES,))):
        if held[IMAGES].dtype.kind != "f":
            raise BootdiffError(
                f"the images in {name} should be real numbers on the teacher's own scale, got whole numbers; pixels "
                "of 8 bits are x / 127.5 − 1."
            )
        return _of_arrays(name, torch.from_numpy(held[IMAGES]).float(), features, shape)
    if Path(name).suffix in (".npz", ".pkl"):
        return _from_file(Path(name), name, features, shape)
    return Reference(*image_statistics(name, features, shape), name, features.name)


@torch.no_grad()
def _of_arrays(name: str, images: Tensor, features: Features, shape: tuple[int, ...] | None) -> Reference:
    """Return the reference that samples themselves are, (n, *shape) in the teacher's own scale."""
    wanted = features.shape or shape or tuple(images.shape[1:])
    if images.ndim < 2 or len(images) < 2 or tuple(images.shape[1:]) != tuple(wanted):
        raise BootdiffError(
            f"the images in {name} should be at least two of shape {tuple(wanted)}, got {tuple(images.shape)}."
        )
    accumulator, samples = Accumulator(), []
    for batch, mask in zip(images.split(BATCH), drawn(len(images)).split(BATCH), strict=True):
        values = features(batch.to(best_device())).cpu()
        if not bool(torch.isfinite(values).all()):
            raise BootdiffError(f"{features.name} gives values that are not finite for images of {name}.")
        accumulator.add(values)
        samples.append(values[mask].float())
    return Reference(accumulator.statistics(), torch.cat(samples), name, features.name)


def _builtin(name: str | None, features: Features, shape: tuple[int, ...] | None) -> Reference:
    if name == DIGITS:
        if not isinstance(features, DigitsFeatures) or features.factor > 1:
            return Reference(*image_statistics(name, features, shape), name, features.name)
        reference = _from_file(builtin_folder(DIGITS) / "reference.npz", name, features)
        return replace(reference, samples=_digit_samples(features))
    if name == FASHION:
        own = OnnxFeatures.fashion().name
        if features.name != own:
            raise BootdiffError(
                f"the builtin reference {FASHION} was made with the features {own}, not {features.name}; measure with "
                f"{FASHION}, or name the images themselves."
            )
        reference = _from_file(builtin_folder(FASHION) / "reference.npz", name, features)
        return replace(reference, samples=_extras(builtin_folder(FASHION) / "samples.npz")[0])
    raise BootdiffError(
        f"no reference at '{name}'; expected {DIGITS}, {FASHION}, an .npz file, or a folder of images, an IDX file or "
        f"parquet.{nearest(name or '', (DIGITS, FASHION))}"
    )


def _digit_samples(features: Features) -> Tensor | None:
    try:
        return _gather(DIGITS, features, None)[1]
    except BootdiffError as error:  # without scikit-learn there are no digits, but their statistics are shipped
        note(f"the digits themselves cannot be had, so KID, precision and recall are left out: {error}")
        return None


def _from_file(path: Path, name: str, features: Features, shape: tuple[int, ...] | None = None) -> Reference:
    """Return the reference in a file of pytorch-fid, clean-fid or EDM, or in one of our own with samples."""
    statistics, made_with = Statistics.read(path)
    if made_with is not None and made_with != features.name:
        raise BootdiffError(f"{path} was made with the features {made_with}, not {features.name}; make it anew.")
    size = _size(features, shape)
    if len(statistics.mean) != size:
        raise BootdiffError(
            f"{path} has {len(statistics.mean)} features and {features.name} {size}; it was made with others."
        )
    statistics = statistics.checked(path)
    samples, num = _extras(path)
    if samples is not None:
        if samples.ndim != 2 or samples.shape[1] != size or not bool(torch.isfinite(samples).all()):
            raise BootdiffError(f"the samples in {path} should be finite and (n, {size}), got {tuple(samples.shape)}.")
        samples = samples[drawn(len(samples))]
    return Reference(replace(statistics, count=statistics.count or num), samples, name, features.name)


def _extras(path: Path) -> tuple[Tensor | None, int]:
    """Return the samples that a file holds, or None, and the number of images that it calls ``num``, or 0."""
    held = read_npz(path, ("samples", "num"))
    samples = torch.from_numpy(held["samples"]).float() if "samples" in held else None
    try:
        return samples, int(held["num"].item()) if "num" in held else 0
    except (ValueError, OverflowError) as error:
        raise BootdiffError(f"{path}: num should be the number of images ({first_line(error)}).") from error


@torch.no_grad()
def _size(features: Features, shape: tuple[int, ...] | None = None) -> int:
    """Return the number of features that a space has."""
    return features(torch.zeros(1, *(features.shape or shape or (3, 32, 32)))).shape[1]


def drawn(count: int) -> Tensor:
    """Return which of ``count`` feature vectors are kept, as a mask (count,).

    It chooses 10,000 at most, and the same ones every time.
    """
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SAMPLES]] = True
    return mask


def image_statistics(data: str, features: Features, shape: tuple[int, ...] | None = None) -> tuple[Statistics, Tensor]:
    """Return the statistics of a data set's features, and some of the features.

    They are computed once, and then read from the cache.

    Images that are a little smaller than those to be measured are padded with black, as ``train-teacher`` pads them.
    The digits are resized, as it resizes them.

    Raises:
        BootdiffError: if the data cannot be read, or have another size.
    """
    if not getattr(features, "lasting", True):
        return _gather(data, features, shape)
    key = features.name if features.shape or shape is None else f"{features.name}-of-{'x'.join(map(str, shape))}"
    return cached(data, key, lambda: _gather(data, features, shape))


@torch.no_grad()
def _gather(data: str, features: Features, shape: tuple[int, ...] | None) -> tuple[Statistics, Tensor]:
    size = BATCH if features.shape else LARGE_BATCH
    count, batches = image_batches(data, size)
    accumulator, samples, device = Accumulator(), [], best_device()
    with progress(f"features of {data}", count, show=count >= MANY or features.shape is None) as bar:
        for pixels, mask in zip(batches, drawn(count).split(size), strict=True):
            values = features(to_unit(_fitted(pixels, data, features.shape or shape)).to(device)).cpu()
            if not bool(torch.isfinite(values).all()):
                raise BootdiffError(f"{features.name} gives values that are not finite for images of {data}.")
            accumulator.add(values)
            samples.append(values[mask].float())
            bar.advance(len(pixels))
    if count < 2:  # said last: one image of another size has another fault
        raise BootdiffError(f"{data} holds {count} image; a reference needs at least two.")
    return accumulator.statistics(), torch.cat(samples)


def _fitted(pixels: Tensor, data: str, shape: tuple[int, ...] | None) -> Tensor:
    """Return images (b, c, h, w) in uint8, at the size of those that are measured.

    Raises:
        BootdiffError: if they are larger, less than half as large, or have other channels.
    """
    if shape is None:
        return pixels
    if len(shape) != 3:
        raise BootdiffError(
            f"{data} holds pictures, and what is measured has the shape {tuple(shape)}; name an .npz file."
        )
    channels, height, width = shape
    if data == DIGITS and not Path(data).exists() and width > pixels.shape[-1]:
        from bootdiff.data.resizing import resized

        pixels = resized(pixels, width)
    rows, columns = height - pixels.shape[2], width - pixels.shape[3]
    other = min(rows, columns) < 0 or 2 * rows > height or 2 * columns > width
    if pixels.shape[1] != channels or other:
        raise BootdiffError(f"the images of {data} are {tuple(pixels.shape[1:])}, those to be measured {tuple(shape)}.")
    return pad(pixels, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def default_features(
    teacher: Teacher, features: str | Features | None, reference: str | None
) -> tuple[str | Features | None, str | None]:
    """Return the feature space or its name, and the reference's name; None where there is none.

    The builtin teachers have their own; for any other teacher the user names them.
    """
    if teacher.name in BUILTIN_TEACHERS:
        return features or DIGITS, reference or DIGITS
    if (features is None) != (reference is None):
        missing = "features" if features is None else "reference"
        raise BootdiffError(
            f"a Fréchet distance needs both features and a reference; --{missing} ({missing}=) is missing."
        )
    return features, reference


def open_features(name: str | Features | None, teacher: Teacher) -> Features | None:
    """Load a feature space, which may be a function of images as well, and check that it takes this teacher's images.

    Raises:
        BootdiffError: if it takes images of another shape.
    """
    if name is None:
        return None
    shape = image_shape(teacher)
    features = _space(name, teacher, shape)
    if getattr(features, "takes_any_shape", False):
        return features
    if features.shape is None and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise BootdiffError(f"{features.name} takes images of 1 or 3 channels; {teacher.name} makes {shape}.")
    if features.shape is not None and tuple(features.shape) != shape:
        raise BootdiffError(f"{features.name} takes images of shape {features.shape}; {teacher.name} makes {shape}.")
    return features


def _space(name: str | Features, teacher: Teacher, shape: tuple[int, ...]) -> Features:
    if name == TEACHER:
        return TeacherSpace(teacher)
    if isinstance(name, str):
        return load_features(name, shape)
    known = all(hasattr(name, word) for word in ("name", "shape", "knows_labels", "read"))
    return name if known else cast("Features", CallableFeatures(name))


@torch.no_grad()
def image_shape(teacher: Teacher) -> tuple[int, ...]:
    """Return the shape (c, h, w) of a teacher's images.

    Those of a latent teacher are known once one is decoded.
    """
    adapter = adapter_of(teacher)
    if adapter is None or not adapter.latent:
        return tuple(teacher.shape)
    return tuple(adapter.decode(torch.zeros(1, *teacher.shape)).shape[1:])
