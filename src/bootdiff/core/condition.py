"""What a sample is conditioned on, as one small value that only the teacher's adapter looks into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bootdiff.core.transfer import to_device


class Condition(Mapping[str, Tensor]):
    """A frozen mapping of batch-first tensors: labels, prompt embeddings, low-resolution images, guidance weights.

    Objectives pass it on without reading it. ``Condition()`` means "unconditional" and fits any batch size. Every entry
    has shape (batch, ...), with the same batch.

    Raises:
        ValueError: if the entries do not share their first dimension.
    """

    def __init__(self, entries: Mapping[str, Tensor] | None = None) -> None:
        self._entries = dict(entries or {})
        sizes = {name: value.shape[0] for name, value in self._entries.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"a condition's entries must share their batch size, got {sizes}")

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, **entries: Tensor) -> Condition:
        """Return a condition with further entries; one of an existing name takes the old one's place."""
        return Condition({**self._entries, **entries})

    def index(self, where: Tensor | slice) -> Condition:
        """Return the condition of those samples of the batch that ``where`` selects."""
        return Condition({name: value[where] for name, value in self.items()})

    def repeat(self, times: int) -> Condition:
        """Return the whole batch ``times`` times over, as ``cat([self] * times)`` would."""
        return Condition({name: torch.cat([value] * times) for name, value in self.items()})

    def to(self, device: torch.device | str) -> Condition:
        """Return the condition with every entry on ``device``, without waiting for a GPU."""
        return Condition({name: to_device(value, device) for name, value in self.items()})

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Return one condition of all batches in a row; they must have the same entries."""
        first = conditions[0]
        return Condition({name: torch.cat([c[name] for c in conditions]) for name in first})
