"""The list of methods, one line each; a method's module is imported when it is asked for.

Packages of others add theirs by an entry point of the group ``bootdiff.methods``: ``NAME = "package.module:Class"``,
where the class is declared by ``bootdiff.methods.method``. A program adds its own by ``register_method``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from bootdiff.core.errors import BootdiffError, choose, nearest, shown
from bootdiff.core.plugins import loaded, named
from bootdiff.methods.method import Method
from bootdiff.methods.settings import DistillationSettings
from bootdiff.system.notes import note

C = TypeVar("C", bound=type)
#: for each method's name, its objective class, as ``module:class`` where its module is imported only when asked for
METHODS: dict[str, Any] = {
    "boot": "bootdiff.methods.boot:Boot",
    "direct": "bootdiff.methods.direct:Direct",
    "path": "bootdiff.methods.path:Path",
    "progressive": "bootdiff.methods.progressive:Progressive",
    "consistency": "bootdiff.methods.consistency:Consistency",
    "lcm": "bootdiff.methods.lcm:Lcm",
    "consistency-training": "bootdiff.methods.consistency_training:ConsistencyTraining",
    "tract": "bootdiff.methods.tract:Tract",
    "reflow": "bootdiff.methods.reflow:Reflow",
    "dfno": "bootdiff.methods.dfno:Dfno",
    "tbcm": "bootdiff.methods.tbcm:Tbcm",
    "drift": "bootdiff.methods.drift:Drift",
    "dm": "bootdiff.methods.corrections.distribution_matching:DistributionMatching",
    "sid": "bootdiff.methods.corrections.sid:Sid",
    "freeflow": "bootdiff.methods.corrections.freeflow:FreeFlow",
}
GROUP = "bootdiff.methods"


@lru_cache
def _of_others() -> dict[str, EntryPoint]:
    """Return the entry points of other packages' methods by name; names of our own are left to us."""
    return {name: entry for name, entry in named(GROUP).items() if name not in METHODS}


def register_method(objective: C) -> C:
    """Make ``--method`` and ``distill`` know a method that ``method`` has declared, and return it; for decorators.

    Raises:
        BootdiffError: if the class is not declared.
    """
    declared = getattr(objective, "method", None)
    if not isinstance(declared, Method):
        raise BootdiffError(f"{objective.__name__} declares no method; put bootdiff.methods.method(NAME, …) above it.")
    METHODS[declared.name] = objective
    find_method.cache_clear()
    return objective


def single_names() -> list[str]:
    """Return the names of all methods, without those of two in one run; a broken one of others is left out."""
    return [*METHODS, *(name for name in sorted(_of_others()) if name not in METHODS and _works(name))]


def _works(name: str) -> bool:
    """Return whether another package's method can be found; why it cannot is a note."""
    try:
        find_method(name)
    except BootdiffError as error:
        note(f"method {shown(name)} of another package is left out: {error.message}")
        return False
    return True


def names() -> list[str]:
    """Return every name that ``find_method`` knows: the methods, and every two that fit in one run."""
    single = [find_method(name) for name in single_names()]
    return [*(one.name for one in single), *(f"{a.name}+{b.name}" for b in single for a in single if b.follows(a))]


def methods_with(setting: str) -> list[str]:
    """Return the names of the methods that have this setting."""
    return [name for name in single_names() if setting in find_method(name).settings.model_fields]


def method_of(settings: DistillationSettings) -> Method:
    """Return the method whose settings these are; of a run of two methods, the second one."""
    known = {find_method(name).settings: name for name in reversed(single_names())}
    return find_method(next(known[kind] for kind in type(settings).__mro__ if kind in known))


@lru_cache
def find_method(name: str) -> Method:
    """Return the method of this name.

    Args:
        name: one of ``single_names``, or ``a+b`` for method a and, from its student, method b in one run.

    Raises:
        BootdiffError: if there is no such method, or b cannot go on from a; the message names the nearest one.
    """
    if name in METHODS or name in _of_others():
        return _declared(name)
    parts = name.split("+")
    if not all(parts) or len(parts) > 2:
        raise BootdiffError(f"a run has one method, or at most two as in boot+dm, got --method {shown(name)}.")
    if len(parts) == 1:
        raise BootdiffError(
            f"method {shown(name)} is not known; expected one of {', '.join(single_names())}, or two of them as in "
            f"boot+dm.{nearest(name, names())}"
        )
    from bootdiff.methods.staged import two_stages

    a, b = (find_method(choose(part, single_names(), "method")) for part in parts)
    if not b.follows(a):
        fits = [one for one in single_names() if one != b.name and b.follows(find_method(one))]
        raise BootdiffError(
            f"method {b.name} cannot go on from {a.name} in one run; it follows {' or '.join(fits) or 'no other'}."
        )
    return two_stages(a, b)


def _declared(name: str) -> Method:
    """Return a method as its class declares it.

    Raises:
        BootdiffError: if another package's method cannot be imported, or declares nothing.
    """
    if name in METHODS:
        place = METHODS[name]
        if isinstance(place, str):
            module, _, kind = place.partition(":")
            place = getattr(import_module(module), kind)
        declared: Method = place.method
        return declared
    point = _of_others()[name]
    if "+" in name:
        raise BootdiffError(
            f"method {shown(name)} of {point.value} cannot be chosen: + joins the names of two methods."
        )
    found = getattr(loaded(point, "method"), "method", None)
    if not isinstance(found, Method) or found.name != name:
        raise BootdiffError(f"{point.value} declares no method {name}; see docs/extending.md for how to declare one.")
    return found
