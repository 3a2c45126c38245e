"""What is switched on in diffusers networks before they train: compilation and gradient checkpointing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import torch
from torch import nn

from bootdiff.core.errors import BootdiffError


def checkpoint_networks(modules: Sequence[nn.Module]) -> None:
    """Make every diffusers network in the modules compute its activations twice instead of keeping them.

    Raises:
        BootdiffError: if one of them cannot do so, or there is none.
    """
    from diffusers import ModelMixin

    networks = [part for module in modules for part in module.modules() if isinstance(part, ModelMixin)]
    for network in networks:
        if not network._supports_gradient_checkpointing:
            raise BootdiffError(f"a {type(network).__name__} has no gradient checkpointing; leave it out.")
        network.enable_gradient_checkpointing()
    if not networks:
        raise BootdiffError("gradient_checkpointing is for diffusers networks; this student is none, so leave it out.")


def compile_networks(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Compile every diffusers network in the modules, in place, and return them.

    Modules of other kinds run as they are.

    Raises:
        BootdiffError: if there is no compiler.
    """
    from diffusers import ModelMixin

    compilers = ("g++", "clang++", "c++", os.environ.get("CXX", "g++"))
    if not torch.cuda.is_available() and not any(shutil.which(compiler) for compiler in compilers):
        raise BootdiffError("compile=true needs a C++ compiler, found none; install g++, or leave compile out.")
    networks = [part for module in modules for part in module.modules() if isinstance(part, ModelMixin)]
    for network in networks:
        # On a CPU, torch 2.13's layout optimisation gives convolutions gradients that are zero (docs/log.md).
        network.compile(options={"layout_optimization": torch.cuda.is_available()})
    return networks
