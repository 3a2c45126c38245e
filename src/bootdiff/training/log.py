"""The training log: JSON lines in the run's folder, of which a tracker gets the same numbers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bootdiff.methods.base import Loss
from bootdiff.storage.files import append_line as append_line
from bootdiff.storage.files import write_text
from bootdiff.storage.reading import parse_json

if TYPE_CHECKING:
    from accelerate import Accelerator

TIME_BINS = 8


class Meter:
    """Collects the values that losses report, on the device, until ``read`` returns their means."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._clear()

    def add(self, losses: Sequence[Loss], share: float) -> None:
        """Add the terms of a turn's loss, which count as ``share`` of a step.

        A sample's value of nan means that it is unknown.
        """
        for loss in losses:
            self.totals.append(loss.total.detach() * share)
            for name, value in loss.scalars.items():
                self.scalars[name].append(value)
            for name, entry in loss.by_time.items():
                self.by_time[name].append(entry)
        self.turns += share

    def read(self) -> dict[str, Any]:
        """Return the means since the last call, over all processes, by name; a time bin without a sample is None."""
        # Of a window in which no turn ran, as where a step only makes pairs, there is nothing to say.
        loss = torch.stack(self.totals).sum() / self.turns if self.totals else self._zeros() + math.nan
        mean = self._mean(loss)
        means: dict[str, Any] = {"loss": mean if math.isfinite(mean) else None}
        for name in self._names(self.scalars):
            values = self.scalars.get(name, [])
            counted = [sum(values, self._zeros()), self._zeros() + len(values)]
            total, count = self.accelerator.reduce(torch.stack(counted), "sum").cpu()
            means[name] = (total / count).item()
        by_time = {}
        for name in self._names(self.by_time):
            tables = [time_table(t, values) for t, values in self.by_time.get(name, [])]
            total, count = self.accelerator.reduce(sum(tables, self._zeros(2, TIME_BINS)), "sum").cpu()
            by_time[f"{name}_by_time"] = [(a / b).item() if b > 0 else None for a, b in zip(total, count, strict=True)]
        self._clear()
        return {**means, **by_time}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what every process has added since the last line of the log.

        With it the next line of a resumed run is the same as without an interruption.
        """
        from accelerate.utils import gather_object

        own: dict[str, Tensor] = {}
        if self.totals:
            own = {"turns": torch.tensor(self.turns, dtype=torch.float64), "totals": torch.stack(self.totals)}
        own |= {f"scalar {name}": torch.stack(list(values)) for name, values in self.scalars.items()}
        for name, entries in self.by_time.items():
            own[f"sizes {name}"] = torch.tensor([len(t) for t, _ in entries])
            own[f"times {name}"] = torch.cat([t for t, _ in entries])
            own[f"values {name}"] = torch.cat([values for _, values in entries])
        states = gather_object([{name: value.detach().cpu() for name, value in own.items()}])
        return {f"{process} {name}": value for process, state in enumerate(states) for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        With another number of processes it is dropped, and the next line covers fewer steps.
        """
        self._clear()
        processes, device = {name.split()[0] for name in state}, self.accelerator.device
        if len(processes) != self.accelerator.num_processes:
            return
        start = f"{self.accelerator.process_index} "
        own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        if odd := [name for name, value in own.items() if value.ndim != (name != "turns")]:
            raise ValueError(f"meter: '{odd[0]}' has {own[odd[0]].ndim} dimensions")
        self.turns = own.pop("turns").item()
        self.totals.extend(own.pop("totals").to(device).unbind())
        for key, value in own.items():
            kind, name = key.split(" ", 1)
            if kind == "scalar":
                self.scalars[name] = list(value.to(device).unbind())
            elif kind == "sizes":
                parts = (own[f"{part} {name}"].to(device).split(value.tolist()) for part in ("times", "values"))
                self.by_time[name] = list(zip(*parts, strict=True))

    def _names(self, known: Mapping[str, Any]) -> list[str]:
        """Return the sorted names that any process knows.

        A process's own slice may be too small for one of the terms.
        """
        from accelerate.utils import gather_object

        return sorted(set(gather_object(list(known))))

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.accelerator.device)

    def _mean(self, value: Tensor) -> float:
        return float(self.accelerator.reduce(value, "mean"))

    def _clear(self) -> None:
        self.turns = 0.0
        self.totals: list[Tensor] = []
        self.scalars: dict[str, list[Tensor]] = defaultdict(list)
        self.by_time: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)


def time_table(t: Tensor, values: Tensor) -> Tensor:
    """Return the sums and the counts of the known values in each time bin, (2, bins)."""
    known = ~values.isnan()
    bins = (t * TIME_BINS).long().clamp(0, TIME_BINS - 1)
    both = torch.stack([values.nan_to_num(), known.float()])
    return torch.zeros(2, TIME_BINS, device=t.device).index_add_(1, bins, both)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, leaving out what is no such line, such as a last one that a crash cut off."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        try:
            values = parse_json(line, nan=True)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            lines.append(values)
    return lines


def truncate_log(path: Path, step: int) -> None:
    """Remove the lines after ``step``, which a resumed run writes again."""
    if path.exists():
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
