"""The guidance weight that a student learned: none, one, or every weight of a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootdiff.core.errors import BootdiffError

#: the type of a weight in Python, settings and JSON: None, one weight, or the two ends of a range
Plain = float | Sequence[float] | None


@dataclass(frozen=True)
class GuidanceWeight:
    """The guidance weight, w of Eq. 10, that a student learned.

    Args:
        low, high: the ends of the range that the student takes as an input. They are equal where one weight is fixed in
            its network, and None where it learned no guidance, which is the same as a weight of 1.
        is_range: whether the student takes the weight as an input.
    """

    low: float | None = None
    high: float | None = None
    is_range: bool = False

    @classmethod
    def of(cls, plain: Plain) -> GuidanceWeight:
        """Return the guidance weight that None, one weight, or (lowest, highest) stands for."""
        if plain is None:
            return cls()
        if isinstance(plain, Sequence):
            return cls(float(plain[0]), float(plain[1]), is_range=True)
        return cls(plain, plain)

    @property
    def plain(self) -> float | tuple[float, float] | None:
        """The guidance weight as ``of`` takes it: None, one weight, or (lowest, highest)."""
        if self.low is None or self.high is None:
            return None
        return (self.low, self.high) if self.is_range else self.low

    @property
    def as_json(self) -> float | list[float] | None:
        """The guidance weight as a JSON file holds it: None, one weight, or the list [lowest, highest]."""
        plain = self.plain
        return list(plain) if isinstance(plain, tuple) else plain

    @property
    def fixed(self) -> float | None:
        """The one weight that is fixed in the network; None where it learned no guidance or a range."""
        return None if self.is_range else self.low

    @property
    def middle(self) -> float | None:
        """The weight that is served where nobody asks for one: the range's middle, the one weight, or None."""
        return None if self.low is None or self.high is None else (self.low + self.high) / 2

    @property
    def guides(self) -> bool:
        """Whether the weight differs from 1, which is that of a network without guidance."""
        return self.plain not in (None, 1.0)

    def served(self, asked: float | None = None) -> float | None:
        """Return the weight of the images: the one asked for, or the one that was learned, or the range's middle.

        Raises:
            BootdiffError: for a weight that the student did not learn.
        """
        if self.low is not None and self.high is not None and self.is_range:
            if asked is not None and not self.low <= asked <= self.high:
                learned = f"{self.low:g} to {self.high:g}"
                raise BootdiffError(f"guidance weight {asked:g} is outside what this student learned, {learned}.")
            return self.middle if asked is None else asked
        if asked is not None and asked != (1.0 if self.low is None else self.low):
            learned = "without guidance" if self.low is None else f"at guidance weight {self.low:g} only"
            raise BootdiffError(
                f"this student learned {learned}, so it cannot serve {asked:g}; distil with --guidance-range."
            )
        return self.low

    def embedded(self, asked: float | None = None, usual: float | None = None) -> float | None:
        """Return the weight that the condition must hold; None where the network has no input for one.

        Args:
            usual: the usual weight of the pipeline, where its network has an input for a weight
                (``Adapter.embedded_weight``).

        Raises:
            BootdiffError: for a weight that the student did not learn.
        """
        served = self.served(asked)
        if usual is not None and served is None:
            return usual
        return served if usual is not None or self.is_range else None
