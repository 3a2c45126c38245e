"""The Inception-v3 network of the FID, and the feature space that it makes, in which published figures are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics.features import as_saved, in_parts
from bootdiff.storage.files import load_state
from bootdiff.teachers.loading.weights import aligned, check_finite, tensors_hash

#: the side of the images that the network sees
SIDE = 299
#: a counter of training steps that some files hold and nothing reads
COUNTER = "num_batches_tracked"

Kernel = tuple[int, int]
ONE, THREE, FIVE, ROW, COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
#: the kernels of two convolutions beside each other, with which a branch can end
FORK = ((1, 3), (3, 1))
#: the channels and kernel of each step of a branch, from its start to its end
Branch = Sequence[tuple[int, Kernel | tuple[Kernel, Kernel]]]


class Convolution(nn.Module):
    """A convolution followed by batch normalisation and ReLU."""

    def __init__(self, before: int, after: int, kernel: Kernel = THREE, stride: int = 1, same: bool = False) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's answer to x (b, before, h, w): (b, after, h', w')."""
        return self.bn(self.conv(x)).relu_()


class Block(nn.Module):
    """A block of Inception-v3: several branches and a pooled one get the same input, and their channels are joined.

    Args:
        branches: the branches by name; the steps of a branch that has several are numbered.
        pooled: the channels of the pooled branch. None in a block that halves its images: there the pooled branch has
            no convolution, and the last step of every branch has stride 2.
        mean: whether to pool by the mean of what lies inside the image; otherwise by the maximum.
    """

    def __init__(self, before: int, branches: Mapping[str, Branch], pooled: int | None = None, mean: bool = True):
        super().__init__()
        self.mean = mean
        self.halves = pooled is None
        self.steps = [self._add(name, before, branch) for name, branch in branches.items()]
        if pooled is not None:
            self.branch_pool = Convolution(before, pooled, ONE)

    def _add(self, name: str, width: int, branch: Branch) -> list[list[str]]:
        """Make a branch's convolutions, and return their names, step by step."""
        steps: list[list[str]] = []
        for number, (after, kernel) in enumerate(branch, 1):
            own = name if len(branch) == 1 else f"{name}_{number}"
            last = self.halves and number == len(branch)
            forks = (
                {own: kernel} if isinstance(kernel[0], int) else dict(zip((own + "a", own + "b"), kernel, strict=True))
            )
            for key, size in forks.items():
                self.add_module(key, Convolution(width, after, size, 2 if last else 1, same=not last))
            steps.append(list(forks))
            width = after
        return steps

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined channels of all branches for x (b, before, h, w).

        The result is (b, sum of the branches' channels, h, w), or half as high and wide in a block that halves.
        """
        parts = []
        for branch in self.steps:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            parts.append(y)
        if self.halves:
            return torch.cat([*parts, max_pool2d(x, 3, 2)], 1)
        # TensorFlow's mean does not count the padding.
        near = avg_pool2d(x, 3, 1, 1, count_include_pad=False) if self.mean else max_pool2d(x, 3, 1, 1)
        return torch.cat([*parts, self.branch_pool(near)], 1)


def _block_a(before: int, pooled: int) -> Block:
    triple = [(64, ONE), (96, THREE), (96, THREE)]
    return Block(
        before, {"branch1x1": [(64, ONE)], "branch5x5": [(48, ONE), (64, FIVE)], "branch3x3dbl": triple}, pooled
    )


def _block_b(before: int) -> Block:
    return Block(before, {"branch3x3": [(384, THREE)], "branch3x3dbl": [(64, ONE), (96, THREE), (96, THREE)]})


def _block_c(before: int, width: int) -> Block:
    single = [(width, ONE), (width, ROW), (192, COLUMN)]
    double = [(width, ONE), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)]
    return Block(before, {"branch1x1": [(192, ONE)], "branch7x7": single, "branch7x7dbl": double}, pooled=192)


def _block_d(before: int) -> Block:
    long: Branch = [(192, ONE), (192, ROW), (192, COLUMN), (192, THREE)]
    return Block(before, {"branch3x3": [(192, ONE), (320, THREE)], "branch7x7x3": long})


def _block_e(before: int, mean: bool) -> Block:
    single: Branch = [(384, ONE), (384, FORK)]
    double: Branch = [(448, ONE), (384, THREE), (384, FORK)]
    return Block(before, {"branch1x1": [(320, ONE)], "branch3x3": single, "branch3x3dbl": double}, 192, mean)


class Inception(nn.Module):
    """Inception-v3 as in TensorFlow's file of 2015-12-05, with its weights named as in pytorch-fid.

    Source: Szegedy et al., 2016, "Rethinking the Inception Architecture for Computer Vision"; the pooling layers that
    differ from the paper (the last block takes a maximum) are those of pytorch-fid's ``inception.py``.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": Convolution(3, 32, stride=2),
            "Conv2d_2a_3x3": Convolution(32, 32),
            "Conv2d_2b_3x3": Convolution(32, 64, same=True),
            "maxpool1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Convolution(64, 80, ONE),
            "Conv2d_4a_3x3": Convolution(80, 192),
            "maxpool2": nn.MaxPool2d(3, 2),
            "Mixed_5b": _block_a(192, 32),
            "Mixed_5c": _block_a(256, 64),
            "Mixed_5d": _block_a(288, 64),
            "Mixed_6a": _block_b(288),
            "Mixed_6b": _block_c(768, 128),
            "Mixed_6c": _block_c(768, 160),
            "Mixed_6d": _block_c(768, 160),
            "Mixed_6e": _block_c(768, 192),
            "Mixed_7a": _block_d(768),
            "Mixed_7b": _block_e(1280, mean=True),
            "Mixed_7c": _block_e(2048, mean=False),
        }
        self.path = list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (b, 2048) and logits (b, 1008) of images (b, 3, 299, 299) in [−1, 1].

        The logits leave out the bias, as the Inception score's own code does (Salimans et al., 2016).
        """
        for name in self.path:
            images = self.get_submodule(name)(images)
        features = images.mean((2, 3))
        return features, features @ self.fc.weight.T


class InceptionFeatures:
    """The 2,048 features of the FID, for images of any size.

    The images are resized to 299×299 bilinearly, without antialiasing and with ``align_corners=False``, as pytorch-fid
    does (``pytorch_fid/inception.py``, ``InceptionV3.forward``); clean-fid and TensorFlow resize otherwise and give
    other figures. Grey images are repeated to three channels, and all are rounded to the 256 levels of a saved file.

    Args:
        path: pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth``, or the same weights as ``.safetensors``.

    Raises:
        BootdiffError: if the file cannot be read or holds another network.
    """

    shape = None
    #: False, because its classes are ImageNet's, in TensorFlow's order
    knows_labels = False

    def __init__(self, path: Path) -> None:
        self.network = load_inception(path)
        self.name = f"inception-{tensors_hash(_weights(self.network.state_dict()))[:8]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images (b, 1 or 3, h, w), (b, 2048)."""
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, 2048) and logits (b, 1008)."""
        network = self.network.to(images.device)
        features, logits = in_parts(lambda part: network(_resized(as_saved(part, self.name))), images)
        return features, logits


def load_inception(path: Path) -> Inception:
    """Return the network with a file's weights, frozen.

    Raises:
        BootdiffError: if the file cannot be read, or lacks a weight, has one too many or one of another shape.
    """
    given = _weights(load_state(path))
    network = Inception()
    wanted = _weights(network.state_dict())
    wrong = _first_wrong(given, wanted)
    if wrong is not None:
        raise BootdiffError(
            f"{path} {wrong}; expected the Inception-v3 of pytorch-fid, pt_inception-2015-12-05-6726825d.pth."
        )
    network.load_state_dict(given, strict=False)
    check_finite(network, path)
    return aligned(network.requires_grad_(False).eval())


def _first_wrong(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    missing, more = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing:
        return f"lacks {len(missing)} of {len(wanted)} weights, such as '{missing[0]}'"
    if more:
        return f"has {len(more)} weights too many, such as '{more[0]}'"
    for name, weight in wanted.items():
        if given[name].shape != weight.shape:
            return f"has '{name}' of shape {tuple(given[name].shape)} instead of {tuple(weight.shape)}"
    return None


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in state.items() if not name.endswith(COUNTER)}


def _resized(images: Tensor) -> Tensor:
    return interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
