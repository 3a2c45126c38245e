"""The model card of an exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TEMPLATE = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [diffusion, distillation, one-step, boot]
---

# A one-step student of `{teacher}`

Makes an image in one network call. Distilled with [bootdiff](https://pypi.org/project/bootdiff/) from noise alone,
without training data; method: {method}.

```python
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("this-folder")
image = pipe(num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images[0]
```

More than one step is refused: the student answers for one noise level only.

## Facts

| | |
|---|---|
{facts}

## Figures

{figures}

## Limits

The student can be no better than its teacher, whose licence, data and biases it inherits.
"""


def model_card(words: Mapping[str, Any]) -> str:
    """A README for the hub from the run's facts; ``figures`` are an evaluation's rows, if there is one."""
    rows = {"teacher": words["teacher"], "t_min": words["t_min"], "t_max": words["t_max"], **words.get("settings", {})}
    facts = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return _TEMPLATE.format(
        teacher=words["teacher"],
        method=words.get("method", "boot"),
        facts=facts,
        figures=_figures(words.get("figures")),
    )


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
