"""Groups of settings; a method's settings class lists the groups that it has, and the last one's fields come first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from bootdiff.config.base import Settings, yaml_no
from bootdiff.core.errors import BootdiffError

Weight = Annotated[float, Field(ge=0, le=1000)]

#: the timestep of the noise on a cascade's small images where none is named: DeepFloyd IF's own default
NOISE_LEVEL = 250


class Optimiser(Settings):
    """How long and how fast a network learns."""

    steps: int = Field(default=3000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=128, ge=1, description="samples a step, over all processes and accumulation steps")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="of every random value in training")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="AdamW's rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="how the rate falls to 0"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps over which the rate rises from 0")
    weight_decay: float = Field(default=0.0, ge=0, le=100, description="AdamW's")
    ema_decay: float = Field(
        default=0.9999,
        ge=0,
        lt=1,
        description="of the averaged weights that are sampled, reached by (1 + n) / (10 + n); 0 = none",
    )
    gradient_clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 = no clipping")
    gradient_accumulation: int = Field(default=1, ge=1, description="passes a step is split into, to save memory")


class Passes(Settings):
    """How the networks are run: the precision, and what is kept for the backward pass."""

    mixed_precision: Literal["no", "fp16", "bf16"] = Field(default="no", description="autocast of the networks")
    gradient_checkpointing: bool = Field(default=False, description="compute activations twice instead of keeping them")
    compile: bool = Field(
        default=False, description="torch.compile the diffusers networks: a minute of waiting, then faster"
    )

    _no_precision = field_validator("mixed_precision", mode="before")(yaml_no)


class Records(Settings):
    """What a training writes while it runs, and how often."""

    log_every: int = Field(default=20, ge=1, description="steps between log lines")
    sample_every: int = Field(default=500, ge=0, description="steps between sample grids; 0 = none")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")
    keep_last: int = Field(default=2, ge=1, description="checkpoints that are kept")


class Times(Settings):
    """The ends of the path that a student learns."""

    t_min: float | None = Field(
        default=None, ge=0, le=1, description="time of the image; none = the teacher's first step"
    )
    t_max: float | None = Field(
        default=None, ge=0, le=1, description="time of the noise; none = the last with alpha ≥ 0.02"
    )

    @property
    def span(self) -> float:
        """The length t_max − t_min of the path, with 1 and 0 in place of ends that are not set."""
        return (1.0 if self.t_max is None else self.t_max) - (self.t_min or 0.0)

    @model_validator(mode="after")
    def _times_rise(self) -> Self:
        if self.span <= 0:
            raise BootdiffError(
                f"t_min must be below t_max, got t_min = {self.t_min or 0:g} and t_max = {self.t_max:g}."
            )
        return self


class Distance(Settings):
    """How the distance between a prediction and its target is measured."""

    distance: Literal["l2", "l1", "huber", "lpips", "digits"] = Field(
        default="l2", description="between prediction and target; digits: perceptual, by the builtin digit classifier"
    )
    lpips_weights: str | None = Field(
        default=None, description="for distance lpips: a file or folder with VGG's and LPIPS's"
    )


class Targets(Settings):
    """How the range of the targets' values is limited."""

    target_limit: Literal["teacher", "none", "clip", "dynamic"] = Field(
        default="teacher",
        description="how the targets' x_0 is limited: as the teacher's scheduler says (or start's were), or otherwise",
    )
    dynamic_ratio: float = Field(
        default=0.995, gt=0, le=1, description="for target_limit dynamic: the quantile of |x_0|"
    )
    dynamic_maximum: float = Field(default=100.0, ge=1, description="for target_limit dynamic: the largest divisor")


class Start(Settings):
    """The weights with which a student's training begins."""

    start: str | None = Field(
        default=None, min_length=1, description="a saved student to go on from; none = the teacher's own weights"
    )


