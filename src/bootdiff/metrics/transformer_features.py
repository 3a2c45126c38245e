"""Feature spaces of vision transformers: DINOv2's class token and CLIP's image embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.metrics.features import as_saved, in_parts
from bootdiff.storage.files import read_json
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.safety import check_files
from bootdiff.teachers.loading.stored import stored
from bootdiff.teachers.loading.weights import aligned, check_complete, check_finite, tensors_hash

#: the ways to resize, by Pillow's numbers for them
MODES = {2: "bilinear", 3: "bicubic"}
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
#: what these models hold beside what looks at images: CLIP's other half, and a classifier's last layer
OTHERS = ("text_model.", "text_projection.", "logit_scale", "classifier.")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a network sees it, in the order of the arguments.

    Args:
        size: (height, width) to resize to, or the length that the shorter side gets; None does not resize.
        crop: (height, width) of the middle that is cut out; None cuts nothing.
        mean, std: the mean and standard deviation of the three channels, for pixels in [0, 1].
        mode: the way to resize, ``bilinear`` or ``bicubic``, always with antialiasing.
    """

    size: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (b, 3, h, w) in [−1, 1] as the network takes them, (b, 3, h', w')."""
        levels = (images + 1) * 127.5
        size = self._target(*images.shape[2:])
        # Pillow, whose images the networks know, resizes rows, then columns, and rounds each time.
        for step in ((images.shape[2], size[1]), size):
            if step != tuple(levels.shape[2:]):
                levels = interpolate(levels, size=step, mode=self.mode, antialias=True).round().clamp(0, 255)
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(size, self.crop, strict=True))
            levels = levels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (levels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (levels / 255 - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, int):
            short = min(height, width)
            return self.size * height // short, self.size * width // short
        return self.size or (height, width)


IMAGENET = Preprocessing(256, (224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = Preprocessing(224, (224, 224), (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class TransformerFeatures:
    """The feature space of a vision transformer, for images of any size, grey or in colour.

    Args:
        title: the readable part of the space's name.
        field: the field of the network's output that holds the features, (b, d).
    """

    shape = None
    knows_labels = False

    def __init__(self, title: str, network: nn.Module, field: str, preprocessing: Preprocessing) -> None:
        self.network, self.field, self.preprocessing = network, field, preprocessing
        content = tensors_hash(dict(network.named_parameters())) + repr(astuple(preprocessing))
        self.name = f"{title}-{blake2b(content.encode(), digest_size=4).hexdigest()}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images (b, 1 or 3, h, w), (b, d)."""
        network = self.network.to(images.device)
        return in_parts(
            lambda part: (getattr(network(self.preprocessing(as_saved(part, self.name))), self.field),), images
        )[0]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, d) and None, because the network gives no logits."""
        return self(images), None


def dinov2(name: str) -> TransformerFeatures:
    """Return the feature space of DINOv2's class token after the last normalisation (Oquab et al., 2023).

    Args:
        name: a folder or hub id of a ``Dinov2Model``, with or without registers.

    Raises:
        BootdiffError: if the model cannot be found or read, or is of another kind.
    """
    import transformers

    folder = _folder(name, "dinov2", "facebook/dinov2-base")
    kinds = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
    kind = getattr(transformers, kinds[_model_type(folder, kinds)])
    network = _network(kind, folder, kind.config_class)
    return TransformerFeatures("dinov2", network, "pooler_output", read_preprocessing(folder, IMAGENET))


def clip(name: str) -> TransformerFeatures:
    """Return the feature space of CLIP's image embedding after the projection, not normalised (Radford et al., 2021).

    Args:
        name: a folder or hub id of a ``CLIPModel`` or of its vision part.

    Raises:
        BootdiffError: if the model cannot be found or read, or is of another kind.
    """
    from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = _folder(name, "clip", "openai/clip-vit-base-patch16")
    whole = _model_type(folder, ("clip", "clip_vision_model")) == "clip"
    network = _network(CLIPVisionModelWithProjection, folder, CLIPConfig if whole else CLIPVisionConfig)
    side = int(network.config.image_size)
    return TransformerFeatures(
        "clip", network, "image_embeds", read_preprocessing(folder, replace(OPENAI, size=side, crop=(side, side)))
    )


def _folder(name: str, kind: str, example: str) -> Path:
    """Return a local folder, or the folder to which the hub's model of that name is downloaded."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BootdiffError(f"no folder at '{name}'; expected {kind}: with a folder or a hub id such as {example}.")
    from huggingface_hub import snapshot_download

    try:
        with quietly():
            return Path(snapshot_download(name, allow_patterns=["config.json", *PROCESSORS, *WEIGHTS]))
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        let_pass(error)
        raise BootdiffError(
            f"'{name}' is no folder here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local folder."
        ) from error


