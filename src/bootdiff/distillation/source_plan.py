"""What a distillation's batches hold: planned and checked from its settings, then made in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bootdiff.config.mixins import PATH_SOLVERS, STORED, ChosenSource, Rounds, Sourcing, StoredPairs, StoredTrajectories
from bootdiff.core.errors import BootdiffError
from bootdiff.core.randomness import stored_seed
from bootdiff.data.conditions import Prompts, Weighted
from bootdiff.data.data_set import Data, hash_data
from bootdiff.data.prompts import PromptFile
from bootdiff.data.shards import Manifest, Shards
from bootdiff.data.sources import Description, Images, Noise, Pairs, Source, Trajectories, Undescribed
from bootdiff.data.sources.checked import Checked, check_is_source
from bootdiff.data.sources.stored import noises_hash
from bootdiff.distillation.conditioning import Material
from bootdiff.distillation.pairs import PathSolver, SamplerSolver, path_times, sampler_for
from bootdiff.distillation.prompts import encode_prompts
from bootdiff.distillation.source_images import EncodedCaptions, Labels, WithWeight, encoded, load_for
from bootdiff.methods.settings import DistillationSettings, target_limit
from bootdiff.samplers.base import batch_for
from bootdiff.solvers import SOLVERS
from bootdiff.teachers import Teacher, adapter_of, limited

#: the solver of stored samples where none is asked for
USUAL = StoredPairs.model_fields["pair_solver"].default
#: the settings on which stored samples depend beside those of the solver
CONDITIONED = (
    *("classes", "null_class", "guidance_scale", "guidance_range", "negative_prompt", "noise_level"),
    *("target_limit", "dynamic_ratio", "dynamic_maximum"),
)


@dataclass(frozen=True)
class SourcePlan:
    """The source that batches will come from, checked; nothing is written, and only a data set is loaded.

    Args:
        kind: the word for the source: noise, pairs, trajectories or images.
        settings: the run's settings; those of a method that learns from noise alone have none of the source's own.
        data: the data set, for images.
        given: a source that was made in Python, in place of the one that the settings describe.
    """

    kind: str
    settings: DistillationSettings
    data: Data | None = None
    given: Checked | None = None

    @property
    def data_free(self) -> bool:
        """Whether no image of a data set is read."""
        return self.data is None if self.given is None else self.given.data_free

    @property
    def digests(self) -> dict[str, str]:
        """Return the hash of the data set, if one is read; stored samples depend on nothing but the rest of the run."""
        if self.given is not None:
            source = self.given.source
            return {"source": str(getattr(source, "digest", type(source).__qualname__))}
        return {} if self.data is None else {"data": hash_data(self.data)}

    @property
    def captions(self) -> PromptFile | None:
        """The captions of the images as prompts; None if they have none."""
        if self.data is None or self.data.captions is None:
            return None
        return PromptFile(self.data.captions.texts, 0, "the images' captions")

    def describe(self) -> str:
        """Return the source as text for the plan."""
        settings = self.settings
        if self.given is not None:
            return f"{self.kind} of a {type(self.given.source).__name__}"
        if self.data is not None:
            return f"{len(self.data.pixels)} images"
        if isinstance(settings, StoredPairs) and self.kind in STORED:
            steps = f"{settings.pair_steps} {settings.pair_solver} steps each"
            return f"{settings.stored} {self.kind}, made by the teacher on the way, {steps}"
        return "noise alone"

    def make(self, material: Material, folder: Path, device: torch.device | str, hashes: Mapping[str, str]) -> Source:
        """Return the source; pairs and trajectories are made on the way, captions and latents are encoded here.

        Args:
            material: the teacher with its guidance, and the conditions.
            folder: the run's folder.
            hashes: those of what the run reads, ``Plan.sources``.
        """
        if self.given is not None:
            return self.given
        if self.data is not None:
            return self._images(self.data, material, folder, device, hashes)
        if isinstance(self.settings, StoredPairs) and self.kind in STORED:
            return self._stored(self.settings, material, folder, device, hashes)
        return Noise(tuple(material.teacher.shape), material.conditions)

    def _stored(
        self,
        asked: StoredPairs,
        material: Material,
        folder: Path,
        device: torch.device | str,
        hashes: Mapping[str, str],
    ) -> Source:
        settings, shape, seed = self.settings, tuple(material.teacher.shape), stored_seed(self.settings.seed)
        teacher = limited(material.teacher, target_limit(settings, material.teacher))
        several = self.kind == "trajectories"
        low, high = teacher.t_range
        low, high = settings.t_min if settings.t_min is not None else low, settings.t_max or high
        states = asked.trajectory_times if isinstance(asked, StoredTrajectories) and several else 1
        times, every = path_times(asked.pair_steps, states, low, high)
        solve: PathSolver | SamplerSolver
        if asked.pair_solver in PATH_SOLVERS:
            solve = PathSolver(teacher, SOLVERS[asked.pair_solver], times, every, device)
            steps: dict[str, Any] = {"times": times}
        else:  # which chooses its times itself
            solve = SamplerSolver(teacher, sampler_for(teacher, asked.pair_solver, asked.pair_steps), device)
            steps = {"steps": asked.pair_steps}
        made = {
            **{"seed": seed, "noises": noises_hash(seed, shape), "solver": asked.pair_solver, **steps},
            **{key: getattr(settings, key) for key in CONDITIONED},
            "hashes": {key: value for key, value in hashes.items() if key not in ("start", "data")},
        }
        entries = {"states": (states, *shape)} if several else {"data": shape}
        shards = Shards(folder / self.kind, Manifest(self.kind, asked.stored, shape, entries, made))
        conditions, at_once = material.conditions, min(batch_for(shape), settings.batch_size)
        if isinstance(conditions, Weighted) and conditions.lowest < conditions.highest:
            conditions = replace(conditions, shown=None)  # each sample has a weight of its own, not the shown one
        if several:
            return Trajectories(shards, solve, seed, at_once, conditions, solve.kept)
        return Pairs(shards, solve, seed, at_once, conditions)

    def _images(
        self, data: Data, material: Material, folder: Path, device: torch.device | str, hashes: Mapping[str, str]
    ) -> Source:
        adapter, description = adapter_of(material.teacher), self._description(data, material, folder, device)
        if adapter is None or not adapter.latent:
            return Images(data.pixels, description)
        made = {key: hashes.get(key) for key in ("data", "teacher", "components")}
        return Images(encoded(data.pixels, adapter, folder / "latents", device, made), description)

    def _description(self, data: Data, material: Material, folder: Path, device: torch.device | str) -> Description:
        adapter, weighted = adapter_of(material.teacher), material.conditions
        description: Description = Undescribed()
        if data.labels is not None:
            description = Labels(data.labels)
        if data.captions is not None and self.captions is not None and adapter is not None:
            # With no prompts of their own, samples are drawn from the captions, which are encoded already.
            place = "prompts" if self.settings.prompts is None else "captions"
            own = encode_prompts(self.captions, adapter, self.settings, folder / place, device).conditions
            assert isinstance(own, Prompts), "encode_prompts makes prompts"
            description = EncodedCaptions(data.captions, own.rows)
        if isinstance(weighted, Weighted):
            description = WithWeight(description, weighted.lowest, weighted.highest)
        return description


def chosen_source(settings: DistillationSettings, method: str, takes: Sequence[str]) -> dict[str, Any]:
    """Return the settings that say what a run learns from, where the run's own leave that open.

    Args:
        takes: the words for the sources that the method can learn from; the first is taken where none is asked for.

    Raises:
        BootdiffError: if it cannot learn from what is asked for.
    """
    asked, chosen = takes[0], {}
    if isinstance(settings, ChosenSource):
        asked = settings.source or ("images" if getattr(settings, "images", None) is not None else asked)
        check_source(method, takes, asked, "--source" if settings.source is not None else "--images")
        if getattr(settings, "pairs", None) is not None and asked not in STORED:
            given = getattr(settings, "pairs", None)
            first = f", or set {method.partition('+')[0]}.pairs={given}" if "+" in method else ""
            raise BootdiffError(f"pairs has no effect with --source {asked}; leave one of them out{first}.")
        if asked not in STORED and getattr(settings, "pair_solver", USUAL) != USUAL:
            raise BootdiffError(
                f"pair_solver is of stored samples, and this run stores none: it learns from {asked}. Leave it out"
                + (", or give pair_weight." if hasattr(settings, "pair_weight") else ".")
            )
        chosen = {"source": asked}
    # Of a run in rounds every round has its own number.
    stores = isinstance(settings, StoredPairs) and asked in STORED and not isinstance(settings, Rounds)
    return {**chosen, "pairs": settings.stored} if stores else chosen  # type: ignore[attr-defined]


def given_source(
    source: Source, teacher: Teacher, method: str, settings: DistillationSettings, takes: Sequence[str]
) -> SourcePlan:
    """Return the plan of a source that was made in Python, after trying it on a small batch.

    Raises:
        BootdiffError: if it is no source, or the method cannot learn from one of its kind or from its batches.
    """
    check_is_source(source)
    check_source(method, takes, source.kind)
    settings.check_source(source.kind)
    times = settings.trajectory_times if isinstance(settings, StoredTrajectories) else 0
    given = Checked(source, tuple(teacher.shape), times).tried(settings.seed, settings.batch_size)
    return SourcePlan(source.kind, settings, given=given)


def check_source(method: str, takes: Sequence[str], asked: str, option: str = "--source") -> None:
    """Refuse a source that a method cannot learn from.

    Args:
        option: by which it was asked for.

    Raises:
        BootdiffError: if it cannot; the message names what it can learn from.
    """
    if asked not in takes and "+" in method:
        first = method.partition("+")[0]
        raise BootdiffError(
            f"the last stage of {method} learns from {' or '.join(takes)}, not from {asked}; leave {option} out. "
            f"What the first one learns from is a setting of its own, such as {first}.source."
        )
    if asked not in takes:
        raise BootdiffError(
            f"method {method} learns from {' or '.join(takes)}, not from {asked}; leave {option} out, or name "
            f"{'one of these' if len(takes) > 1 and option == '--source' else 'another --method'}."
        )


def check_pair_solver(teacher: Teacher, settings: StoredPairs, kind: str) -> None:
    """Refuse a solver of stored samples that there is not, or that cannot make what is stored.

    Args:
        kind: the word for the source.

    Raises:
        BootdiffError: if the teacher has no such sampler, or if states of the path are stored, which samplers do not
            have.
    """
    if kind not in STORED or settings.pair_solver in PATH_SOLVERS:
        return
    if kind != "pairs":
        raise BootdiffError(
            f"{kind} are states of the teacher's path, along which pair_solver {settings.pair_solver:.40} does not go; "
            f"choose {' or '.join(PATH_SOLVERS)}."
        )
    sampler_for(teacher, settings.pair_solver, settings.pair_steps)


def plan_source(teacher: Teacher, settings: DistillationSettings, kind: str, given: bool) -> SourcePlan:
    """Return the plan of a run's source, after loading and checking a data set if there is one.

    Args:
        kind: the word for the source, where the settings leave it open.
        given: whether the conditions come from Python.

    Raises:
        BootdiffError: if the data set cannot be read, or does not fit the teacher.
    """
    if isinstance(settings, StoredPairs):
        check_pair_solver(teacher, settings, getattr(settings, "source", None) or kind)
    if not isinstance(settings, ChosenSource) or settings.source is None:
        return SourcePlan(kind, settings)
    if settings.source != "images" or not isinstance(settings, Sourcing) or settings.images is None:
        return SourcePlan(settings.source, settings)
    if given:
        raise BootdiffError("conditions= and --source images exclude each other: images say what they are of.")
    data = load_for(teacher, settings.images, settings.resize, settings.classes)
    if len(data.pixels) < settings.batch_size:
        raise BootdiffError(
            f"{settings.images} has {len(data.pixels)} images for this teacher, and a batch takes "
            f"{settings.batch_size}; lower batch_size."
        )
    return SourcePlan("images", settings, data)
