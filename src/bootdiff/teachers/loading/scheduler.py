"""Reading the schedule and the prediction type from a diffusers scheduler config, whose word is taken."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import EDM, BetaTable, RectifiedFlow, Schedule
from bootdiff.system.notes import note
from bootdiff.teachers.limits import LimitFields, Positive
from bootdiff.teachers.prediction import FlowVelocity, Noise, Preconditioned, Prediction, Signal, Velocity

#: schedulers whose config is a table of betas and a prediction type
BETA_SCHEDULERS = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
)
#: schedulers with EDM's preconditioning (``sigma_data``)
EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
#: schedulers of rectified flow
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")

Model = TypeVar("Model", bound=BaseModel)


class SchedulerConfig(LimitFields, ABC):
    """The fields that every kind of scheduler shares, with the ranges in which they mean something."""

    num_train_timesteps: int = Field(1000, ge=2, le=1_000_000)

    @abstractmethod
    def read(self, where: Path | str, tokens: int | None = None) -> tuple[Schedule, Prediction]:
        """Return the schedule and the prediction type.

        ``tokens`` is the number of tokens of an image, for shifts that depend on it; ``where`` names the file in
        messages.
        """


class BetaConfig(SchedulerConfig):
    """The fields of a scheduler with a table of betas."""

    prediction_type: Literal["epsilon", "sample", "original_sample", "v_prediction"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"] = "linear"
    beta_start: float = Field(0.0001, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    trained_betas: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    rescale_betas_zero_snr: bool = False
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    timestep_type: Literal["discrete"] = "discrete"
    steps_offset: int = Field(0, ge=0)
    variance_type: (
        Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"] | None
    ) = None

    @model_validator(mode="after")
    def _agree(self) -> BetaConfig:
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} entries but num_train_timesteps is "
                f"{self.num_train_timesteps}; both must be the number of timesteps that the network was trained with"
            )
        if self.steps_offset >= self.num_train_timesteps:
            raise ValueError(f"steps_offset {self.steps_offset} is not below {self.num_train_timesteps} timesteps")
        if self.trained_betas is None and self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start:g} is above beta_end {self.beta_end:g}")
        return self

    def read(self, where: Path | str, tokens: int | None = None) -> tuple[Schedule, Prediction]:
        """Return the schedule of diffusers' own betas, and the prediction type."""
        kinds = {"epsilon": Noise(), "v_prediction": Velocity()}
        return BetaTable(betas_of(self, where)), kinds.get(self.prediction_type, Signal())


class EDMConfig(SchedulerConfig):
    """The fields of a scheduler with EDM's noise levels and preconditioning."""

    sigma_min: float = Field(0.002, ge=1e-8, le=1e8)
    sigma_max: float = Field(80.0, ge=1e-8, le=1e8)
    sigma_data: float = Field(0.5, gt=0, le=1e4)
    rho: float = Field(7.0, ge=1, le=100)
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"

    @model_validator(mode="after")
    def _rise(self) -> EDMConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}")
        return self

    def read(self, where: Path | str, tokens: int | None = None) -> tuple[Schedule, Prediction]:
        """Return EDM's schedule, with noise levels spaced as its sampler spaces them, and its preconditioning."""
        rho = self.rho if self.sigma_schedule == "karras" else None
        sign = 1.0 if self.prediction_type == "epsilon" else -1.0
        return EDM(self.sigma_min, self.sigma_max, rho, self.num_train_timesteps), Preconditioned(self.sigma_data, sign)


class FlowConfig(SchedulerConfig):
    """The fields of a scheduler of rectified flow, which may shift its times towards noise."""

    shift: Positive = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = Field(0.5, ge=-20, le=20)
    max_shift: float = Field(1.15, ge=-20, le=20)
    base_image_seq_len: int = Field(256, ge=1)
    max_image_seq_len: int = Field(4096, ge=2)
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    invert_sigmas: Literal[False] = False

    @model_validator(mode="after")
    def _rise(self) -> FlowConfig:
        if self.base_image_seq_len >= self.max_image_seq_len:
            raise ValueError(
                f"base_image_seq_len {self.base_image_seq_len} is not below max_image_seq_len {self.max_image_seq_len}"
            )
        return self

    def read(self, where: Path | str, tokens: int | None = None) -> tuple[Schedule, Prediction]:
        """Return the path x_t = (1 − sigma) x_0 + sigma eps and its prediction type.

        Other spacings of sampling steps do not change the path.
        """
        return RectifiedFlow(self._shift(where, tokens), self.num_train_timesteps), FlowVelocity()

    def _shift(self, where: Path | str, tokens: int | None) -> float:
        if not self.use_dynamic_shifting:
            return self.shift
        if tokens is None:
            raise BootdiffError(f"{where}: use_dynamic_shifting needs a transformer that says how long an image is.")
        span = self.max_image_seq_len - self.base_image_seq_len
        mu = self.base_shift + (self.max_shift - self.base_shift) * (tokens - self.base_image_seq_len) / span
        shift = math.exp(mu) if self.time_shift_type == "exponential" else mu
        if shift <= 0:
            raise BootdiffError(
                f"{where}: its linear time shift is {shift:g} for images of {tokens} tokens, not above 0."
            )
        return shift