def _model_type(folder: Path, known: Mapping[str, str] | tuple[str, ...]) -> str:
    found = read_json(folder / "config.json").get("model_type")
    if found not in known:
        raise BootdiffError(f"{folder} holds a model of type {found!r:.40}; expected {' or '.join(known)}.")
    return str(found)


def _network(kind: Any, folder: Path, config_class: Any) -> Any:
    """Return a transformer from a folder, frozen and in float32, after checking that it is complete and finite."""
    check_files(folder)
    stored(folder, None, kind.__name__)
    try:
        with quietly():
            config = config_class.from_pretrained(folder, local_files_only=True)
            if hasattr(config, "vision_config"):  # the width of the projection stands beside it
                width, config = config.projection_dim, config.vision_config
                config.projection_dim = width
            network, info = kind.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # looked at below: the error would not name them
            )
    except Exception as error:  # transformers raises many kinds; each means that the files do not fit
        let_pass(error)
        raise BootdiffError(
            f"the {kind.__name__} in {folder} cannot be read ({first_line(error)}); fetch it again."
        ) from error
    unknown = [name for name in info["unexpected_keys"] if not name.startswith(OTHERS)]
    check_complete({**info, "unexpected_keys": unknown}, folder)
    check_finite(network, folder)
    return aligned(network.float().requires_grad_(False).eval())


def read_preprocessing(folder: Path, default: Preprocessing) -> Preprocessing:
    """Return the model's own preprocessing, from its ``preprocessor_config.json``.

    What the file leaves out is as in ``default``.

    Raises:
        BootdiffError: if the file asks for something that cannot be done.
    """
    files = [folder / name for name in PROCESSORS if (folder / name).is_file()]
    if not files:
        return default
    words = read_json(files[0])
    words = words.get("image_processor", words)
    try:
        return _from_words(words, default)
    except (KeyError, TypeError, ValueError) as error:
        raise BootdiffError(f"{files[0]} is no preprocessing of images ({first_line(error)}).") from error


def _from_words(words: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    size = _side(words["size"]) if "size" in words else default.size
    crop = _side(words["crop_size"]) if "crop_size" in words else default.crop
    size = size if words.get("do_resize", True) else None
    crop = (crop, crop) if isinstance(crop, int) else crop
    crop = crop if words.get("do_center_crop", default.crop is not None) else None
    mean, std = words.get("image_mean", default.mean), words.get("image_std", default.std)
    if not words.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    mode = MODES[words.get("resample", 3)]
    made = Preprocessing(size, crop, tuple(map(float, mean)), tuple(map(float, std)), mode)
    least = (size, size) if isinstance(size, int) else size
    if len(made.mean) != 3 or len(made.std) != 3 or min(made.std) <= 0:
        raise ValueError("three means and three deviations are needed")
    if crop is not None and (least is None or crop[0] > least[0] or crop[1] > least[1]):
        raise ValueError(f"cannot cut {crop} from images of {least}")
    return made


def _side(words: Any) -> int | tuple[int, int]:
    """Return the size that a preprocessor's entry stands for: a length, or (height, width).

    The entry is ``224``, ``{"shortest_edge": 224}`` or ``{"height": 224, "width": 224}``.
    """
    if isinstance(words, Mapping) and "shortest_edge" in words:
        return int(words["shortest_edge"])
    return (int(words["height"]), int(words["width"])) if isinstance(words, Mapping) else int(words)
