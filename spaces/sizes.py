"""The values of a space's decisions in the order of what they cost, and with it the largest and the smallest subnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cost import CostModel
from .space import Arch


class Sizes:
    """What is large and what is small in a space.

    A value is larger than another if the network costs more with it: FLOPs, then parameters, where the other decisions
    have their largest values, so that a block which a small depth leaves out counts as well. Where neither differs (an
    activation), the order is that of numbers, or the YAML's.

    Attributes
    ----------
    ranked
        Label to the decision's values, the smallest first.
    largest, smallest
        The archs with the largest and the smallest value of every decision. Of a searchable block's values that cost
        the same it is the one that upstream builds, if it is among them.
    """

    def __init__(self, cost: CostModel) -> None:
        self.cost, self._upstream = cost, cost.space.upstream()
        arch = dict(self._upstream)
        # Twice: what is cheap in a shallow block of few channels may be dear in a deep one of many.
        for _ in range(2):
            for label in cost.labels:
                arch[label] = self._chosen(label, self._costs(label, arch), max)
        costs = {label: self._costs(label, arch) for label in cost.labels}
        self.largest: Arch = arch
        self.smallest: Arch = {label: self._chosen(label, costs[label], min) for label in cost.labels}
        self.ranked: dict[str, tuple[Any, ...]] = {
            label: tuple(sorted(values, key=lambda v: (costs[label][v], _place(values, v))))
            for label, values in cost.values.items()
        }

    def _costs(self, label: str, arch: Arch) -> Mapping[Any, tuple[int, int]]:
        """FLOPs and parameters with each value of a decision."""
        values = self.cost.values[label]
        costs = self.cost.batch(self.cost.indices({**arch, label: value} for value in values))
        return dict(zip(values, zip(costs["flops"].tolist(), costs["params"].tolist(), strict=True), strict=True))

    def _chosen(self, label: str, costs: Mapping[Any, tuple[int, int]], best: Any) -> Any:
        tied = [value for value in costs if costs[value] == best(costs.values())]
        if self._upstream[label] in tied and self.cost.space.decisions[label].has_default:
            return self._upstream[label]
        return best(tied, key=lambda v: _place(tuple(costs), v))


def _place(values: tuple[Any, ...], value: Any) -> float:
    numbers = all(isinstance(v, (int, float)) for v in values)
    return float(value) if numbers else float(values.index(value))
