"""The list of methods, one line each; a method's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bootdiff.core.errors import choose

#: for each method's name, its ``module:objective class:settings class``
METHODS = {
    "boot": "bootdiff.methods.boot:Boot:BootSettings",
    "dm": "bootdiff.methods.corrections.distribution_matching:DistributionMatching:DistributionMatchingSettings",
    "sid": "bootdiff.methods.corrections.sid:Sid:SidSettings",
    "freeflow": "bootdiff.methods.corrections.freeflow:FreeFlow:FreeFlowSettings",
}
#: the methods that can follow BOOT in one run
CORRECTIONS = ("dm", "sid", "freeflow")
FIRST = "boot+"


def names() -> list[str]:
    """Return every name that ``load_method`` knows."""
    return [*METHODS, *(FIRST + name for name in CORRECTIONS)]


def methods_with(setting: str) -> list[str]:
    """Return the names of the methods that have this setting."""
    return [name for name in names() if setting in load_method(name)[1].model_fields]


def objective_of(settings: Any) -> Any:
    """Return the objective class of the method whose settings these are; of a run of two stages, the second one's."""
    return next(objective for objective, kind in map(load_method, METHODS) if isinstance(settings, kind))


def load_method(name: str) -> tuple[Any, Any]:
    """Return a method's objective class, which has ``from_settings(teacher, settings)``, and its settings class.

    Args:
        name: one of ``METHODS``, or ``boot+`` and the name of a correction for two stages in one run.

    Raises:
        BootdiffError: if there is no such method; the message names the nearest one.
    """
    if name.startswith(FIRST):
        from bootdiff.methods.staged import boot_first

        correction, settings = load_method(choose(name.removeprefix(FIRST), CORRECTIONS, "correction"))
        return correction, boot_first(settings)
    module, objective, settings = METHODS[choose(name, names(), "method")].split(":")
    loaded = import_module(module)
    return getattr(loaded, objective), getattr(loaded, settings)
