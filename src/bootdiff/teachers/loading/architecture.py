"""The architecture of a network: a stock class and its config, read from a folder without its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.core.errors import BootdiffError, choose
from bootdiff.storage.files import read_json
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.components import plain
from bootdiff.teachers.loading.parts import REMAPPED
from bootdiff.teachers.loading.safety import check_files
from bootdiff.teachers.loading.shell import shell

#: the classes of diffusers that a student's network may be of; nothing else is built from a config
NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
#: the parts of a pipeline that hold such a network
PARTS = ("unet", "transformer")
#: a student may have this many times as many weights as its teacher, and in any case as many as SMALL
LARGER, SMALL = 4, 2**24


@dataclass(frozen=True)
class Architecture:
    """A network without weights.

    Args:
        kind: the name of its class in diffusers.
        fields: its config, as its file says it, or with all that its class adds.
        folder: where its config lies, for messages.
    """

    kind: str
    fields: Mapping[str, Any] = field(repr=False)
    folder: Path

    @classmethod
    def of(cls, network: Any, folder: Path = Path()) -> Architecture:
        """Return the architecture of a network of diffusers."""
        return cls(type(network).__name__, _own(plain(network.config)), folder)

    def complete(self, most: int) -> Architecture:
        """Return the architecture with all that its class adds to its config, after building it without memory.

        Args:
            most: the most weights that it may have.

        Raises:
            BootdiffError: if the config is impossible, or asks for more weights.
        """
        import diffusers

        empty = shell(getattr(diffusers, self.kind), self.folder, most=most)
        fields = _own(plain(empty.config))
        if fields.get("out_channels", 0) is None:  # DiTPipeline divides it by two
            fields["out_channels"] = fields["in_channels"]
        return Architecture(self.kind, fields, self.folder)

    def draw(self, seed: int) -> nn.Module:
        """Return the network with weights drawn by a seed; the program's own random numbers stay as they were."""
        import diffusers

        with torch.random.fork_rng(devices=[]), quietly():
            torch.manual_seed(seed)
            network: nn.Module = getattr(diffusers, self.kind).from_config(dict(self.fields))
        return network.eval()

    def describes(self, network: Any, weight_slot: bool) -> bool:
        """Return whether a network is of this architecture, perhaps with a slot for a guidance weight beside it."""
        met, asked = dict(Architecture.of(network).fields), dict(self.fields)
        if weight_slot and asked.get("time_cond_proj_dim") is None:
            met["time_cond_proj_dim"] = asked.get("time_cond_proj_dim")
        return type(network).__name__ == self.kind and met == asked

    @property
    def digest(self) -> str:
        """A hash of the class and the config, as 16 hexadecimal digits."""
        words = json.dumps([self.kind, self.fields], sort_keys=True)
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def read_architecture(name: str) -> Architecture:
    """Return the architecture in a folder with a network's ``config.json``, or in the folder of a pipeline.

    Weights beside it are not read.

    Raises:
        BootdiffError: if there is no config, its class is none of NETWORKS, or a file beside it is code.
    """
    folder = _folder(Path(name))
    check_files(folder)
    fields = read_json(folder / "config.json")
    kind = str(fields.get("_class_name", ""))
    kind = REMAPPED.get(kind, kind)
    if kind not in NETWORKS:
        met = f"the _class_name {kind:.60}" if kind else "no _class_name"
        raise BootdiffError(
            f"student: {folder / 'config.json'} has {met}; expected the config of a {' or '.join(NETWORKS)}."
        )
    return Architecture(choose(kind, NETWORKS, "network"), _own(fields), folder)


def _folder(named: Path) -> Path:
    for folder in (named, *(named / part for part in PARTS)):
        if (folder / "config.json").is_file():
            return folder
    raise BootdiffError(
        f"student: {named} holds no config.json; expected a folder with the config of a {' or '.join(NETWORKS)}."
    )


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without what diffusers notes of its own: class, version, place."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
