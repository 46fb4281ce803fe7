"""How far a file's predictions are from the network's, beside what is allowed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Of numbers that were compared, each of which may differ by the tolerance and the tolerance times its value.

    Attributes
    ----------
    largest
        Of all.
    value
        The number that differs by so much.
    used
        Share of what is allowed it, of the number that comes nearest to it; above 1 is too much.
    """

    largest: float = 0.0
    value: float = 0.0
    used: float = 0.0

    @classmethod
    def between(cls, expected: Tensor, got: Tensor, tolerance: float) -> Difference:
        """Of two tensors of one shape; what is not finite in one alone differs by infinity."""
        if not expected.numel():
            return cls()
        expected, got = expected.double().flatten(), got.double().flatten()
        difference = (expected - got).abs().nan_to_num(torch.inf)
        at = int(difference.argmax())
        used = (difference / (tolerance + tolerance * expected.abs())).max()
        return cls(float(difference[at]), float(expected[at]), float(used))

    def __or__(self, other: Difference) -> Difference:
        """Of what either was compared of."""
        further = max(self, other, key=lambda d: d.largest)
        return Difference(further.largest, further.value, max(self.used, other.used))

    def said(self, tolerance: float) -> str:
        """In words: what was found, and why it is near enough."""
        allowed = tolerance + tolerance * abs(self.value)
        return (
            f"largest difference {self.largest:.2g}, of the number {self.value:.5g}, which may differ by {allowed:.2g} "
            f"({tolerance} + {tolerance} times the number); no number takes more than {100 * self.used:.2g} % of what "
            "is allowed it"
        )
