"""How variants are made from an ablation's file, so that each set of settings is there once."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bootdiff.ablation.config import Ablation
from bootdiff.config.settings import TrainingSettings, make_settings
from bootdiff.core.errors import BootdiffError
from bootdiff.methods.registry import find_method
from bootdiff.storage.reading import read_config

BASELINE = "baseline"
#: the largest number of variants of a grid; nobody trains more
MOST_VARIANTS = 10_000
#: the largest number of characters of a readable folder name
LONGEST = 80
#: the settings that the teacher's own samples depend on
OF_THE_TEACHER = (
    "guidance_scale",
    "guidance_range",
    "negative_prompt",
    "null_class",
    "classes",
    "prompts",
    "prompt_column",
    "base",
    "noise_level",
)


@dataclass(frozen=True)
class Variant:
    """A variant: one set of settings.

    Args:
        label: the variant in words, such as ``"delta = 0.02"``.
        name: the name of its folder. It says what differs from the baseline, so that it stays the same whatever else
            the file says.
        changed: the settings that differ from the baseline's, as they are shown.
        settings: all settings, with the baseline's seed.
    """

    label: str
    name: str
    changed: Mapping[str, str]
    settings: TrainingSettings

    def guidance(self) -> tuple[str, ...]:
        """Return the settings that the teacher's samples depend on.

        They are equal for variants whose teachers make the same samples.
        """
        return tuple(shown(getattr(self.settings, key, None)) for key in OF_THE_TEACHER)


@dataclass(frozen=True)
class Axis:
    """A setting that varies alone: the label of each of its values, with its variant's name."""

    key: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Design:
    """The variants, the axes on which they lie, and the training seeds.

    ``own_seed`` is the baseline's seed; runs with another seed name it in their folders.

    The first seed is the baseline's unless the file lists seeds.
    """

    variants: tuple[Variant, ...]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    own_seed: int

    @property
    def of_the_baseline(self) -> list[str]:
        """Return the labels of the baseline's values, for every setting that varies alone."""
        return [next(label for label, name in axis.members if name == BASELINE) for axis in self.axes]

    def jobs(self, folder: Path) -> Iterator[Job]:
        """Yield every run, seed by seed, so that each variant has figures early."""
        for seed in self.seeds:
            for variant in self.variants:
                yield Job(variant, seed, folder / "runs" / self._place(variant, seed))

    def merged(self, resolve: Callable[[Job], TrainingSettings], folder: Path) -> Design:
        """Return the design without variants that turn out to equal an earlier one.

        An example is the teacher's own t_max beside a t_max of none.

        Args:
            resolve: returns the settings of a run as they are once its teacher is known.
        """
        first: dict[str, Variant] = {}
        same: dict[str, str] = {}
        for job in self.jobs(folder):
            settings = resolve(job)
            if job.seed == self.seeds[0]:
                words = settings.model_dump_json()
                same[job.variant.name] = first.setdefault(words, job.variant).name
        axes = tuple(Axis(axis.key, tuple((label, same[name]) for label, name in axis.members)) for axis in self.axes)
        return replace(self, variants=tuple(first.values()), axes=axes)

    def _place(self, variant: Variant, seed: int) -> str:
        return variant.name if seed == self.own_seed else f"{variant.name}-seed-{seed}"


@dataclass(frozen=True)
class Job:
    """A run of an ablation: a variant with a seed, in a folder."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def settings(self) -> TrainingSettings:
        """Return the settings with which the run is trained."""
        settings = self.variant.settings
        return make_settings(type(settings), settings.model_dump(), {"seed": self.seed})


def make_design(ablation: Ablation, path: Path) -> Design:
    """Return the variants that a file asks for; the baseline is first if single settings vary.

    Args:
        path: the file, for error messages.

    Raises:
        BootdiffError: if a setting does not exist, or a value is out of its range.
    """
    maker = _Maker(ablation, path)
    if ablation.vary:
        maker.add(BASELINE, {})
    axes = tuple(maker.axis(key, values) for key, values in ablation.vary.items())
    count = math.prod(map(len, ablation.grid.values()))
    if count > MOST_VARIANTS:
        raise BootdiffError(f"{path}: its grid has more than {MOST_VARIANTS:,} variants; leave values out.")
    for values in itertools.product(*ablation.grid.values()) if ablation.grid else ():
        maker.add(None, dict(zip(ablation.grid, values, strict=True)))
    seeds = tuple(dict.fromkeys(ablation.seeds or [maker.baseline.seed]))
    return Design(tuple(maker.variants.values()), axes, seeds, maker.baseline.seed)


class _Maker:
    """Makes variants, and keeps each name once."""

    def __init__(self, ablation: Ablation, path: Path) -> None:
        self.path, self.kind = path, find_method(ablation.method).settings
        below = Path(ablation.config) if ablation.config is not None else None
        self.shared = {**read_config(below), **ablation.settings}
        self.baseline = self._settings("settings", {})
        self.variants: dict[str, Variant] = {}

    def axis(self, key: str, values: list[Any]) -> Axis:
        """Return the axis of a setting, with a variant for every value.

        The baseline's own value comes first if the file does not list it.
        """
        members = [self.add(None, {key: value}) for value in values]
        if BASELINE not in (name for _, name in members):
            members.insert(0, (f"{key} = {shown(getattr(self.baseline, key))}", BASELINE))
        return Axis(key, tuple(dict.fromkeys(members)))

    def add(self, label: str | None, changes: Mapping[str, Any]) -> tuple[str, str]:
        """Make a variant, unless it exists; return its label in this place, and its name."""
        where = ", ".join(f"{key} = {shown(value)}" for key, value in changes.items())
        settings = self._settings(where or "settings", changes)
        asked = {key: shown(getattr(settings, key)) for key in changes}
        label = label or ", ".join(f"{key} = {value}" for key, value in asked.items())
        known, ours = self.baseline.model_dump(), settings.model_dump()
        changed = {key: shown(value) for key, value in ours.items() if value != known[key]}
        name = folder_name(changed)
        self.variants.setdefault(name, Variant(label, name, changed, settings))
        return label, name

    def _settings(self, where: str, changes: Mapping[str, Any]) -> TrainingSettings:
        try:
            return make_settings(self.kind, self.shared, changes)
        except BootdiffError as error:
            raise BootdiffError(f"{self.path}, {where}: {error}") from None


def folder_name(changed: Mapping[str, str]) -> str:
    """Return a readable name for what differs from the baseline; it differs for different changes."""
    words = "+".join(f"{key}-{value}" for key, value in changed.items()) or BASELINE
    name = re.sub(r"[^\w.+-]+", "-", words, flags=re.ASCII).strip("-")
    if name == words and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.blake2b(words.encode(), digest_size=3).hexdigest()}"


def shown(value: Any) -> str:
    """Return a setting's value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)
