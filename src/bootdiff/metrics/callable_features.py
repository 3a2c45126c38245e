"""Feature spaces that are functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError, first_line, shown
from bootdiff.system.out_of_memory import let_pass


class CallableFeatures:
    """The feature space of a function from images (b, *shape), as a teacher makes them, to features (b, d).

    Args:
        function: the function; a module is set to evaluation mode, and moved to where the images are.
        name: the space's name, which is kept beside every figure; another function should have another name.

    Raises:
        BootdiffError: if ``function`` cannot be called.
    """

    #: the images' shape is the function's own affair
    shape = None
    knows_labels = False
    #: whether arrays that are no pictures may be shown to it
    takes_any_shape = True
    #: whether its name says all that it depends on, so that figures may be kept by it
    lasting = False

    def __init__(self, function: Callable[[Tensor], Tensor], name: str | None = None) -> None:
        if not callable(function):
            raise BootdiffError(f"a feature space expects a function of images, got {shown(function)}.")
        self.function = function.eval() if isinstance(function, nn.Module) else function
        self.name = name or str(getattr(function, "__qualname__", type(function).__name__))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the function's features of images (b, *shape), (b, d) in float32.

        Raises:
            BootdiffError: if the function raises an error, or returns no such tensor.
        """
        if isinstance(self.function, nn.Module):
            self.function.to(images.device)
        try:
            found = self.function(images)
        except (Exception, SystemExit) as error:  # somebody else's function may raise anything
            let_pass(error)
            raise BootdiffError(f"features {self.name} raised {type(error).__name__}: {first_line(error)}.") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.shape[1]:
            got = tuple(found.shape) if isinstance(found, Tensor) else shown(found)
            raise BootdiffError(f"features {self.name} should be a tensor ({len(images)}, d) with d ≥ 1, got {got}.")
        return found.float()

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, d), and None, because a function of one's own gives no logits."""
        return self(images), None
