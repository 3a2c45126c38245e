"""Schedules given as a table of betas, as diffusers' schedulers store them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.schedules.base import VariancePreserving


class BetaTable(VariancePreserving):
    """A schedule with ``alpha_t² = prod(1 − beta_i)`` at t = i / (N − 1); lambda is linear between the table's entries.

    Raises:
        BootdiffError: if a beta is not in (0, 1] or the table has fewer than two entries.
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        betas = torch.as_tensor(betas).double()
        if betas.ndim != 1 or len(betas) < 2:
            raise BootdiffError(f"a beta table needs at least two entries, got shape {tuple(betas.shape)}.")
        if not bool(((betas > 0) & (betas <= 1)).all()):
            raise BootdiffError("every beta must lie in (0, 1]; the schedule's table has one that does not.")
        self.num_timesteps = len(betas)
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        self.table = 0.5 * (torch.log1p(-alphas_cumprod) - torch.log(alphas_cumprod))
        self.finite = bool(torch.isfinite(self.table).all())
        self.copies: dict[torch.device, Tensor] = {self.table.device: self.table}

    def log_sigma_over_alpha(self, t: Tensor) -> Tensor:
        """Return lambda_t by linear interpolation of the table."""
        if t.device not in self.copies:  # copied once: a copy at each call would make a GPU wait
            self.copies[t.device] = self.table.to(t.device)
        table = self.copies[t.device]
        position = t.clamp(0, 1) * (self.num_timesteps - 1)
        low = position.long().clamp_(max=self.num_timesteps - 2)
        weight = position - low
        if self.finite:
            return torch.lerp(table[low], table[low + 1], weight)
        # At a table whose last entry is infinite (zero terminal SNR) that would give inf · 0 = nan.
        between = table[low] * (1 - weight) + table[low + 1] * weight
        return torch.where(weight == 0, table[low], torch.where(weight == 1, table[low + 1], between))
