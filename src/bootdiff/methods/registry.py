"""The list of methods, one line each; a method's module is imported when it is asked for.

Packages of others add theirs by an entry point of the group ``bootdiff.methods``: ``NAME = "package.module:Class"``,
where the class is declared by ``bootdiff.methods.method``. A program adds its own by ``register_method``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.core.plugins import loaded, named
from bootdiff.methods.method import Method
from bootdiff.methods.settings import DistillationSettings

C = TypeVar("C", bound=type)
#: for each method's name, its objective class, as ``module:class`` where its module is imported only when asked for
METHODS: dict[str, Any] = {
    "boot": "bootdiff.methods.boot:Boot",
    "direct": "bootdiff.methods.direct:Direct",
    "progressive": "bootdiff.methods.progressive:Progressive",
    "consistency": "bootdiff.methods.consistency:Consistency",
    "consistency-training": "bootdiff.methods.consistency_training:ConsistencyTraining",
    "tract": "bootdiff.methods.tract:Tract",
    "reflow": "bootdiff.methods.reflow:Reflow",
    "dfno": "bootdiff.methods.dfno:Dfno",
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
    """Return the names of all methods, without those of two in one run."""
    return [*METHODS, *sorted(_of_others())]


def names() -> list[str]:
    """Return every name that ``find_method`` knows: the methods, and every two that fit in one run."""
    single = [find_method(name) for name in single_names()]
    return [*single_names(), *(f"{a.name}+{b.name}" for b in single for a in single if b.follows(a))]


def methods_with(setting: str) -> list[str]:
    """Return the names of the methods that have this setting."""
    return [name for name in single_names() if setting in find_method(name).settings.model_fields]


def method_of(settings: DistillationSettings) -> Method:
    """Return the method whose settings these are; of a run of two methods, the second one."""
    return next(known for known in map(find_method, single_names()) if isinstance(settings, known.settings))


@lru_cache
def find_method(name: str) -> Method:
    """Return the method of this name.

    Args:
        name: one of ``single_names``, or ``a+b`` for method a and, from its student, method b in one run.

    Raises:
        BootdiffError: if there is no such method, or b cannot go on from a; the message names the nearest one.
    """
    first, plus, second = name.partition("+")
    if not plus:
        return _declared(choose(name, [*single_names(), *_corrected_names(name)], "method"))
    from bootdiff.methods.staged import two_stages

    a, b = (find_method(choose(part, single_names(), "method")) for part in (first, second))
    if not b.follows(a):
        fits = [one for one in single_names() if one != b.name and b.follows(find_method(one))]
        raise BootdiffError(
            f"method {b.name} cannot go on from {a.name} in one run; it follows {' or '.join(fits) or 'no other'}."
        )
    return two_stages(a, b)


def _corrected_names(name: str) -> list[str]:
    """Return the names of two methods in one run that a misspelt name may mean."""
    return names() if name not in single_names() else []


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
    found = getattr(loaded(point, "method"), "method", None)
    if not isinstance(found, Method) or found.name != name:
        raise BootdiffError(f"{point.value} declares no method {name}; see docs/extending.md for how to declare one.")
    return found
