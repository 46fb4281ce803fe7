"""What all cost providers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from spaces.space import Arch


class CostProvider(Protocol):
    """Tells one cost of archs, of many at a time.

    Attributes
    ----------
    name
        Of the cost: what objectives and ranges call it, and its column in ``subnets.csv``.
    unit
        Such as ``ms``; empty for a count.
    settings
        What its figures depend on beside the arch, as plain data.
    """

    name: str
    unit: str
    settings: dict[str, Any]

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """The cost of each arch, in their order."""
