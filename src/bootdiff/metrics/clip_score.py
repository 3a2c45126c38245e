"""CLIPScore: how well images fit their texts, judged by a CLIP model that the user chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bootdiff.core.device import in_float64
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.rows import as_rows
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.weights import check_complete, check_finite

#: a model's name on the Hugging Face hub, with or without its owner
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


#: the number of images that the model is shown at a time
PART = 64


class ClipScore:
    """CLIPScore: 100 · max(cos, 0), with the cosine between the embeddings of an image and of its text.

    The model is loaded when it is first asked, from safetensors only, and kept in float32.

    Args:
        name: a folder with a ``CLIPModel``, its tokenizer and its ``preprocessor_config.json``, which is read without
            the network; or the name of one on the Hugging Face hub, such as ``openai/clip-vit-large-patch14``.

    Raises:
        BootdiffError: if the name is neither a folder nor a possible name on the hub.

    Source: Hessel et al. (2021), "CLIPScore", whose factor is 2.5; 100 is usual with generated images.
    """

    def __init__(self, name: str | Path) -> None:
        self.name, self.local = str(name), Path(name).is_dir()
        if not self.local and not _HUB_NAME.fullmatch(self.name):
            raise BootdiffError(f"no folder at '{name}'; expected one with a CLIPModel, or a name on the hub.")

    @torch.no_grad()
    def __call__(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Return the images' scores, (b,) in [0, 100], in float64 on the CPU.

        Args:
            images: (b, c, h, w) in [−1, 1], with one channel or three, on the device that the model works on.
            texts: one text for each image; what exceeds the model's longest text is cut off.

        Raises:
            BootdiffError: if the model cannot be loaded, or the images and texts do not fit.
        """
        if len(images) != len(texts):
            raise BootdiffError(f"expected a text for each image, got {len(images)} images and {len(texts)} texts.")
        starts = range(0, len(texts), PART)
        return torch.cat([self._scores(images[i : i + PART], texts[i : i + PART]) for i in starts])

    def load(self) -> ClipScore:
        """Load the model now, so that a missing one is reported before anything else is done.

        Raises:
            BootdiffError: if the model cannot be loaded.
        """
        _ = self._model, self._tokenizer, self._scale
        return self

    def _scores(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        model, tokenizer = self._model.to(images.device), self._tokenizer
        longest = model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        out = model(
            input_ids=tokens.input_ids.to(images.device),
            attention_mask=tokens.attention_mask.to(images.device),
            pixel_values=self.prepare(images),
        )
        cosines = (in_float64(out.image_embeds) * in_float64(out.text_embeds)).sum(1)
        return 100 * cosines.clamp(0, 1).cpu()

    def prepare(self, images: Tensor) -> Tensor:
        """Return images as the model sees them, (b, 3, side, side): resized, cut to the middle, and normalised.

        The shorter edge is resized to ``side``.

        Raises:
            BootdiffError: if the images have neither one channel nor three, or hold values that are not finite.
        """
        as_rows(images.flatten(1), "images")
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise BootdiffError(f"expected images (b, 3 or 1, h, w), got {tuple(images.shape)}.")
        side, edge = self._model.config.vision_config.image_size, min(images.shape[2:])
        height, width = (size * side // edge for size in images.shape[2:])
        unit = (images.float() + 1) / 2
        # CLIP's own pictures have 8 bits, so an overshoot of the interpolation is cut off there too.
        large = interpolate(unit, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (height - side) // 2, (width - side) // 2
        cut = large[:, :, top : top + side, left : left + side].expand(-1, 3, -1, -1)
        mean, std = (unit.new_tensor(self._scale[name])[:, None, None] for name in ("image_mean", "image_std"))
        return (cut - mean) / std

    def estimate(self, scores: Tensor) -> Estimate:
        """Return the mean of the samples' scores (n,), with an interval of ± 1.96 standard errors.

        Raises:
            BootdiffError: if there are no scores.
        """
        model = Path(self.name).name if self.local else self.name
        return Estimate.of_samples(scores.tolist(), f"mean 100 · max(cos, 0) by {model}")

    @cached_property
    def _model(self) -> Any:
        """Return the CLIPModel, after checking that every weight came from the file and is finite."""
        from transformers import CLIPConfig, CLIPModel

        # A missing config.json is an empty one to transformers.
        config = self._read(lambda: CLIPConfig.get_config_dict(self.name, local_files_only=self.local)[0])
        if config.get("model_type") != "clip":
            found = f"model_type '{config['model_type']}'" if "model_type" in config else "no config.json of a model"
            raise BootdiffError(f"{self.name} has {found}; expected a CLIPModel, of model_type 'clip'.")
        options = {
            "use_safetensors": True,
            "output_loading_info": True,
            "local_files_only": self.local,
            "ignore_mismatched_sizes": True,  # looked at below
        }
        model, info = self._read(lambda: CLIPModel.from_pretrained(self.name, **options))
        check_complete(info, self.name)
        check_finite(model, self.name)
        return model.float().requires_grad_(False).eval()

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return self._read(lambda: CLIPTokenizer.from_pretrained(self.name, local_files_only=self.local))

    @cached_property
    def _scale(self) -> dict[str, Any]:
        """Return ``image_mean`` and ``image_std``, three values each, for pixels in [0, 1]."""
        from transformers.image_processing_base import ImageProcessingMixin

        def read() -> dict[str, Any]:
            words = ImageProcessingMixin.get_image_processor_dict(self.name, local_files_only=self.local)[0]
            return {name: [float(value) for value in words[name]] for name in ("image_mean", "image_std")}

        return self._read(read)

    def _read(self, read: Any) -> Any:
        """Call ``read``, and turn every error of transformers and the hub into one that says what was expected."""
        try:
            with quietly():
                return read()
        except Exception as error:
            let_pass(error)
            what = "cannot be read as a CLIPModel" if self.local else "is no folder, and the hub gives no CLIPModel"
            raise BootdiffError(
                f"{self.name} {what} ({first_line(error)}); expected config.json, model.safetensors, a tokenizer and "
                "preprocessor_config.json."
            ) from error
