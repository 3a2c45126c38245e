"""The model card of an exported student."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.config.mixins import NOISE_LEVEL, STORED
from bootdiff.config.teacher import names_function
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.registry import find_method
from bootdiff.storage.passes import passes_in_words
from bootdiff.storage.runs import HARMLESS
from bootdiff.students.card import StudentCard
from bootdiff.teachers.adapters.base import Adapter

#: how a pipeline is called, by what it is conditioned on, unless its adapter says otherwise
USAGE = {
    "nothing": "pipe(num_inference_steps=1, generator=generator)",
    "classes": "pipe(class_labels={label}, num_inference_steps=1, generator=generator)",
    "prompts": 'pipe("a prompt", num_inference_steps=1, guidance_scale={weight}, generator=generator)',
}

#: why a student that can be called several times is exported with one call, by its kind
ONE_CALL_ONLY = {
    "denoising": "no stock scheduler takes several steps of this pipeline as the student learned them",
    "jump": "no stock scheduler tells a network two times",
    "consistency": "no stock scheduler has this student's boundary, noise levels and time embedding",
}

#: what a student learned from: noise, or what its teacher made of noise, or images of a data set
ORIGIN = {
    "noise": "from noise alone,\nwithout training data",
    "stored": "from samples that its teacher made of noise,\nwithout training data",
    "images": "with images of a data set:\nits training was not free of data",
}
#: the same where no teacher was asked
UNTAUGHT = {
    True: "from noise alone,\nwithout training data and without a pass of its teacher",
    False: "with images of a data set and\nwithout a pass of its teacher; its training was not free of data",
}
#: what a student knows, by whether its first weights were drawn and its training asked no teacher
KNOWS = {
    False: "The student knows what its teacher knows, and inherits its licence, its data and its biases.",
    True: "Of its teacher it has architecture and schedule only. It knows what it was trained on, and inherits the "
    "licence and\nthe biases of that.",
}

_TEMPLATE = """---
library_name: diffusers
pipeline_tag: {tag}
tags: [diffusion, distillation, {tag_of_calls}, boot]
---

# A {tag_of_calls} student of {teacher}

{calls} Distilled with bootdiff {origin}; method: {method}.

```python
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("this-folder"{absent})
generator = torch.Generator().manual_seed(0)
{prepare}image = {usage}.images[0]
```

{steps}

## Facts

| | |
|---|---|
{facts}

## Figures

{figures}

## Limits

{knows}
"""


_REFUSED = """# A student of {teacher}

Distilled with bootdiff {origin}; method: {method}.

There is no folder for stock diffusers: {reason}

```sh
bootdiff sample this-folder --output grid.png
```
"""


def model_card(
    card: StudentCard, adapter: Adapter, words: Mapping[str, Any], unfolded: StudentCard | None = None
) -> str:
    """Return the text of an exported student's README.

    Args:
        unfolded: the card of the run's own student, which may be called otherwise than the exported one; None if that
            is not known.
        words: what the student's run says: ``method``, ``settings``, ``student_step``, the ``passes`` of its training,
            and its evaluation as ``figures``.
    """
    private = ("prompts", "base", "lpips_weights", "images", "student")  # names of somebody's files
    left_out = (*private, *HARMLESS, "t_min", "t_max")
    settings = {k: v for k, v in words.get("settings", {}).items() if v is not None and k not in left_out}
    files = ("lora", "pipeline_config")
    asked = {key: _public(value) if key in files else value for key, value in card.teacher_options.items()}
    said = card.as_json
    own: dict[str, Any] = {
        key: said[key] for key in ("architecture", "t_min", "t_max", "guidance", "folded_weight") if key in said
    }
    if card.calls > 1 or card.any_calls:
        own["calls"] = f"{card.calls} or more" if card.any_calls else card.calls
    kept = {key: words[key] for key in ("student_step",) if key in words}
    kept.update({"teacher_free": True} if card.teacher_free else {})
    if words.get("passes"):
        kept["passes of its training"] = passes_in_words(words["passes"])
    rows = {"teacher": _public(card.teacher), **asked, **own, **settings, **kept}
    return _TEMPLATE.format(
        teacher=escaped(_public(card.teacher)),
        tag_of_calls="few-step" if card.any_calls or card.calls > 1 else "one-step",
        calls=_calls(card),
        tag="text-to-image" if adapter.takes == "prompts" else "unconditional-image-generation",
        origin=_origin(card, words),
        knows=KNOWS[card.teacher_free and settings.get("start_from") == "scratch"],
        method=escaped(words.get("method", "boot")),
        absent="".join(f", {part}=None" for part in adapter.absent),
        prepare=adapter.prepare,
        usage=_usage(card, adapter),
        steps=" ".join(_steps(card, adapter, unfolded)),
        facts="\n".join(f"| {escaped(key)} | {escaped(_short(value))} |" for key, value in rows.items()),
        figures=_figures(words.get("figures")),
    )


def refused_card(card: StudentCard, reason: str, words: Mapping[str, Any]) -> str:
    """Return the text of the README of a student without an export.

    Args:
        reason: why there is none, as one line.
        words: as for ``model_card``.
    """
    return _REFUSED.format(
        teacher=escaped(_public(card.teacher)),
        origin=_origin(card, words),
        method=escaped(words.get("method", "boot")),
        reason=escaped(reason),
    )


def _calls(card: StudentCard) -> str:
    """Return a sentence on the calls of the exported student."""
    usual = "one network call" if card.calls == 1 else f"{card.calls} network calls"
    return f"Makes an image in {usual}{', or in another number of them' if card.any_calls else ''}."


def _origin(card: StudentCard, words: Mapping[str, Any]) -> str:
    """Return what a student learned from, as part of a sentence."""
    if card.teacher_free:
        return UNTAUGHT[card.data_free]
    if not card.data_free:
        return ORIGIN["images"]
    settings, method = words.get("settings", {}), str(words.get("method", "boot"))
    # A data-free run of a method that does not learn from noise alone has stored samples, in any of its stages.
    stored = settings.get("pairs") is not None or any(_stores(part) for part in method.split("+"))
    return ORIGIN["stored" if stored else "noise"]


def _stores(method: str) -> bool:
    """Return whether a method learns from stored samples of its teacher, where it is asked for nothing else."""
    try:
        return find_method(method).sources[0] in STORED
    except BootdiffError:  # another package's, which is not installed here
        return False


def _public(name: Any) -> Any:
    """Return a name that may be published: a builtin or hub id as it is, and only the last part of a user's path."""
    hub = isinstance(name, str) and name.count("/") == 1 and name[0] not in "./~" and not Path(name).exists()
    return name if (hub and not names_function(name)) or not isinstance(name, str) else Path(name).name


