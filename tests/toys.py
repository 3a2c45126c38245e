"""What several test files need: runs compared, and the command line in processes of its own."""

from __future__ import annotations

import sys

import torch

#: the methods, and some of the pairs of methods that are trained in one run
TRIED = ["boot", "direct", "dm", "sid", "freeflow", "boot+dm", "boot+sid", "boot+freeflow", "direct+dm"]
TRIED += ["progressive", "consistency", "tract", "reflow", "dfno", "progressive+dm"]
#: the command line, which says a line whenever a checkpoint is there
TELLING = """
from bootdiff.cli.main import run
from bootdiff.training import saved_state

write = saved_state.save_checkpoint

def save(folder, step, *rest):
    write(folder, step, *rest)
    print("checkpoint", step, flush=True)

saved_state.save_checkpoint = save
run()
"""


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b) and a.keys() == b.keys()


def close(a: dict, b: dict, start: dict, share: float = 1e-3) -> None:
    """Equal to a thousandth of the way that training went.

    Element by element is too much to ask: Adam steps by the full rate where a gradient is nothing but rounding, as it
    is for a bias before a normalisation.
    """
    apart = sum(float((a[name] - b[name]).square().sum()) for name in start)
    moved = sum(float((b[name] - start[name]).square().sum()) for name in start)
    assert moved > 0 and apart < share**2 * moved, (apart / moved) ** 0.5


def command(*words: object, processes: int = 1) -> list[str]:
    """``bootdiff WORDS`` as a command of its own; several processes by torchrun, on a port that is free."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), "-m", "bootdiff", *map(str, words)]