class Conditioning(Settings):
    """What the samples are conditioned on, and how the teacher is guided."""

    prompts: str | None = Field(
        default=None,
        min_length=1,
        description="a file of prompts: text, CSV, TSV, JSON, JSON lines or parquet; or hf:NAME of the hub",
    )
    prompt_column: str | None = Field(default=None, description="of the prompts file, where it has several")
    classes: list[NonNegativeInt] | None = Field(
        default=None, min_length=1, description="class labels; none = all of them"
    )
    null_class: int | None = Field(
        default=None, ge=0, description="the label of a class teacher that stands for no class"
    )
    guidance_scale: float | None = Field(default=None, ge=0, le=1000, description="w of Eq. 10; none = no guidance")
    guidance_range: list[Weight] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="[MIN, MAX]: the student takes w as an input, drawn from here",
    )
    export_guidance: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="w in the export where its pipeline has no slot; none = the range's middle",
    )
    negative_prompt: str | None = Field(
        default=None, description="what guidance leads away from; none = the empty prompt"
    )
    base: str | None = Field(
        default=None, description="for a super-resolution teacher: the run of its distilled base stage"
    )
    noise_level: int = Field(
        default=NOISE_LEVEL, ge=0, lt=100_000, description="of the base's images, as a super-resolution timestep"
    )
    prompt_cache_gib: float = Field(
        default=8.0, ge=0, description="prompts are encoded once if that fits; 0 = in the loop"
    )

    @model_validator(mode="after")
    def _weights_agree(self) -> Self:
        if self.guidance_range is None:
            if self.export_guidance is not None:
                raise BootdiffError("export_guidance chooses a weight from guidance_range, which is not given.")
            return self
        low, high = self.guidance_range
        if self.guidance_scale is not None:
            raise BootdiffError("guidance_scale and guidance_range exclude each other; give one of them.")
        if low >= high:
            raise BootdiffError(f"guidance_range should be [MIN, MAX] with MIN below MAX, got {self.guidance_range}.")
        if self.export_guidance is not None and not low <= self.export_guidance <= high:
            raise BootdiffError(
                f"export_guidance {self.export_guidance:g} is outside guidance_range {self.guidance_range}."
            )
        return self


class Monitoring(Settings):
    """How often the student is looked at during training, and what follows from the looks."""

    watch_every: int | None = Field(
        default=None,
        ge=0,
        description="steps between looks at the convergence; none = what 2 % of the time pays for; 0 = never",
    )
    stop_when: Literal["steps", "converged"] = Field(
        default="steps", description="end at the last step, or at the first look that says converged"
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="which state becomes the student: the best look's, where five looks or more say that it beats "
        "the last by more than noise; or always the last",
    )

    @model_validator(mode="after")
    def _looks_before_it_stops(self) -> Self:
        if self.stop_when == "converged" and self.watch_every == 0:
            raise BootdiffError("stop_when converged needs looks; leave watch_every out, or set it above 0.")
        return self


#: how often the solvers of the path ask: calls a step, and how many more
PATH_SOLVERS = {"heun": (2, 1), "euler": (1, 1)}
#: those of diffusers' samplers that ask otherwise than once a step
SAMPLER_CALLS = {"heun": (2, -1), "edm": (2, -1), "pndm": (1, 1)}
#: the sources whose samples are made of noises by the teacher and stored
STORED = ("pairs", "trajectories")
#: the most samples that a run stores where it names no number
MOST_STORED = 50_000


class StoredPairs(Settings):
    """The samples that the teacher makes of noises and that a run stores."""

    pairs: int | None = Field(
        default=None,
        ge=1,
        description="samples of the teacher that are stored, never more than steps · batch_size; none = "
        f"{MOST_STORED} at the most",
    )
    pair_steps: int = Field(default=50, ge=1, le=1000, description="the teacher's steps along a stored sample's path")
    pair_solver: str = Field(
        default="heun",
        min_length=1,
        max_length=40,
        description="of a stored sample: heun or euler along the path, or, for pairs, a sampler of diffusers with its "
        "spacing, such as dpm-solver:leading, which has times of its own",
    )

    @field_validator("pair_solver")
    @classmethod
    def _has_a_spacing(cls, word: str) -> str:
        """Refuse a sampler without its spacing; which samplers there are is a matter of the teacher."""
        name, _, spacing = word.partition(":")
        if word not in PATH_SOLVERS and not (name and spacing):
            raise ValueError(
                f"expects {' or '.join(PATH_SOLVERS)}, or a sampler of diffusers with its spacing such as "
                "dpm-solver:leading"
            )
        return word

    @property
    def stored(self) -> int:
        """How many samples a run stores, if its source stores any."""
        most = cast("Any", self).steps * cast("Any", self).batch_size
        return min(most, MOST_STORED if self.pairs is None else self.pairs)

    @property
    def path_steps(self) -> int:
        """How many steps the teacher takes along a stored sample's path."""
        return self.pair_steps

    @property
    def making(self) -> int:
        """How often the teacher is asked for all that a run stores."""
        sampler, _, _ = self.pair_solver.partition(":")
        each, more = PATH_SOLVERS.get(self.pair_solver, SAMPLER_CALLS.get(sampler, (1, 0)))
        return self.stored * (each * self.path_steps + more) if self._stores else 0

    @property
    def _stores(self) -> bool:
        """Whether the source, where one can be chosen, is one that stores samples."""
        named = getattr(self, "source", None)
        return named in STORED if named is not None else getattr(self, "images", None) is None


