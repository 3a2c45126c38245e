"""The model card of an exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.teachers.adapters.base import Adapter

_TEMPLATE = """---
library_name: diffusers
pipeline_tag: {tag}
tags: [diffusion, distillation, one-step, boot]
---

# A one-step student of `{teacher}`

Makes an image in one network call. Distilled with [bootdiff](https://pypi.org/project/bootdiff/) from noise alone,
without training data; method: {method}.

```python
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("this-folder"{absent})
generator = torch.Generator().manual_seed(0)
image = {usage}.images[0]
```

{steps}

## Facts

| | |
|---|---|
{facts}

## Figures

{figures}

## Limits

The student can be no better than its teacher, whose licence, data and biases it inherits.
"""


def model_card(words: Mapping[str, Any], adapter: Adapter) -> str:
    """A README for the hub from the run's facts; ``figures`` are an evaluation's rows, if there is one."""
    private = ("prompts", "base", "lpips_weights")  # names of somebody's files
    settings = {k: v for k, v in words.get("settings", {}).items() if v is not None and k not in private}
    own = ("teacher", "t_min", "t_max", "guidance", "folded_weight")
    rows = {**{key: words[key] for key in own if key in words}, **settings}
    return _TEMPLATE.format(
        teacher=words["teacher"],
        tag="text-to-image" if adapter.takes == "prompts" else "unconditional-image-generation",
        method=words.get("method", "boot"),
        absent="".join(f", {part}=None" for part in adapter.absent),
        usage=_usage(words, adapter),
        steps=" ".join(_steps(words, adapter)),
        facts="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        figures=_figures(words.get("figures")),
    )


def _usage(words: Mapping[str, Any], adapter: Adapter) -> str:
    learned = words.get("guidance")
    weight = 1.0
    if adapter.weight_slot and learned is not None:
        weight = sum(learned) / 2 if isinstance(learned, list) else learned
    if adapter.weight_slot and adapter.guidance == "free" and not isinstance(learned, list):
        weight = 1.0  # a fixed weight is in the network: more of it would come on top
    level = words.get("conditions", {}).get("noise_level", 250)
    return adapter.usage.format(weight=f"{weight:g}", noise_level=level)


def _steps(words: Mapping[str, Any], adapter: Adapter) -> list[str]:
    """What a caller must know of steps and guidance."""
    if adapter.flow:
        lines = ["One step is all: more cost time and change nothing."]
    else:
        lines = ["More than one step is refused: the student answers for one noise level only."]
    learned: Any = words.get("guidance")
    if "folded_weight" in words:
        here = f"{words['folded_weight']:g} is folded in"
        lines.append(f"It learned guidance weights from {learned[0]:g} to {learned[1]:g}; here {here}.")
    elif isinstance(learned, list):
        lines.append(f"Any guidance_scale from {learned[0]:g} to {learned[1]:g} may be asked for, at no cost.")
    elif learned is not None:
        lines.append(f"Guidance of weight {learned:g} is folded in.")
    if learned is not None and adapter.takes == "prompts" and not (isinstance(learned, list) and adapter.weight_slot):
        lines.append("Leave guidance_scale as above: more would come on top.")
    return lines


def _figures(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "Not evaluated yet; run `bootdiff evaluate` on the run's folder."
    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    lines = ["| sampler | calls | Fréchet distance | path error |", "|---|---|---|---|"]
    for row in rows:
        figures = [row.get("frechet_distance"), row.get("path_error")]
        cells = " | ".join("–" if value is None else f"{value:.4g}" for value in figures)
        lines.append(f"| {row['name']} | {row['calls']} | {cells} |")
    lines.append("")
    lines.append(
        f"{evaluation['num']} samples, {evaluation['repeats']} noise seed(s), features `{evaluation['features']}`."
    )
    return "\n".join(lines)
