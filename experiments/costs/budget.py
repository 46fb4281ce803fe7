"""What an arch may cost: hard limits and a soft target, on the costs of the whole detector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.errors import InputError
from spaces import CostModel
from spaces.space import Arch

from ..run import registry
from .base import CostProvider
from .limits import Limits, Target, cheapest, neighbours

_TARGETS = ("flops", "params", "latency")


class Budget:
    """Limits and target of a search; the strategies' `Budget`.

    Parameters
    ----------
    model
        Costs of the detector that an arch gives.
    limits, target
        Hard and soft.
    latency
        Tells the latency of whole archs, where `model` does not; of those alone that keep the other limits.

    Raises
    ------
    InputError
        If no arch is within the limits; says what the nearest costs.
    """

    def __init__(
        self, model: CostModel, limits: Limits, target: Target | None = None, latency: CostProvider | None = None
    ) -> None:
        self.model, self.limits, self.target = model, limits, target
        self._latency = latency if limits.max_latency is not None else None
        self._composed = limits if self._latency is None else replace(limits, max_latency=None)
        self._cheapest = cheapest(model, self._composed)
        costs, known = model.of(self._cheapest), self._composed
        if self._latency is not None and known.fits(costs):
            self._cheapest, told = self._fast_enough(self._latency)
            costs, known = {**model.of(self._cheapest), "latency": told}, limits
        if not known.fits(costs):
            raise InputError(f"no arch was found that keeps all limits; the nearest has {known.violated(costs)}")

    def _fast_enough(self, latency: CostProvider) -> tuple[Arch, float]:
        """The fastest of the archs that are the least in something, or what changes of one decision make of it.

        They are made until it is within the limit, or none is faster: what computes least need not be fastest.
        """
        arch, fastest = self._cheapest, math.inf
        tried = [arch, *(self.model.least({name: 1.0}) for name in self.model.names)]
        while fastest > (self.limits.max_latency or 0):
            within = [a for a in tried if self._composed.fits(self.model.of(a))]
            told = latency(within)
            if min(told, default=math.inf) >= fastest:
                break
            fastest = min(told)
            arch = within[told.index(fastest)]
            tried = neighbours(self.model, arch)
        return arch, fastest

    def feasible(self, archs: Sequence[Arch]) -> list[bool]:
        """Whether each arch is within the hard limits."""
        full = [{**self._cheapest, **arch} for arch in archs]
        fits = [True] * len(archs)
        if self._composed.any:
            fits = self._composed.fits(self.model.batch(self.model.indices(full))).tolist()
        if self._latency is not None:
            told = iter(self._latency([arch for arch, ok in zip(full, fits, strict=True) if ok]))
            fits = [ok and next(told) <= (self.limits.max_latency or 0) for ok in fits]
        return fits

    def cheapest(self) -> Arch:
        """The cheapest arch of all."""
        return dict(self._cheapest)

    def penalty(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """What the expected costs add to the loss of the architecture; 0 without a target."""
        return torch.zeros(()) if self.target is None else self.target.penalty(self.model.expected(probabilities))


def _counts(options: Any, model: CostModel) -> tuple[float | None, float | None]:
    """Limits on FLOPs and parameters; ``plain`` stands for those of the plain network.

    A search that is told of no limit finds the largest networks, which are better for being larger; so unless it is
    told that there is ``none``, its result has no more FLOPs than the plain network, where the strategy says so.
    """
    flops, params = options.max_flops, options.max_params
    if flops is None and params is None and options.max_latency is None:
        flops = registry.KINDS["oneshot"][options.strategy].defaults.get("max_flops")
    plain = model.of(model.space.upstream()) if "plain" in (flops, params) else {}
    told = [plain[name] if limit == "plain" else limit for name, limit in (("flops", flops), ("params", params))]
    flops, params = (None if limit == "none" else limit for limit in told)
    return flops, params


def check_target(options: Any) -> None:
    """`InputError` if there are several targets, or the strategy cannot be steered to the one."""
    given = [name for name in _TARGETS if getattr(options, f"target_{name}") is not None]
    if len(given) > 1:
        raise InputError(f"--target-{given[0]} and --target-{given[1]}: a search has one target")
    if given and options.strategy not in registry.names("oneshot", f"target_{given[0]}"):
        raise InputError(
            f"--target-{given[0]}: {options.strategy} trains without an architecture to steer; "
            f"its search takes limits, such as --max-{given[0]}"
        )


def read_budget(options: Any, model: CostModel, latency: CostProvider | None = None) -> Budget | None:
    """The budget of the options ``max_…``, ``target_…`` and ``target_weight``; None where nothing is asked for."""
    limits = Limits(*_counts(options, model), max_latency=options.max_latency)
    check_target(options)
    asked = {name: getattr(options, f"target_{name}") for name in _TARGETS}
    targets = [Target(name, value, options.target_weight) for name, value in asked.items() if value is not None]
    if latency is not None and options.target_latency is not None:
        raise InputError(
            "--target-latency: steering needs a table, of which the latency is composed block by block; right would be "
            "--costs with provider: table or roofline, or --latency-table"
        )
    target = targets[0] if targets else None
    return Budget(model, limits, target, latency) if limits.any or targets else None
