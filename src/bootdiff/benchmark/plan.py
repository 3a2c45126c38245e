"""What a benchmark is going to do: a run for every method, training seed and budget, all checked before the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bootdiff.benchmark.budget import scaled, with_lengths, within, without_lengths
from bootdiff.benchmark.recipes import check_recipes, recipe, shipped
from bootdiff.config.settings import layered, make_settings
from bootdiff.config.teacher import TeacherOptions
from bootdiff.core.errors import BootdiffError
from bootdiff.distillation.plan import plan_distillation
from bootdiff.evaluation.measurement import Measurement
from bootdiff.evaluation.processes import several
from bootdiff.methods.registry import find_method, method_of
from bootdiff.methods.settings import DistillationSettings, calls_a_target
from bootdiff.storage.files import read_json
from bootdiff.storage.reading import check_kinds, read_config
from bootdiff.students.architecture import share_of
from bootdiff.system.notes import note
from bootdiff.teachers import Teacher, load_teacher
from bootdiff.teachers.loading.weights import weights_hash
from bootdiff.training.planned import planned_passes

#: the file of a benchmark's folder that holds everything
FILE = "benchmark.json"
#: the two kinds of budget, which are the names of folders, too
PASSES, MINUTES = "passes", "minutes"
#: the folder of the short runs from which speeds are learned
TRIAL_RUNS = "trials"
#: how the names of settings' files end
SETTINGS = "settings.yaml"


@dataclass(frozen=True)
class Asked:
    """What a user asks a benchmark for.

    Args:
        teacher: its name; every run will load it anew.
        output: the benchmark's folder.
        model: the teacher itself, where no folder has its name: one that a function made.
        methods: the words after --method; empty for all whose recipes ship and that fit the teacher.
        passes: the budget of every run in network passes; None for no such table.
        minutes: the budget of every run in minutes of training; None for no such table.
        seeds: of training; figures are means over them.
        shared: settings that all methods have, such as prompts; each method takes those that it knows.
        assigned: settings by the name of a method, which win over its recipe and over the shared ones.
        recipes: a folder with files METHOD.yaml, which win over those that ship.
        loaded: how the teacher is loaded.
        measured: how many samples of what are measured, and by whom.
    """

    teacher: str
    output: Path
    model: Teacher | None = None
    methods: Sequence[str] = ()
    passes: int | None = None
    minutes: float | None = None
    seeds: Sequence[int] = (0,)
    shared: Mapping[str, Any] = field(default_factory=dict)
    assigned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipes: Path | None = None
    loaded: TeacherOptions = field(default_factory=TeacherOptions)
    measured: Measurement = field(default_factory=Measurement)

    @property
    def budgets(self) -> Mapping[str, float]:
        """Return the budgets by their kinds."""
        both = {PASSES: self.passes, MINUTES: self.minutes}
        return {kind: size for kind, size in both.items() if size is not None}


@dataclass(frozen=True)
class Job:
    """One run of a benchmark.

    Args:
        kind: of its budget.
        words: its settings at the length of its recipe.
    """

    method: str
    kind: str
    seed: int
    folder: Path
    words: Mapping[str, Any]

    @property
    def settings(self) -> Path:
        """The file of its settings, as long as its budget, beside the run."""
        return self.folder.with_name(f"{self.folder.name}-{SETTINGS}")


@dataclass(frozen=True)
class BenchmarkPlan:
    """Everything that a benchmark is going to do, before anything is written.

    Args:
        words: for each method its settings at the length of its recipe.
        identity: what the figures of a folder must have in common, as ``benchmark.json`` holds it.
    """

    asked: Asked
    teacher: Teacher
    words: dict[str, Mapping[str, Any]]
    identity: Mapping[str, Any]

    @property
    def unnamed(self) -> Teacher | None:
        """The teacher where no run can load it by its name, because a function made it; otherwise None."""
        return self.asked.model

    @property
    def methods(self) -> list[str]:
        """Return the methods, in the order of the table."""
        return list(self.words)

    def jobs(self, kind: str) -> Iterator[Job]:
        """Yield the runs of one kind of budget, all methods of a training seed together."""
        for seed in self.asked.seeds:
            for method in self.methods:
                folder = self.asked.output / kind / method / f"seed-{seed}"
                yield Job(method, kind, seed, folder, {**self.words[method], "seed": seed})

    def with_passes(self, method: str, words: Mapping[str, Any], passes: float) -> dict[str, Any]:
        """Return a method's settings at the length that costs so many passes.

        Raises:
            BootdiffError: if its shortest run costs more.
        """
        return within(words, passes, lambda tried: settings_of(method, tried), self.count)

    def count(self, settings: DistillationSettings) -> float:
        """Return the passes that a run will cost, all of its stages and all that it stores."""
        stem = method_of(settings).stem(self.teacher, settings)
        share = 1.0 if settings.student is None else share_of(stem, self.teacher)
        return planned_passes(settings, calls_a_target(settings, self.teacher), share)["all"]


def settings_of(method: str, *layers: Mapping[str, Any]) -> DistillationSettings:
    """Return a method's settings, made of layers of which the later ones win."""
    return make_settings(find_method(method).settings, *layers)


