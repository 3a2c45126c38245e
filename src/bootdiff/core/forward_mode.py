"""Derivatives by forward mode: a function and its derivative by one number in one call, and gradients through both.

PyTorch's forward-mode automatic differentiation carries a tangent along with every value. A few of its operations
cannot do that, or lose the gradients of the tangent; within a call they are computed by others (``PLAIN``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bootdiff.core.errors import BootdiffError, first_line


def with_derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values (b, ...) of a function at t (b,), and their derivatives by t; gradients pass through both.

    Args:
        function: of times (b,), each of which acts on its own sample only.

    Raises:
        BootdiffError: if a network within has an operation that carries no tangents.
    """
    try:
        with forward_ad.dual_level(), _Plain():
            value, tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(t, torch.ones_like(t))))
    except NotImplementedError as error:
        raise BootdiffError(
            f"the derivative by t needs forward mode, which an operation of the network has not ({first_line(error)}); "
            "take solver=euler."
        ) from error
    return value, torch.zeros_like(value) if tangent is None else tangent


def has_tangent(value: object) -> bool:
    """Return whether a value carries a tangent, so that what made it was computed together with its derivative."""
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _functional_softmax(
    x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    return _softmax(x, -1 if dim is None else dim, dtype)


def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    raised = (x - x.detach().amax(dim, keepdim=True)).exp()
    return raised / raised.sum(dim, keepdim=True)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        bias = torch.where(attn_mask, 0.0, -torch.inf).to(scores) if attn_mask.dtype == torch.bool else attn_mask
        scores = scores + bias
    return functional.dropout(_softmax(scores, -1), dropout_p) @ value


def _laid_out(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a norm that lays out its input anew; a copy lays out the tangent, too, where ``contiguous`` does not."""
    return lambda x, *args, **words: norm(x.clone(memory_format=torch.contiguous_format), *args, **words)


#: what stands for operations that have no tangent, that lose its gradients, or that ask how its values lie in memory
PLAIN: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attention,
    functional.softmax: _functional_softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    functional.group_norm: _laid_out(functional.group_norm),
    functional.layer_norm: _laid_out(functional.layer_norm),
}


class _Plain(TorchFunctionMode):
    """Puts other operations in the place of those of ``PLAIN``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return PLAIN.get(func, func)(*args, **(kwargs or {}))
