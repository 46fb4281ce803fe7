"""What an arch may cost, and what it is wanted to cost. Loads no torch: options are read with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from spaces import CostModel

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_WORDS = {"flops": "FLOPs", "params": "parameters", "activations": "activations", "latency": "latency"}


def parse_amount(text: str) -> float:
    """A positive number with or without a unit: ``4.5G`` is 4.5e9, ``2M`` is 2e6; times are in ms, ``0.5s`` is 500.

    Raises
    ------
    InputError
        Says which units there are.
    """
    match = _AMOUNT.fullmatch(text)
    scale = {**_COUNTS, **_MILLISECONDS}.get(match[2].lower()) if match else None
    value = float(match[1]) * scale if match and scale else 0.0
    if not 0 < value < math.inf:
        raise InputError(f"{text!r} is no amount; right would be a positive number such as 4.5G, 2M, 300k or 8ms")
    return value


def written(name: str, value: float) -> str:
    """`value` of the cost `name` to be read by people."""
    if name == "latency":
        return f"{value:.4g} ms"
    for letter, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.4g}{letter}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Limits:
    """Upper limits of an arch's costs, None where there is none; FLOPs are 2 x MACs, latency is in ms.

    `costs` are what `spaces.CostModel` gives: of one arch numbers, of B archs arrays (B,).
    """

    max_flops: float | None = None
    max_params: float | None = None
    max_activations: float | None = None
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
        result: Any = True
        for name, limit in self.given.items():
            result = result & (_cost(costs, name) <= limit)
        if result is True:
            first = next(iter(costs.values()))
            result = first == first
        return result

    def violated(self, costs: Mapping[str, Any]) -> str:
        """Which limits one arch's costs are beyond, in one line; empty if none."""
        return ", ".join(
            f"{_WORDS[name]} {_apart(name, costs[name], limit)}"
            for name, limit in self.given.items()
            if _cost(costs, name) > limit
        )


def _apart(name: str, cost: float, limit: float) -> str:
    shown = written(name, cost), written(name, limit)
    # The limit may be missed by less than is shown.
    return f"{shown[0]} > {shown[1]}" if shown[0] != shown[1] else f"{cost:,} > {limit:,}"


def _cost(costs: Mapping[str, Any], name: str) -> Any:
    if name not in costs:
        raise InputError(f"a limit or target of the {name} needs a table of latencies (--latency-table)")
    return costs[name]


def cheapest(model: CostModel, limits: Limits) -> dict[str, Any]:
    """The arch that is farthest within the limits, as a share of the one that is nearest to being broken.

    With one limit, or where the costs go together, it is the cheapest arch there is. Where that of one cost is not that
    of another, it is approached from both, one decision at a time.

    Raises
    ------
    InputError
        If a limit is below the least that any arch costs, which it names.
    """
    given = limits.given or {"flops": math.inf}
    starts = []
    for name, limit in given.items():
        if name not in model.names:
            _cost({}, name)
        starts.append(model.least(name))
        least = model.of(starts[-1])[name]
        if least > limit:
            raise InputError(
                f"--max-{name} {written(name, limit)}: no arch keeps it, the least possible is "
                f"{_apart(name, least, limit).split(' > ')[0]}"
            )
    return min((_descend(model, given, arch) for arch in starts), key=lambda arch: _share(model.of(arch), given))


def _share(costs: Mapping[str, Any], given: Mapping[str, float]) -> Any:
    """The largest part of a limit that is used up; (B,) for arrays."""
    import numpy as np

    return np.max([np.asarray(costs[name]) / limit for name, limit in given.items()], axis=0)


def _descend(model: CostModel, given: Mapping[str, float], arch: dict[str, Any]) -> dict[str, Any]:
    while len(given) > 1:
        changed = [{**arch, k: v} for k, values in model.values.items() for v in values if v != arch[k]]
        if not changed:
            break
        shares = _share(model.batch(model.indices(changed)), given)
        if shares.min() >= _share(model.of(arch), given):
            break
        arch = changed[int(shares.argmin())]
    return arch


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

        The absolute reward of TuNAS (Bender et al. 2020, arXiv:2008.06120, section 3.2) on the differentiable
        expectation of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332, section 3.3.1). It is two-sided: a network below
        the target is as little wanted as one above it, since larger ones tend to be better, and what no network may
        exceed is a limit. In contrast to FBNet's and ProxylessNAS' terms, which grow with the cost wherever it is, its
        weight need not be tuned anew for every target: from some weight on the target is met.
        """
        return self.weight * (_cost(expected, self.name) / self.value - 1).abs()