def as_stock_reads(config: Mapping[str, Any], kind: str | None, where: Path | str) -> dict[str, Any]:
    """Return a scheduler's config with the class that stock diffusers builds, and old fields by their new names.

    Args:
        kind: the class that the pipeline's index names, which is the one that counts; None where it names none.

    Raises:
        BootdiffError: if two fields contradict each other, or the class's name is no text.
    """
    words = dict(config)
    if not isinstance(words.get("_class_name", ""), str):
        raise BootdiffError(
            f"{where}: _class_name {words['_class_name']!r:.60} cannot be read; expected a class's name."
        )
    if kind is not None and words.get("_class_name", kind) != kind:
        note(
            f"{where} says {words['_class_name']:.60} and model_index.json {kind}, which stock diffusers builds; "
            f"read as a {kind}."
        )
    words["_class_name"] = kind or words.get("_class_name", "?")
    if words.pop("predict_epsilon", None) is False:  # what prediction_type was called in diffusers' first versions
        if words.setdefault("prediction_type", "sample") == "epsilon":
            raise BootdiffError(
                f"{where} says predict_epsilon: false and prediction_type: epsilon; keep the one that the network was "
                "trained with."
            )
        note(f"{where} says predict_epsilon: false; read as prediction_type: {words['prediction_type']}.")
    return words


def read_config(config: Mapping[str, Any], where: Path | str) -> SchedulerConfig:
    """Return the fields of a scheduler's config, checked.

    Raises:
        BootdiffError: if the class or a field cannot be read; the message says which it is and what it should be.
    """
    kind = str(config.get("_class_name", "?"))
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise BootdiffError(
            f"{where} describes a flow model by a {kind}, which cannot be read; supported for flow models: "
            f"{FLOW_SCHEDULERS[0]}, so save the pipeline with that one."
        )
    kinds: dict[tuple[str, ...], type[SchedulerConfig]] = {
        BETA_SCHEDULERS: BetaConfig,
        EDM_SCHEDULERS: EDMConfig,
        FLOW_SCHEDULERS: FlowConfig,
    }
    for names, words in kinds.items():
        if kind in names:
            # As in diffusers: what the class does not take is ignored (a config may carry fields of the scheduler that
            # it was made from), and what is missing or null is the class's own default.
            own = _defaults(kind)
            given = {key: value for key, value in config.items() if key in own and value is not None}
            fields = {key: value for key, value in {**own, **given}.items() if value is not None}
            return checked(words, fields, where)
    known = ", ".join(name.removesuffix("Scheduler") for names in kinds for name in names)
    raise BootdiffError(f"{where} is a {kind}, which cannot be read; supported schedulers: {known}.")


def betas_of(words: BetaConfig, where: Path | str) -> list[float]:
    """Return the table of N betas, with values in float32, that diffusers itself builds from the config."""
    from diffusers import DDPMScheduler

    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    fields = {name: getattr(words, name) for name in (*names, "rescale_betas_zero_snr")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            betas = DDPMScheduler(**fields).betas.tolist()
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise BootdiffError(f"{where}: its betas cannot be built ({str(error).splitlines()[0]}).") from error
    if not all(0 < beta <= 1 for beta in betas):
        raise BootdiffError(
            f"{where}: beta_schedule '{words.beta_schedule}' with num_train_timesteps {words.num_train_timesteps} "
            "gives betas outside (0, 1]; check beta_start, beta_end and num_train_timesteps."
        )
    return betas


def checked(kind: type[Model], fields: Mapping[str, Any], where: Path | str) -> Model:
    """Return the fields of a file as a model.

    Raises:
        BootdiffError: if a field cannot be read; the message names the first one, what it is and what it should be.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise BootdiffError(f"{where}: {message}.") from None
        # A union's error also names the kind that was tried, in pydantic's words.
        field = ".".join(str(word) for i, word in enumerate(first["loc"]) if i == 0 or isinstance(word, int))
        words = message[0].lower() + message[1:]
        raise BootdiffError(f"{where}: field {field} cannot be read: {words}, got {first['input']!r:.60}.") from None


def _defaults(kind: str) -> dict[str, Any]:
    """Return the arguments that a scheduler class takes, with their defaults."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, kind).__init__).parameters
    own = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    # A class whose own dependency is not installed (scipy, torchsde) is a placeholder without a signature.
    return own or {name: None for name in BetaConfig.model_fields}
