"""Turning prompts into conditions by the stock pipeline's own text encoders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, first_line
from bootdiff.system.out_of_memory import let_pass
from bootdiff.system.quiet import quietly
from bootdiff.teachers.adapters.base import Adapter

#: held while prompts are encoded: a call tells a tokenizer how to cut and fill, which one thread may do at a time
_ASKING = threading.Lock()
#: the number of prompts whose length is looked at
COUNTED = 100_000


class PromptEncoder:
    """The text encoders of an adapter's pipeline, which are loaded when this is made.

    Args:
        adapter: the adapter of a teacher that takes prompts.
        device: the device on which the encoders run.

    Raises:
        BootdiffError: if one of them is missing or damaged.
    """

    def __init__(self, adapter: Adapter, device: torch.device | str = "cpu") -> None:
        adapter.parts.check(*adapter.encoders)
        left_out = (adapter.network_part, "vae", "safety_checker", "image_encoder", "watermarker")
        with quietly():
            left = {part: None for part in left_out if adapter.parts.kind(part) is not None}
            pipeline = adapter.parts.pipeline(**{**left, adapter.network_part: adapter.stand_in()})
        self.adapter, self.pipeline = adapter, pipeline
        for module in self.modules:
            module.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Condition:
        """Return the embeddings of a batch of prompts."""
        return self._ask(lambda: self.adapter.encode(self.pipeline, prompts))

    @torch.no_grad()
    def negative(self, prompt: str | None) -> Condition:
        """Return the condition that guidance leads away from, a batch of one; None stands for the empty prompt."""
        return self._ask(lambda: self.adapter.encode_negative(self.pipeline, prompt))

    def _ask(self, question: Callable[[], Condition]) -> Condition:
        try:
            with _ASKING, quietly():
                return question()
        except Exception as error:  # a damaged tokenizer or encoder may raise anything
            let_pass(error)
            raise BootdiffError(
                f"the encoders in {self.adapter.parts.folder} fail on a prompt ({first_line(error)}); check its "
                f"{', '.join(self.adapter.encoders)}."
            ) from error

    def release(self) -> None:
        """Move the encoders to the CPU; their memory is free once nobody else holds them."""
        for module in self.modules:
            module.to("cpu")

    @property
    def modules(self) -> list[nn.Module]:
        """The networks of the pipeline that encode prompts."""
        parts = self.pipeline.components.items()
        return [part for name, part in parts if isinstance(part, nn.Module) and name != self.adapter.network_part]

    def too_long(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Return (how many of the first ``COUNTED`` prompts are cut off, the most tokens that a tokenizer takes)."""
        count, window = 0, 0
        for part, window in self.adapter.windows:
            tokenizer = getattr(self.pipeline, part)
            with quietly():
                lengths = [len(ids) for ids in tokenizer(list(prompts[:COUNTED])).input_ids]
            count = max(count, sum(length > window for length in lengths))
        return count, window
