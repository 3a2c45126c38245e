"""The training log: JSON lines in the run folder, and the same numbers to a tracker."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bootdiff.files import write_text
from bootdiff.objectives.base import Loss

if TYPE_CHECKING:
    from accelerate import Accelerator

TIME_BINS = 8


class Meter:
    """Means of what the losses report, on the device, until ``read`` hands them out."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._clear()

    def add(self, loss: Loss, share: float) -> None:
        """Count a turn's loss; ``share`` of a step's accumulation."""
        for name, value in {"loss": loss.total.detach(), **loss.scalars}.items():
            self.sums[name] = self.sums[name] + value * share
            self.counts[name] += share
        for name, (t, values) in loss.by_time.items():
            bins = (t * TIME_BINS).long().clamp(0, TIME_BINS - 1)
            table = torch.zeros(2, TIME_BINS, device=t.device)
            table[0].index_add_(0, bins, values.float())
            table[1].index_add_(0, bins, torch.ones_like(values, dtype=torch.float32))
            self.tables[name] = self.tables[name] + table

    def read(self) -> dict[str, Any]:
        """Means since the last call, over all processes; time bins without a sample are null."""
        means = {
            name: float(self.accelerator.reduce(torch.as_tensor(total), "mean")) / self.counts[name]
            for name, total in self.sums.items()
        }
        by_time = {}
        for name, table in self.tables.items():
            total, count = self.accelerator.reduce(table, "sum").cpu()
            by_time[f"{name}_by_time"] = [(a / b).item() if b > 0 else None for a, b in zip(total, count, strict=True)]
        self._clear()
        return {**means, **by_time}

    def _clear(self) -> None:
        self.sums: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.tables: dict[str, Tensor | float] = defaultdict(float)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def truncate_log(path: Path, step: int) -> None:
    """Drop what was logged after ``step``: a resumed run logs it again."""
    if path.exists():
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