class StoredTrajectories(StoredPairs):
    """The states of the teacher's paths that a run stores."""

    trajectory_times: int = Field(default=8, ge=2, le=1000, description="M, the states that are stored of a path")

    @property
    def path_steps(self) -> int:
        """How many steps the teacher takes along a path: enough that every state stands at the end of one."""
        intervals = self.trajectory_times - 1
        return (
            -(-self.pair_steps // intervals) * intervals
            if getattr(self, "source", None) != "pairs"
            else self.pair_steps
        )


class ChosenSource(Settings):
    """What a batch holds, for methods that have a choice."""

    source: Literal["noise", "pairs", "trajectories", "images"] | None = Field(
        default=None, description="what a batch holds: noise, pairs, trajectories or images; none = the method's first"
    )


class Sourcing(ChosenSource):
    """What a batch holds, for methods that may learn from images."""

    images: str | None = Field(
        default=None,
        min_length=1,
        description="for source images: digits, a folder of images, IDX files, parquet, or hf:NAME of the hub",
    )
    resize: int | None = Field(
        default=None, ge=4, le=8192, description="for source images: resize them to this side; none = as they are"
    )

    @model_validator(mode="after")
    def _source_has_its_data(self) -> Self:
        if self.source == "images" and self.images is None:
            raise BootdiffError(
                "images are to be learned from, and none are named: --images digits, a folder, IDX, parquet or hf:NAME."
            )
        given = {"images": self.images, "resize": self.resize}
        alien = [key for key, value in given.items() if value is not None and self.source not in (None, "images")]
        if alien:
            raise BootdiffError(f"{alien[0]} has no effect with --source {self.source}; leave one of them out.")
        return self


class Rounds(Settings):
    """Settings of single rounds, for methods that train in rounds: ``n16.steps`` is a setting of the round ``n16``."""

    rounds: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of single rounds, where they are others: NAME.steps, NAME.seed, …"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        """Take ``NAME: {...}`` as the settings of a round, unless NAME is a setting itself."""
        if not isinstance(values, Mapping):
            return values
        own = {
            key: value for key, value in values.items() if key not in cls.model_fields and isinstance(value, Mapping)
        }
        kept = {key: value for key, value in values.items() if key not in own}
        return {**kept, "rounds": {**kept.get("rounds", {}), **own}} if own else kept

    def of_round(self, name: str) -> Self:
        """Return the settings of one round.

        Raises:
            BootdiffError: if one of its own is refused; the message names the round.
        """
        words = {key: value for key, value in self.model_dump().items() if key != "rounds"}
        try:
            return type(self)(**{**words, **self.rounds.get(name, {})})
        except BootdiffError as error:
            raise BootdiffError(f"{name}: {error}") from error


class Architecture(Settings):
    """The network of the student."""

    student: str | None = Field(
        default=None,
        min_length=1,
        description="a folder with the config.json of another network (UNet2DModel, UNet2DConditionModel, DiT) for the "
        "student; none = the teacher's",
    )


class Untaught(Settings):
    """The first weights of a student whose method asks no teacher."""

    start_from: Literal["scratch", "teacher"] = Field(
        default="scratch", description="the student's first weights: drawn by the seed, or the teacher's"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.start_from == "teacher" and getattr(self, "start", None) is not None:
            raise BootdiffError("start and start_from=teacher exclude each other; leave one of them out.")
        return self


class Encoders(Settings):
    """Where the text encoders are kept."""

    offload_encoders: bool = Field(default=False, description="keep text encoders on the CPU")
