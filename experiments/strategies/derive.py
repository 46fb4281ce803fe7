"""From probabilities to one arch that keeps the limits."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

Arch = dict[str, Any]


class Budget(Protocol):
    """Hard limits and a soft target for the costs of an arch."""

    def feasible(self, archs: Sequence[Arch]) -> Sequence[bool]:
        """Whether each arch is within the hard limits."""

    def cheapest(self) -> Arch:
        """An arch within the hard limits, the cheapest of all."""

    def penalty(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """What the expected costs add to the loss of the architecture, differentiable; 0 without a target."""


# So many archs are tried in the order of their probability. Where the limits cut deep, the first feasible one may lie
# beyond any number.
_TRIED_IN_ORDER = 5_000
_BATCH = 500


def most_probable(probabilities: Mapping[str, Mapping[Any, float]], budget: Budget | None = None) -> Arch:
    """The arch of highest probability within the budget, decisions being independent.

    Exact where it is among the first 5,000 in the order of probability. Otherwise it is approached: from the cheapest
    arch on, the change of one decision that gains most is made as long as one does.
    """
    ranked = {label: sorted(p, key=lambda v: -p[v]) for label, p in probabilities.items()}
    if budget is None:
        return {label: values[0] for label, values in ranked.items()}
    in_order = itertools.islice(_by_probability(probabilities, ranked), _TRIED_IN_ORDER)
    while archs := list(itertools.islice(in_order, _BATCH)):
        for arch, fits in zip(archs, budget.feasible(archs), strict=True):
            if fits:
                return arch
    return _climb(probabilities, budget)


def _by_probability(
    probabilities: Mapping[str, Mapping[Any, float]], ranked: Mapping[str, Sequence[Any]]
) -> Iterator[Arch]:
    """Every arch once, the most probable first."""
    labels = list(ranked)
    loss = [[-_log(probabilities[label][v]) for v in ranked[label]] for label in labels]
    # By the step from best to second best, an arch's successors never come before it.
    order = sorted(range(len(labels)), key=lambda i: loss[i][1] - loss[i][0] if len(loss[i]) > 1 else math.inf)
    loss = [loss[i] for i in order]
    heap: list[tuple[float, tuple[int, ...], int]] = [(0.0, (0,) * len(labels), 0)]
    while heap:
        total, ranks, last = heapq.heappop(heap)
        yield {labels[i]: ranked[labels[i]][r] for i, r in zip(order, ranks, strict=True)}
        # Each rank vector has one parent: its last non-zero rank, one lower.
        for i in range(last, len(labels)):
            if ranks[i] + 1 < len(loss[i]):
                raised = (*ranks[:i], ranks[i] + 1, *ranks[i + 1 :])
                heapq.heappush(heap, (total + loss[i][ranks[i] + 1] - loss[i][ranks[i]], raised, i))


def _log(p: float) -> float:
    return math.log(max(p, 1e-300))


def _climb(probabilities: Mapping[str, Mapping[Any, float]], budget: Budget) -> Arch:
    arch = {label: value for label, value in budget.cheapest().items() if label in probabilities}
    while True:
        gains = {
            (label, value): _log(p) - _log(options[arch[label]])
            for label, options in probabilities.items()
            for value, p in options.items()
            if p > options[arch[label]]
        }
        changed = [{**arch, label: value} for label, value in sorted(gains, key=lambda change: -gains[change])]
        if not changed:
            return arch
        better = [a for a, fits in zip(changed, budget.feasible(changed), strict=True) if fits]
        if not better:
            return arch
        arch = better[0]
