"""What an adapter is: all that bootdiff must know of one kind of diffusers pipeline, in one file for each kind."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.schedules import Schedule
from bootdiff.teachers.adapters.autoencoder import Autoencoder, VAEConfig
from bootdiff.teachers.limits import Limit
from bootdiff.teachers.loading.components import Components
from bootdiff.teachers.loading.scheduler import SchedulerConfig
from bootdiff.teachers.one_call import StockCall

#: the width of the embedding of a guidance weight, as in LCM
WEIGHT_DIM = 256

Guidance = Literal["none", "free", "embedded"]


@dataclass(frozen=True)
class Clock:
    """The place where a network takes its time, ``embedder(proj(timestep))``; embedder is a TimestepEmbedding."""

    proj: Any
    embedder: Any


class Adapter(ABC):
    """How one kind of pipeline is read, called, conditioned, grown, decoded and written again.

    An adapter holds no weights of the denoising network: teacher and student share it.

    Args:
        parts: the components of the pipeline.

    Raises:
        BootdiffError: if this adapter would run the network wrongly; the message names the field met.
    """

    #: the stock pipeline classes that it reads
    pipelines: ClassVar[tuple[str, ...]] = ()
    #: the component of the pipeline's denoising network, and the network's class in diffusers
    network_part: ClassVar[str] = "unet"
    network_class: ClassVar[str] = "UNet2DModel"
    #: the kind of condition that a teacher of this kind takes
    takes: Literal["nothing", "classes", "prompts"] = "nothing"
    #: the components that turn prompts into embeddings, and the longest prompt each tokenizer takes
    encoders: tuple[str, ...] = ()
    windows: tuple[tuple[str, int], ...] = ()
    #: modules without which the stock pipeline does not clean its prompts
    cleaners: ClassVar[tuple[str, ...]] = ()
    #: how a guidance weight enters: by two answers of the network (free), as its input (embedded), or not at all (none)
    guidance: Guidance = "none"
    #: the weight of a network that must be told one, where the user names none
    usual_weight: float = 1.0
    #: whether the student's network has a slot for the weight that the stock pipeline serves
    weight_slot: bool = False
    #: whether the pipeline's schedulers are those of rectified flow
    flow: ClassVar[bool] = False
    #: whether the pipeline takes several steps of DDIMScheduler, or of another variance-preserving scheduler
    takes_steps: ClassVar[bool] = True
    #: whether the pipeline hands its scheduler the generator from which that draws noise between steps
    draws_noise: ClassVar[bool] = True
    #: whether the pipeline enlarges the images of a base stage (``upscaled`` makes its condition of them)
    upscales: ClassVar[bool] = False
    #: whether images may have another size than the pipeline's default
    resizable: ClassVar[bool] = False
    #: whether the pipeline is a network and a scheduler, and nothing else
    alone: ClassVar[bool] = False

    def __init__(self, parts: Components) -> None:
        self.parts = parts
        self.fields = known(parts.config(self.network_part))
        self.coder = Autoencoder(parts) if parts.kind("vae") is not None else None
        self.vae: VAEConfig | None = None if self.coder is None else self.coder.config
        if parts.size is not None and not self.resizable:
            raise BootdiffError(f"the {parts.pipeline_class} makes images of one size only; leave --size out.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapter:
        return self

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of the network, an image or a latent, without the batch."""

    @property
    def tokens(self) -> int | None:
        """The number of tokens of a sample in a transformer; None where the noise schedule does not depend on it."""
        return None

    def check(self, scheduler: SchedulerConfig) -> None:
        """Refuse a network and a scheduler that do not fit each other.

        Raises:
            BootdiffError: if they do not fit; the message names the field met.
        """
        return None

    def schedule(self, schedule: Schedule) -> Schedule:
        """Return the schedule with its timesteps as this network takes them."""
        return schedule

    def load(self) -> nn.Module:
        """Load the teacher's denoising network and return it."""
        import diffusers

        return self.parts.network(self.network_part, getattr(diffusers, self.network_class))

    # --- answering ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def call(self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the network's prediction, (b, *shape), without a learned variance."""

    # --- conditions --------------------------------------------------------------------------------------------------

    #: the number of classes, and the label that stands for "no class"
    classes: int = 0
    null_class: int | None = None

    @property
    def embedded_weight(self) -> float | None:
        """The usual weight of a network that is told one as an input; None for any other network."""
        return self.usual_weight if self.guidance == "embedded" else None

    def blank(self, batch: int) -> Condition:
        """Return a condition of zeros for a batch, in the right shapes, to try a network or to measure it."""
        if self.takes == "classes":
            return Condition({"classes": torch.zeros(batch, dtype=torch.long)})
        return Condition()

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Return the embeddings of prompts; ``pipeline`` is the stock pipeline without its network."""
        raise NotImplementedError(f"{type(self).__name__} takes no prompts")

    def stand_in(self) -> Any:
        """Return what takes the network's place in the pipeline that encodes prompts; None for nothing."""
        return None

    def encode_negative(self, pipeline: Any, prompt: str | None) -> Condition:
        """Return the condition that guidance leads away from, a batch of one; None stands for the empty prompt."""
        return self.encode(pipeline, [prompt or ""])

    # --- growing -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def clocks(self, network: nn.Module) -> Sequence[Clock]:
        """Return every place where the network takes its time; the target time is embedded as at the first of them."""

    def weight_clock(self, network: nn.Module) -> Clock | None:
        """Return the place where the network takes a guidance weight that can be folded; None where there is none."""
        return None

    def trainable(self, network: nn.Module, guided: bool) -> nn.Module:
        """Return a copy of the network in float32 to be trained.

        ``guided`` asks for the stock slot of the guidance weight, where there is one.
        """
        return copy.deepcopy(network).float().requires_grad_(True)

    # --- images ------------------------------------------------------------------------------------------------------

    @property
    def latent(self) -> bool:
        """Whether samples of the network are latents, not images."""
        return self.parts.kind("vae") is not None

    @property
    def factor(self) -> int:
        """The number of times by which the side of a latent is smaller than that of its image; 1 without latents."""
        return 2 ** (len(self.vae.block_out_channels) - 1) if self.vae is not None else 1

    def side(self, usual: int, patch: int = 1) -> int:
        """Return the side of a latent: the pipeline's usual one, or that of the images asked for.

        Raises:
            BootdiffError: for a size that latents and patches do not divide evenly.
        """
        size, unit = self.parts.size, self.factor * patch
        if size is None:
            return usual
        if size < unit or size % unit:
            raise BootdiffError(
                f"--size {size}: expected a multiple of {unit} pixels for the {self.parts.pipeline_class}."
            )
        return size // self.factor

    def release_decoder(self) -> None:
        """Forget the decoder, so that its memory can be used again."""
        if self.coder is not None:
            self.coder.release()

    @torch.no_grad()
    def decode(self, sample: Tensor) -> Tensor:
        """Return images (b, c, h, w) in [−1, 1] and float32 from samples of the network."""
        return sample if self.coder is None else self.coder.decode(sample)

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Return samples of the network from images (b, c, h, w) in [−1, 1].

        This is the inverse of ``decode``, as far as there is one.
        """
        return images if self.coder is None else self.coder.encode(images)

    # --- what the export asks of this kind of pipeline ---------------------------------------------------------------

    #: the call of the exported pipeline, where it differs from the usual one for what it takes (``export/card.py``)
    usage: str | None = None
    #: what a caller must know of the pipeline, a sentence for the model card
    remark: str = ""
    #: the lines of code that the model card needs before that call
    prepare: str = ""
    #: the absent components that must be given as None when the stock pipeline is opened, as its model card shows
    absent: tuple[str, ...] = ()

    def scheduler(self, call: StockCall, limit: Limit, t_max: float) -> Any:
        """Return the stock scheduler with which this kind of pipeline runs, of those that ``call`` can make.

        Raises:
            BootdiffError: if no scheduler can compute this call.
        """
        return call.scheduler("DDIMScheduler", limit, t_max)

    def rescale(self, network: nn.Module, input_scale: float, output_scale: float) -> None:
        """Change the weights so that the network gives ``output_scale · network(input_scale · x)``.

        Raises:
            BootdiffError: if this kind of network cannot be changed in this way.
        """
        raise BootdiffError(
            f"the input and output of a {self.network_class} with this scheduler cannot be scaled for export."
        )

    def stock(self, network: nn.Module, scheduler: Any) -> Any:
        """Return the stock pipeline around a student's folded network, all of it in float32.

        In half precision the network's rounding would be multiplied by 1 / alpha, and stock diffusers would load its
        parts in several precisions; whoever wants it smaller says so when loading.
        """
        return self.parts.pipeline(torch.float32, **{self.network_part: network, "scheduler": scheduler})


#: the longest side of a sample: no weight says how large images are, and a batch of larger ones fits no memory
LONGEST_SIDE = 4096
#: the type of one side of a sample, and that of diffusers' ``sample_size``: one side, or (height, width)
Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
Size = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]


def known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the fields that are None, for which the defaults of its class hold."""
    return {key: value for key, value in config.items() if value is not None}


def weight_embedding(weight: Tensor, width: int) -> Tensor:
    """Return the embedding that stock pipelines make of a guidance weight w (b,), of w − 1: (b, width) in float32."""
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding((weight.float() - 1) * 1000, width, flip_sin_to_cos=False, downscale_freq_shift=1)


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the precision in which a network runs."""
    return next(network.parameters()).dtype


def square(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) from diffusers' ``sample_size``."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
