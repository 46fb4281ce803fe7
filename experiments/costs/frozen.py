"""Costs of networks that no YAML describes: counted on the network that an arch means, one after another."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.complexity import count_flops, count_params
from models.errors import InputError
from spaces.hub import NetworkSpace
from spaces.space import Arch

from .limits import Limits


class FrozenCosts:
    """Parameters and FLOPs (2 x MACs, at the space's images) of archs of a model space; counted once each."""

    names = ("params", "flops")

    def __init__(self, space: NetworkSpace) -> None:
        self.space = space
        self._of = functools.lru_cache(maxsize=100_000)(self._count)

    def of(self, arch: Mapping[str, Any]) -> dict[str, int]:
        """``params`` and ``flops`` of an arch."""
        return dict(zip(self.names, self._of(tuple(self.space.complete(arch).items())), strict=True))

    def _count(self, items: tuple[tuple[str, Any], ...]) -> tuple[int, int]:
        with torch.random.fork_rng(devices=[]):  # its weights are drawn
            network = self.space.network(dict(items))
        return count_params(network), count_flops(network, self.space.imgsz)


class FrozenBudget:
    """Hard limits on `FrozenCosts`, for the strategies; there is no gradient of these, so no target.

    Raises
    ------
    InputError
        No arch was found within the limits; says what the cheapest that was found costs.
    """

    target = None

    def __init__(self, costs: FrozenCosts, limits: Limits) -> None:
        self.costs, self.limits = costs, limits
        self._cheapest = self._least()
        if not limits.fits(found := costs.of(self._cheapest)):
            raise InputError(f"no arch was found that keeps all limits; the nearest has {limits.violated(found)}")

    def _least(self) -> Arch:
        """One decision after another at what costs least, the others as they are."""
        arch = self.costs.space.first()

        def share(arch: Arch) -> float:
            costs = self.costs.of(arch)
            return max(costs[name] / limit for name, limit in self.limits.given.items())

        for label, decision in self.costs.space.decisions.items():
            changed = [{**arch, label: value} for value in decision.values]
            arch = min((a for a in changed if self.costs.space.is_valid(a)), key=share, default=arch)
        return arch

    def feasible(self, archs: Sequence[Arch]) -> list[bool]:
        """Whether each arch is within the limits."""
        full = [{**self._cheapest, **arch} for arch in archs]
        return [self.costs.space.is_valid(a) and bool(self.limits.fits(self.costs.of(a))) for a in full]

    def cheapest(self) -> Arch:
        """The cheapest arch that was found."""
        return dict(self._cheapest)

    def penalty(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Nothing."""
        return torch.zeros(())
