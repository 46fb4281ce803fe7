"""What an arch may cost, and what it is wanted to cost. Loads no torch: options are read with it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from models.errors import InputError

from ..run.amounts import COSTS, written

if TYPE_CHECKING:
    from torch import Tensor

    from spaces import CostModel

# Weighted sums of costs are taken in steps of one to so many.
_SHARES = 4


@dataclass(frozen=True)
class Limits:
    """Upper limits of an arch's costs, None where there is none; FLOPs are 2 x MACs, latency is in ms.

    `costs` are what `spaces.CostModel` gives: of one arch numbers, of B archs arrays (B,).
    """

    max_flops: float | None = None
    max_params: float | None = None
    max_latency: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """Name of a cost to its limit, where there is one."""
        limits = {f.name.removeprefix("max_"): getattr(self, f.name) for f in fields(self)}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return bool(self.given)

    def fits(self, costs: Mapping[str, Any]) -> Any:
        """Whether costs are within the limits: bool, or (B,) bool."""
        result = next(iter(costs.values())) < math.inf  # of the right shape, also where there is no limit
        for name, limit in self.given.items():
            result = result & (_cost(costs, name) <= limit)
        return result

    def violated(self, costs: Mapping[str, Any]) -> str:
        """Which limits one arch's costs are beyond, in one line; empty if none."""
        return ", ".join(
            f"{COSTS[name]} {' > '.join(_apart(name, costs[name], limit))}"
            for name, limit in self.given.items()
            if _cost(costs, name) > limit
        )


def _apart(name: str, cost: float, limit: float) -> tuple[str, str]:
    """Both as text that shows their difference."""
    short = written(name, cost), written(name, limit)
    if short[0] != short[1]:
        return short
    return (f"{cost:.9g} ms", f"{limit:.9g} ms") if name == "latency" else (f"{cost:,.0f}", f"{limit:,.0f}")


def _cost(costs: Mapping[str, Any], name: str) -> Any:
    if name not in costs:
        raise InputError(f"a limit or target of the {name} needs something that tells it (--costs or --latency-table)")
    return costs[name]


def cheapest(model: CostModel, limits: Limits) -> dict[str, Any]:
    """The arch of which the limit that it comes nearest to is the farthest away; without limits that of least FLOPs.

    With one limit it is the cheapest arch there is, exactly. With several it is the best of those that are cheapest by
    some weighted sum of the costs, and of what changes of one decision make of it.

    Raises
    ------
    InputError
        If a limit is below the least that any arch costs, which it names.
    """
    given = limits.given or {"flops": 1.0}
    for name, limit in limits.given.items():
        _cost(dict.fromkeys(model.names), name)
        least = model.of(model.least({name: 1.0}))[name]
        if least > limit:
            least_text, limit_text = _apart(name, least, limit)
            raise InputError(f"--max-{name} {limit_text}: no arch keeps it, the least possible is {least_text}")

    def share(costs: Mapping[str, Any]) -> Any:
        return functools.reduce(_larger, (costs[name] / limit for name, limit in given.items()))

    splits = [s for s in itertools.product(range(_SHARES + 1), repeat=len(given)) if sum(s) == _SHARES]
    weights = [{n: k / given[n] for n, k in zip(given, split, strict=True) if k} for split in splits]
    arch = min((model.least(w) for w in weights), key=lambda arch: float(share(model.of(arch))))
    while len(given) > 1:
        changed = neighbours(model, arch)
        shares = share(model.batch(model.indices(changed))).tolist()
        if min(shares, default=math.inf) >= share(model.of(arch)):
            break
        arch = changed[shares.index(min(shares))]
    return arch


def neighbours(model: CostModel, arch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The archs that differ from `arch` in one decision."""
    return [{**arch, k: v} for k, values in model.values.items() for v in values if v != arch[k]]


def _larger(a: Any, b: Any) -> Any:
    return a + (b - a) * (b > a)


@dataclass(frozen=True)
class Target:
    """A cost that a search is steered to.

    Parameters
    ----------
    name
        ``flops``, ``params``, ``activations`` or ``latency``.
    value
        What it is to be; latency in ms.
    weight
        Of the penalty beside the loss.
    """

    name: str
    value: float
    weight: float = 1.0

    def penalty(self, expected: Mapping[str, Tensor]) -> Tensor:
        """``weight * |E[cost] / value - 1|``, for costs as `spaces.CostModel.expected` gives them.

        TuNAS' absolute reward function (Bender et al. 2020, arXiv:2008.06120) on ProxylessNAS' differentiable
        expectation (Cai et al. 2019, arXiv:1812.00332, section 3.3.1). It is two-sided: a target is what a network may
        cost, and one that stays below it gives accuracy away; what none may exceed is a limit. The terms of FBNet and
        ProxylessNAS push wherever the cost is, so their weight decides where the search ends, and is to be tuned by
        whole searches; with this one the search ends at the target, whatever the weight, once it is large enough.
        """
        return self.weight * (_cost(expected, self.name) / self.value - 1).abs()
