"""Charts of a training log."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image


def loss_chart(log: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Losses over steps, and the residual by time bin at the start, the middle and the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [line["step"] for line in log]
    for name in ("bootstrap", "boundary", "loss"):
        points = [(step, line[name]) for step, line in zip(steps, log, strict=True) if line.get(name)]
        if points:
            left.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend(frameon=False)
    for line in (log[0], log[len(log) // 2], log[-1]):
        bins = line.get("residual_by_time") or []
        points = [((i + 0.5) / len(bins), value) for i, value in enumerate(bins) if value is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"step {line['step']}")
    right.set(xlabel="t", ylabel="residual ‖r‖ (rms per pixel)")
    if right.lines:
        right.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return Image.open(buffer)
