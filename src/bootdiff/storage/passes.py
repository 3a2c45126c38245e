"""What the training of a finished run cost in network passes, as its files say.

A pass is one sample through a network of the teacher's size; backward counts two, and other networks count by their
multiply-adds (``core/passes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.storage.reading import check_kinds
from bootdiff.storage.runs import DONE, STAGE, Run, read_done

#: the entry of a run of several stages that tells them apart
STAGES = "stages"


def trained_passes(folder: Path) -> dict[str, Any] | None:
    """Return the passes of a finished run by network, and in all as ``"all"``; None if they were not counted.

    Of a run of two stages they are the sums, and ``"stages"`` has those of each stage.
    """
    own = passes_of_stage(folder)
    if own is None:
        return None
    return own if not (folder / STAGE / DONE).exists() else with_first_stage(folder, own)


def with_first_stage(folder: Path, own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a stage's passes added to those of the stage before it, if there is one; None if any is not known.

    Args:
        folder: the run's folder.
        own: the passes of its last stage.
    """
    if own is None or not (folder / STAGE / DONE).exists():
        return None if own is None else dict(own)
    first = passes_of_stage(folder / STAGE)
    if first is None:
        return None
    both = {name: first.get(name, 0) + own.get(name, 0) for name in {**first, **own}}
    total = both.pop("all")
    last = str(Run(folder).config["method"]).removeprefix(f"{STAGE}+")
    return {**both, "all": total, STAGES: {STAGE: first, last: dict(own)}}


def passes_of_stage(folder: Path) -> dict[str, Any] | None:
    """Return the passes of one finished stage by network; None if it is not finished, or they were not counted.

    Raises:
        BootdiffError: if the file is damaged.
    """
    if not (folder / DONE).exists():
        return None
    passes: dict[str, Any] | None = read_done(folder).get("passes")
    if passes is not None:
        cure = f"remove {DONE} and repeat the run's command"
        check_kinds(passes, folder / DONE, cure, **dict.fromkeys(["all", *passes], float | int))
    return passes


def passes_in_words(passes: Mapping[str, Any]) -> str:
    """Return passes as words: the sum, then each network's share and each stage's."""
    parts = [f"{name} {value:,.0f}" for name, value in passes.items() if name not in ("all", STAGES)]
    stages = [f"{name} {stage['all']:,.0f}" for name, stage in passes.get(STAGES, {}).items()]
    return f"{passes['all']:,.0f} ({'; '.join([', '.join(parts), *([', then '.join(stages)] if stages else [])])})"
