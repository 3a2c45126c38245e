"""What the training of a finished run cost in network passes, as its files say.

A pass is one sample through a network of the teacher's size; backward counts two, and other networks count by their
multiply-adds (``core/passes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.storage.reading import check_kinds
from bootdiff.storage.runs import DONE, Run, read_done

#: the entry of a run of several stages that tells them apart
STAGES = "stages"


def trained_passes(folder: Path) -> dict[str, Any] | None:
    """Return the passes of a finished run by network, and in all as ``"all"``; None if they were not counted.

    Of a run of several stages they are the sums, and ``"stages"`` has those of each stage.
    """
    return with_earlier(folder, passes_of_stage(folder))


def with_earlier(folder: Path, own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a stage's passes added to those of its run's earlier stages; None if any is not known.

    Args:
        folder: the run's folder.
        own: the passes of its last stage.
    """
    run = Run(folder)
    earlier = {stage.folder.relative_to(folder).as_posix(): passes_of_stage(stage.folder) for stage in run.earlier}
    if own is None or not earlier:
        return None if own is None else dict(own)
    last = str(run.config["method"]).split("+")[-1]
    known = {**earlier, last if last not in earlier else "last": own}
    found = {name: passes for name, passes in known.items() if passes is not None}
    if len(found) < len(known):
        return None
    names = dict.fromkeys(name for passes in found.values() for name in passes if name != "all")
    sums = {name: sum(passes.get(name, 0) for passes in found.values()) for name in (*names, "all")}
    return {**sums, STAGES: {name: dict(passes) for name, passes in found.items()}}


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