def escaped(value: Any) -> str:
    """Return a value as one line of text in which Markdown and HTML see no markup."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    # An underscore within a word is a letter; what looks like an address would become a link without any brackets.
    marks = re.sub(r"([\\`*\[\]|~$@]|(?<!\w)_|_(?!\w)|:(?=//))", r"\\\1", line)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", marks)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _usage(card: StudentCard, adapter: Adapter) -> str:
    learned, weight = card.weight, 1.0
    # A fixed weight is in the network: of a second pass more would come on top.
    if adapter.weight_slot and learned.middle is not None and (adapter.guidance != "free" or learned.is_range):
        weight = learned.middle
    known = card.conditions
    level = NOISE_LEVEL if known.noise_level is None else known.noise_level
    usage = adapter.usage or USAGE[adapter.takes]
    usage = usage.replace("num_inference_steps=1", f"num_inference_steps={card.calls}")
    return usage.format(weight=f"{weight:g}", noise_level=level, label=(known.labels or [0])[0])


def _steps(card: StudentCard, adapter: Adapter, unfolded: StudentCard | None) -> list[str]:
    """Return sentences on what a caller must know of steps and guidance."""
    if card.any_calls:
        most = "" if card.most_calls is None else f" up to {card.most_calls}"
        lines = [f"Any num_inference_steps{most} may be asked for; each is a network call."]
    elif card.calls > 1:
        lines = [
            f"It was made for num_inference_steps={card.calls}; each is a network call. "
            "The pipeline takes other numbers without a word and makes worse images, so always name this one."
        ]
    elif adapter.flow:
        lines = ["One step is all: more cost time and change nothing."]
    else:
        lines = ["More than one step is refused: the student answers for one noise level only."]
    if unfolded is not None and card.kind in ONE_CALL_ONLY and not card.any_calls:
        reason = ONE_CALL_ONLY[card.kind]
        if unfolded.any_calls:
            lines.append(f"Its run makes images in several calls, too (bootdiff sample RUN --calls K); {reason}.")
        elif unfolded.calls != card.calls:
            lines.append(
                f"The student was made for {unfolded.calls} calls, and in them its run makes better images "
                f"(bootdiff sample RUN); {reason}."
            )
    lines += [adapter.remark] if adapter.remark else []
    learned, folded = card.weight, card.folded_weight
    if folded is not None:
        here = f"{folded:g} is folded in"
        lines.append(f"It learned guidance weights from {learned.low:g} to {learned.high:g}; here {here}.")
    elif learned.is_range:
        lines.append(f"Any guidance_scale from {learned.low:g} to {learned.high:g} may be asked for, at no cost.")
    elif learned.fixed is not None:
        lines.append(f"Guidance of weight {learned.fixed:g} is folded in.")
    served = learned.is_range and adapter.weight_slot
    if card.kind == "consistency" and card.any_calls and adapter.takes == "prompts" and not served:
        lines.append("guidance_scale changes nothing.")
    elif learned.plain is not None and adapter.takes == "prompts" and not served:
        lines.append("Leave guidance_scale as above: more would come on top.")
    return lines


def _figures(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "Not evaluated yet; run `bootdiff evaluate` on the run's folder."
    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    asked = ["faithfulness"] if any(row.get("faithfulness") is not None for row in rows) else []
    names = ["sampler", "calls", "Fréchet distance", *asked, "path error"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        figures = [row.get(key) for key in ("frechet_distance", *asked, "path_error")]
        cells = " | ".join("–" if value is None else f"{value:.4g}" for value in figures)
        lines.append(f"| {escaped(row['name'])} | {escaped(row['calls'])} | {cells} |")
    lines.append("")
    lines.append(
        f"{evaluation['num']} samples, {evaluation['repeats']} noise seed(s), features "
        f"{escaped(evaluation['features'])}."
    )
    return "\n".join(lines)
