"""From probabilities to one arch that keeps the limits."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spaces.space import Arch

from ..costs.budget import Budget

# So many archs are tried in the order of their probability. Where the limits cut deep, the first feasible one may lie
# beyond any number.
_TRIED_IN_ORDER = 5_000
_BATCH = 500
# Gains below it are rounding, which could go round in circles.
_EPSILON = 1e-9


def most_probable(probabilities: Mapping[str, Mapping[Any, float]], budget: Budget | None = None) -> Arch:
    """The arch of highest probability within the budget, decisions being independent.

    Exact where it is among the first 5,000 in the order of probability. Otherwise it is approached: from the cheapest
    arch on, the change of one decision that gains most is made, or where none does, that of two.
    """
    ranked = {label: sorted(p, key=lambda v: -p[v]) for label, p in probabilities.items()}
    if budget is None:
        return {label: values[0] for label, values in ranked.items()}
    in_order = itertools.islice(_by_probability(probabilities, ranked), _TRIED_IN_ORDER)
    return _first_feasible(in_order, budget) or _climb(probabilities, budget)


def _by_probability(
    probabilities: Mapping[str, Mapping[Any, float]], ranked: Mapping[str, Sequence[Any]]
) -> Iterator[Arch]:
    """Every arch once, the most probable first."""
    loss = {label: [-_log(probabilities[label][v]) for v in values] for label, values in ranked.items()}
    # By the step from best to second best, so that raising the next decision in place of this one is never a gain.
    labels = sorted((k for k in ranked if len(ranked[k]) > 1), key=lambda k: loss[k][1] - loss[k][0])
    steps = [[b - a for a, b in itertools.pairwise(loss[label])] for label in labels]
    first = {label: values[0] for label, values in ranked.items()}
    yield first
    # Loss, and (decision, rank) for each decision that is not at its best.
    heap: list[tuple[float, tuple[tuple[int, int], ...]]] = [(steps[0][0], ((0, 1),))] if labels else []
    while heap:
        total, raised = heapq.heappop(heap)
        yield first | {labels[i]: ranked[labels[i]][rank] for i, rank in raised}
        *before, (i, rank) = raised
        # Each has one parent: one rank lower in its last decision, or with the decision before that raised instead.
        if rank < len(steps[i]):
            heapq.heappush(heap, (total + steps[i][rank], (*before, (i, rank + 1))))
        if i + 1 < len(labels):
            heapq.heappush(heap, (total + steps[i + 1][0], (*raised, (i + 1, 1))))
            if rank == 1:
                heapq.heappush(heap, (total + steps[i + 1][0] - steps[i][0], (*before, (i + 1, 1))))


def _log(p: float) -> float:
    return math.log(max(p, 1e-300))


def _climb(probabilities: Mapping[str, Mapping[Any, float]], budget: Budget) -> Arch:
    arch = {label: value for label, value in budget.cheapest().items() if label in probabilities}
    while True:
        gains = {
            (label, value): _log(p) - _log(options[arch[label]])
            for label, options in probabilities.items()
            for value, p in options.items()
            if value != arch[label]
        }
        pairs = [(a, b) for a, b in itertools.combinations(gains, 2) if a[0] != b[0]]
        for changes in ([(change,) for change in gains], pairs):
            gain = {change: sum(map(gains.__getitem__, change)) for change in changes}
            upwards = sorted((c for c in gain if gain[c] > _EPSILON), key=lambda c: -gain[c])
            better = _first_feasible(({**arch, **dict(change)} for change in upwards), budget)
            if better is not None:
                break
        else:
            return arch
        arch = better


def _first_feasible(archs: Iterator[Arch], budget: Budget) -> Arch | None:
    size = 1  # a feasible arch is often among the first, and a latency may have to be measured
    while batch := list(itertools.islice(archs, size)):
        size = min(2 * size, _BATCH)
        for arch, fits in zip(batch, budget.feasible(batch), strict=True):
            if fits:
                return arch
    return None