def plan_benchmark(asked: Asked) -> BenchmarkPlan:
    """Check everything that can be checked before the first training.

    Raises:
        BootdiffError: in one line, if a method does not fit the teacher, or a budget is too small for it.
    """
    if several():
        raise BootdiffError("bootdiff benchmark starts its runs itself; start it without torchrun or accelerate.")
    if not asked.budgets:
        raise BootdiffError("a benchmark needs a budget: give --passes, --minutes, or both for two tables.")
    if not math.isfinite(asked.minutes or 1):
        raise BootdiffError("--minutes expects a number of minutes, got one without end.")
    check_recipes(asked.recipes)
    teacher = asked.model or load_teacher(asked.teacher, **asked.loaded.options)
    identity = identity_of(asked, teacher)
    identity["budgets"] = {**check_folder(asked.output, identity), **asked.budgets}
    # A CLIP score asks only whether there are words; each run measures its own.
    asked.measured.judges(teacher, [""] if "prompts" in asked.shared else None)
    for method in asked.assigned:
        if method not in (methods := asked.methods or shipped()):
            raise BootdiffError(f"--set {method}.…: {method} is none of the methods {', '.join(methods)}.")
    plan = BenchmarkPlan(asked, teacher, {}, identity)
    for method in asked.methods or shipped():
        try:
            words = checked(asked, method, teacher)
            if asked.passes is not None:
                plan.with_passes(method, words, asked.passes)
        except BootdiffError as error:
            if asked.methods:
                raise error.within(method) from None
            note(f"{method} is left out: {error.message}")
        else:
            plan.words[method] = words
    check_settings(plan)
    if not plan.words:
        raise BootdiffError(f"no method of those that ship fits {teacher.name} and the budget.")
    return plan


def checked(asked: Asked, method: str, teacher: Teacher) -> dict[str, Any]:
    """Return a method's settings at the length of its recipe, with a run of them planned."""
    known = find_method(method)
    kind, images = known.settings, known.sources[0] == "images"
    shared = {key: value for key, value in asked.shared.items() if key in kind.model_fields}
    if not images:  # a method that has a choice learns from what the teacher makes
        shared.pop("images", None)
    words = layered(recipe(method, asked.recipes), shared, asked.assigned.get(method, {}))
    settings = settings_of(method, words)
    plan_distillation(teacher, asked.output / "planned" / method, settings, method)
    return with_lengths(words, settings)


def trial_of(words: Mapping[str, Any], steps: float) -> tuple[dict[str, Any], float]:
    """Return settings of a short run, about so many steps of its last stage, and the factor of its lengths."""
    factor = min(1.0, steps / words["steps"])
    return scaled(words, factor), factor


def trials_of(output: Path, method: str) -> list[Path]:
    """Return the files of settings of a method's short runs, from which its speed is learned."""
    return sorted((output / TRIAL_RUNS / method).glob(f"*-{SETTINGS}"))


def identity_of(asked: Asked, teacher: Teacher) -> dict[str, Any]:
    """Return what all figures of a folder must have in common."""
    measured = asked.measured
    return {
        "task": "benchmark",
        "teacher": teacher.name,
        "teacher_hash": weights_hash(teacher.denoiser),
        "budgets": dict(asked.budgets),
        "shared": dict(asked.shared),
        "features": getattr(measured.features, "name", measured.features),
        "reference": measured.reference,
        "clip": measured.clip,
        "labels": None if measured.labels is None else digest(measured.labels),
        "num": measured.num,
        "seed": measured.seed,
        "repeats": measured.repeats,
        "calls": list(measured.calls),
        "loaded": asdict(asked.loaded),
    }


def digest(labels: Sequence[int]) -> str:
    """Return a word that stands for the classes which prompts ask for, of which there may be very many."""
    return blake2b(repr(list(labels)).encode(), digest_size=8).hexdigest()


def check_settings(plan: BenchmarkPlan) -> None:
    """Refuse other settings than those with which a run in the folder began; only lengths are the budget's to say.

    Raises:
        BootdiffError: if a run has others; the message names the run and a setting.
    """
    made = [(job, job.settings) for kind in plan.asked.budgets for job in plan.jobs(kind)]
    first = {job.method: job for job in plan.jobs(MINUTES)} if MINUTES in plan.asked.budgets else {}
    made += [(job, file) for job in first.values() for file in trials_of(plan.asked.output, job.method)]
    for job, file in made:
        if not file.is_file():
            continue
        there, here = without_lengths(read_config(file)), without_lengths(job.words)
        key = next((key for key in {**there, **here} if there.get(key) != here.get(key) and key != "seed"), None)
        if key is not None:
            run = file.with_name(file.name.removesuffix(f"-{SETTINGS}"))
            raise BootdiffError(
                f"{run} was made with {key} {there.get(key)}, and {here.get(key)} is asked for; remove that run and "
                f"{file.name}, or choose another --output."
            )


def check_folder(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a folder that holds something else, or a benchmark of which something else was asked.

    A kind of budget may be added, as methods and seeds may.

    Returns:
        The budgets that the folder has already, by their kinds.

    Raises:
        BootdiffError: if it does; the message names what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise BootdiffError(f"{folder} is a file; expected a folder for the benchmark, so choose another --output.")
    held = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []
    if not held:
        return {}
    if FILE not in held:
        raise BootdiffError(f"{folder} exists and is no benchmark (it holds {held[0]}); choose another --output.")
    told = read_json(folder / FILE, cure="choose another --output")
    check_kinds(told, folder / FILE, "choose another --output", asked=dict)
    there: dict[str, Any] = told["asked"]
    budgets = there.get("budgets")
    known = budgets if isinstance(budgets, dict) else {}
    for key, value in identity.items():
        if key == "budgets":
            changed = next((kind for kind in value if kind in known and known[kind] != value[kind]), None)
            if changed is not None:
                raise BootdiffError(
                    f"{folder} is a benchmark of {known[changed]:,} {changed} a run, not of {value[changed]:,}; choose "
                    "another --output."
                )
        elif there.get(key) != value:
            raise BootdiffError(
                f"{folder} is a benchmark with {key} {there.get(key)}, not {value}; choose another --output."
            )
    return known
