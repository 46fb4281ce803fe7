"""Ranges that the costs of an arch have to lie in. Loads neither torch nor NumPy: options are read with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.errors import InputError

from ..run.amounts import parse_amount


@dataclass(frozen=True)
class Range:
    """``low <= cost <= high``; latency in ms, FLOPs = 2 x MACs."""

    name: str
    low: float = -math.inf
    high: float = math.inf

    def distance(self, cost: float) -> float:
        """How far `cost` is outside, as a share of the bound; 0 inside. What is no number is infinitely far."""
        if math.isnan(cost):
            return math.inf
        if cost < self.low:
            return (self.low - cost) / self.low
        return (cost - self.high) / self.high if cost > self.high else 0.0


def parse_range(text: str) -> Range:
    """``flops=200M:400M``; either end may be left out.

    Raises
    ------
    InputError
        Says what it should look like.
    """
    name, _, bounds = text.partition("=")
    low, colon, high = bounds.partition(":")
    if not name.strip() or not colon or not (low.strip() or high.strip()):
        raise InputError(f"{text!r} is no range; right would be flops=200M:400M, flops=:400M or latency=5ms:")
    found = Range(
        name.strip(),
        parse_amount(low, name.strip()) if low.strip() else -math.inf,
        parse_amount(high, name.strip()) if high.strip() else math.inf,
    )
    if found.low > found.high:
        raise InputError(f"{text!r}: the lower end is above the upper one")
    return found
