"""A small classifier of 32×32 colour images: the feature space of the colour stages, as one ONNX file."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from common import device
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from bootdiff.data.pictures import to_unit
from bootdiff.storage.files import file_hash

FEATURES, BATCH, RATE, SHIFT = 128, 512, 3e-3, 4
#: channels of the convolutions; behind all but the first the image is halved
CHANNELS = (32, 64, 128, 128)


class Classifier(nn.Module):
    """Four convolutions, a mean over the image, a layer whose 128 values are the features, and the logits.

    Args:
        normalised: with batch normalisation, as it is trained; ``folded`` moves that into the convolutions.
    """

    def __init__(self, classes: int, normalised: bool = True) -> None:
        super().__init__()
        before = 3
        stages: list[nn.Module] = []
        for number, channels in enumerate(CHANNELS):
            norm = [nn.BatchNorm2d(channels)] if normalised else []
            halved = [nn.MaxPool2d(2)] if number else []
            stages += [nn.Conv2d(before, channels, 3, padding=1), *norm, nn.ReLU(), *halved]
            before = channels
        self.body = nn.Sequential(*stages)
        self.neck, self.head = nn.Linear(before, FEATURES), nn.Linear(FEATURES, classes)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, 128) and logits (b, classes) of images (b, 3, 32, 32) in [−1, 1]."""
        features = self.neck(self.body(images).mean((2, 3))).relu()
        return features, self.head(features)

    @property
    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """Those with weights, from the image to the logits; without normalisation."""
        return [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def train_classifier(pixels: Tensor, labels: Tensor, seconds: float, seed: int = 0) -> Classifier:
    """Train for so many seconds, with a rate that falls to 0 with the time; random shifts and mirror images.

    Args:
        pixels: (n, 3, 32, 32) in uint8.
        labels: (n,).
    """
    torch.manual_seed(seed)
    here = device()
    network = Classifier(int(labels.max()) + 1).to(here).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    pixels, labels = pad(pixels, (SHIFT,) * 4).to(here), labels.to(here)
    began = time.perf_counter()
    done = 0.0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, 20 * done + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
        rows = torch.randint(len(labels), (min(BATCH, len(labels)),), device=here)
        with torch.autocast(here.type, torch.bfloat16, enabled=here.type == "cuda"):
            _, logits = network.read(_shifted(pixels[rows]).to(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if here.type == "cuda" and int(torch.randint(20, ())) == 0:
            torch.cuda.synchronize()  # otherwise the clock would run ahead of the work
        done = (time.perf_counter() - began) / seconds
    return folded(network.float().eval())


def _shifted(padded: Tensor) -> Tensor:
    """The batch at one random place of its padding, every other image mirrored, in [−1, 1]."""
    top, left = (int(v) for v in torch.randint(2 * SHIFT + 1, (2,)))
    images = padded[..., top : top + 32, left : left + 32].clone()
    images[::2] = images[::2].flip(3)
    return to_unit(images)


@torch.no_grad()
def folded(network: Classifier) -> Classifier:
    """The same answers from convolutions alone, on the CPU."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    parts = list(network.cpu().body)
    pairs = zip(parts, [*parts[1:], nn.Identity()], strict=True)
    fused = [fuse_conv_bn_eval(a, b) for a, b in pairs if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d)]
    plain = Classifier(network.head.out_features, normalised=False)
    for layer, source in zip(plain.layers, [*fused, network.neck, network.head], strict=True):
        layer.load_state_dict(source.state_dict())
    return plain.requires_grad_(False).eval()


def save_onnx(network: Classifier, path: Path) -> None:
    """The folded network as ONNX: ``images`` (b, 3, 32, 32) to ``features`` and ``logits``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []
    value = "images"
    for number, layer in enumerate(network.layers):
        for part, tensor in (("w", layer.weight), ("b", layer.bias)):
            weights.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), f"{part}{number}"))
        inputs, last = [value, f"w{number}", f"b{number}"], number == len(network.layers) - 1
        if isinstance(layer, nn.Conv2d):
            nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
            value = f"r{number}"
            if number:
                nodes.append(helper.make_node("MaxPool", [value], [f"p{number}"], kernel_shape=[2, 2], strides=[2, 2]))
                value = f"p{number}"
            continue
        if number == len(CHANNELS):
            nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"]))
            nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
            inputs[0] = "flat"
        nodes.append(helper.make_node("Gemm", inputs, ["logits" if last else f"g{number}"], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{number}"], ["features"]))
            value = "features"
    shapes = {"images": ["b", 3, 32, 32], "features": ["b", FEATURES], "logits": ["b", network.head.out_features]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "colour", ends[:1], ends[1:], weights)
    # Old versions on purpose: every onnxruntime of the last years reads them.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))


class ColourFeatures:
    """The feature space of such an ONNX file, with its network on the images' own device; without TF32."""

    knows_labels = True
    shape: tuple[int, ...] = (3, 32, 32)

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        found = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in onnx.load(str(path)).graph.initializer}
        count = len(found) // 2
        self.network = Classifier(len(found[f"b{count - 1}"]), normalised=False)
        for number, layer in enumerate(self.network.layers):
            layer.load_state_dict({"weight": found[f"w{number}"], "bias": found[f"b{number}"]})
        self.network.requires_grad_(False).eval()
        self.name = f"{path.stem}-{file_hash(path)}"

    def __call__(self, images: Tensor) -> Tensor:
        """(b, 128)."""
        return self.read(images)[0]

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 128) and (b, classes)."""
        cudnn, before = torch.backends.cudnn, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
                return self.network.to(images.device).read(images.float())
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
