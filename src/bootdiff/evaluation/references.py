"""What an evaluation measures in, and against: feature spaces and reference statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import pad

from bootdiff.builtin import BUILTIN_TEACHERS, DIGITS, builtin_folder
from bootdiff.errors import BootdiffError
from bootdiff.metrics.features import DigitsFeatures, Features, load_features
from bootdiff.metrics.frechet import Accumulator, Statistics
from bootdiff.teachers import Teacher, adapter_of

#: images whose features are computed at a time
BATCH = 512


def find_reference(name: str | None, features: Features) -> Statistics:
    """Reference statistics: ``digits``, an ``.npz`` file, or a folder of images whose features are computed here.

    Raises:
        BootdiffError: if it cannot be read, was made with other features, or its images have another size.
    """
    if name == DIGITS and not Path(name).exists():
        if not isinstance(features, DigitsFeatures) or features.factor > 1:
            return image_statistics(name, features)
        path = builtin_folder(DIGITS) / "reference.npz"
    elif name is None or not Path(name).exists():
        raise BootdiffError(f"no reference at '{name}'; expected digits, an .npz file or a folder of images.")
    else:
        path = Path(name)
    if path.suffix != ".npz":
        return image_statistics(str(path), features)
    statistics, made_with = Statistics.load(path)
    if made_with is not None and made_with != features.name:
        raise BootdiffError(f"{path} was made with the features {made_with}, not {features.name}; make it anew.")
    return statistics


def image_statistics(data: str, features: Features) -> Statistics:
    """Feature statistics of a data set; smaller images are padded with black, as ``train-teacher`` pads them.

    The digits are resized, as it resizes them.
    """
    from bootdiff.data.images import load_images
    from bootdiff.data.sources import to_unit
    from bootdiff.training.teach import resized

    pixels = load_images(data)
    if data == DIGITS and features.shape[-1] > pixels.shape[-1]:
        pixels = resized(pixels, features.shape[-1])
    rows, columns = (want - have for want, have in zip(features.shape[1:], pixels.shape[2:], strict=True))
    if pixels.shape[1] != features.shape[0] or min(rows, columns) < 0:
        raise BootdiffError(
            f"the images of {data} are {tuple(pixels.shape[1:])} but {features.name} takes {features.shape}."
        )
    frame = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    pixels = pad(pixels, frame)
    accumulator = Accumulator()
    for batch in pixels.split(BATCH):
        accumulator.add(features(to_unit(batch)))
    return accumulator.statistics()


def default_features(teacher: Teacher, features: str | None, reference: str | None) -> tuple[str | None, str | None]:
    """The builtin teachers come with features and a reference; for any other the user names them."""
    if teacher.name in BUILTIN_TEACHERS:
        return features or DIGITS, reference or DIGITS
    if (features is None) != (reference is None):
        missing = "--features" if features is None else "--reference"
        raise BootdiffError(f"a Fréchet distance needs both --features and --reference; {missing} is missing.")
    return features, reference


def open_features(name: str | None, teacher: Teacher) -> Features | None:
    """Load a feature space and check that it takes this teacher's images.

    Raises:
        BootdiffError: if it takes another shape.
    """
    if name is None:
        return None
    shape = image_shape(teacher)
    features = load_features(name, shape)
    if tuple(features.shape) != shape:
        raise BootdiffError(f"{features.name} takes images of shape {features.shape}; {teacher.name} makes {shape}.")
    return features


@torch.no_grad()
def image_shape(teacher: Teacher) -> tuple[int, ...]:
    """Of a teacher's images: those of a latent teacher are known once one is decoded."""
    adapter = adapter_of(teacher)
    if adapter is None or not adapter.latent:
        return tuple(teacher.shape)
    return tuple(adapter.decode(torch.zeros(1, *teacher.shape)).shape[1:])
