"""Which methods there are: one line each. The modules are imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bootdiff.errors import choose

#: method name to ``module:objective class:settings class``
METHODS = {
    "boot": "bootdiff.objectives.boot:Boot:BootSettings",
    "dm": "bootdiff.objectives.distribution_matching:DistributionMatching:CorrectionSettings",
    "sid": "bootdiff.objectives.sid:Sid:SidSettings",
    "freeflow": "bootdiff.objectives.freeflow:FreeFlow:FreeFlowSettings",
}


def load_method(name: str) -> tuple[Any, Any]:
    """(objective class with ``from_settings(teacher, settings)``, settings class).

    Raises:
        BootdiffError: for an unknown method, naming the nearest.
    """
    module, objective, settings = METHODS[choose(name, METHODS, "method")].split(":")
    loaded = import_module(module)
    return getattr(loaded, objective), getattr(loaded, settings)
