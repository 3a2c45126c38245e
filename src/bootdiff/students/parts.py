"""The pipeline around an unfolded student: its own parts, and those that it takes from its export or its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootdiff.storage.files import read_json
from bootdiff.storage.runs import Run
from bootdiff.students.card import StudentCard
from bootdiff.teachers.adapters import adapter_for
from bootdiff.teachers.loading.hub import resolve_pipeline
from bootdiff.teachers.loading.load import DTYPES
from bootdiff.teachers.loading.parts import Parts
from bootdiff.teachers.loading.weights import aligned, load_network

#: the component that lies beside the network of a student whose teacher has none: an autoencoder that changes nothing
BESIDE = "vae"


class StudentParts(Parts):
    """The components of an unfolded student: its own network and scheduler, the rest from its export or teacher.

    Args:
        path: the student's folder.
        card: the student's card.
    """

    def __init__(self, path: Path, card: StudentCard) -> None:
        self.path, origin = path, card.origin
        kind = adapter_for(str(card.pipeline), f"{path} is the student of a {card.pipeline}")
        exported, dtype = Run(path.parent).student, DTYPES[origin.dtype]
        if kind.alone:  # nothing but the network and the scheduler, which are here
            network = {kind.network_part: ["diffusers", kind.network_class]}
            super().__init__(path, None, torch.float32, origin.size, network)
        elif (path / BESIDE).is_dir():
            index = {kind.network_part: ["diffusers", kind.network_class], BESIDE: ["diffusers", "AutoencoderKL"]}
            super().__init__(path, None, torch.float32, origin.size, index)
        elif (exported / "model_index.json").is_file():
            super().__init__(exported, None, dtype, origin.size)
        else:
            folder = resolve_pipeline(Run.around(path).locate(origin.name), origin.revision, origin.variant)
            super().__init__(folder, origin.variant, dtype, origin.size)
        self.index["_class_name"] = card.pipeline

    @property
    def beside(self) -> Any:
        """The autoencoder that lies beside the student's network, where its teacher has none."""
        return self.load(BESIDE) if (self.path / BESIDE).is_dir() else None

    def where(self, part: str) -> Path:
        """Return a component's folder: that in the student's own folder if it is there."""
        own = self.path / part
        return own if own.is_dir() else super().where(part)

    def network(self, part: str, kind: type[Any]) -> nn.Module:
        """Return the student's network, in float32."""
        return aligned(load_network(kind, self.where(part)))

    @property
    def scheduler(self) -> dict[str, Any]:
        """The config of the teacher's scheduler, which lies beside the network.

        The index of the export names another scheduler, that of the export.
        """
        return read_json(self.where("scheduler") / "scheduler_config.json")
