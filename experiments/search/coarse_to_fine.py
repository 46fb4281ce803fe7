"""Coarse-to-fine selection, as BigNAS searches its supernet (Yu et al. 2020, arXiv:2003.11142, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .attentive import best_of_bins
from .base import Question, Searcher, check_positive
from .domain import Domain, Indices
from .grid import arch_of, coprime

_LEVELS = 3
_TRIES = 20


class CoarseToFine(Searcher):
    """First skeletons: all decisions of a kind at one level (least, middle, largest). Then the best of them, varied.

    The skeletons are the grid of levels over `Domain.groups`, gone through evenly where there are more than may be
    evaluated. Afterwards the best arch of a bin of the cost is taken, and each of its decisions goes one value up or
    down with some probability, so that the cost stays near.

    Parameters
    ----------
    coarse
        Share of the budget for the skeletons, at most.
    bins
        Of the cost, which is the second objective.
    probability
        Of each decision to change.
    reach
        Change of the cost that is allowed, as a share.
    """

    def __init__(self, coarse: float = 0.3, bins: int = 20, probability: float = 0.15, reach: float = 0.15) -> None:
        self.coarse, self.bins, self.probability, self.reach = coarse, bins, probability, reach
        check_positive(bins=bins)

    def propose(self, question: Question) -> Indices | None:
        history, domain, rng = question.history, question.domain, question.rng
        wanted = max(round(self.coarse * history.budget), 1)
        if history.number < wanted:
            for skeleton in map(domain.canonical, skeletons(domain, wanted)):
                if skeleton not in history.seen and domain.feasible(skeleton):
                    return skeleton
        if not history.good:
            return question.draw()
        arch = history.good[rng.choice(best_of_bins(history.losses, self.bins))]
        near = self._vary(question, arch)
        if len(question.costs) > 1 and (name := question.costs[1]) is not None:
            (cost,) = domain.cost(name, [arch])
            for _ in range(_TRIES):
                if abs(domain.cost(name, [near])[0] - cost) <= self.reach * cost:
                    break
                near = self._vary(question, arch)
        return near

    def _vary(self, question: Question, arch: Indices) -> Indices:
        sizes, rng = question.domain.sizes, question.rng
        free = [i for i, n in enumerate(sizes) if n > 1]
        child = list(arch)
        for i in [i for i in free if rng.random() < self.probability] or (free and [rng.choice(free)]):
            child[i] = rng.choice([v for v in (child[i] - 1, child[i] + 1) if 0 <= v < sizes[i]])
        return tuple(child)


def skeletons(domain: Domain, wanted: int) -> Iterator[Indices]:
    """So many archs, evenly over the grid of levels of the domain's groups."""
    sizes = dict.fromkeys(domain.groups.values(), 1)
    for label, n in zip(domain.labels, domain.sizes, strict=True):
        sizes[domain.groups[label]] = max(sizes[domain.groups[label]], min(n, _LEVELS))
    total = math.prod(sizes.values())
    stride = coprime(total // wanted, total)
    for visit in range(min(total, wanted)):
        chosen = dict(zip(sizes, arch_of(visit * stride % total, tuple(sizes.values())), strict=True))
        level = {group: i / max(sizes[group] - 1, 1) for group, i in chosen.items()}
        # Half a step up, as people round.
        yield tuple(
            math.floor(level[domain.groups[label]] * (n - 1) + 0.5)
            for label, n in zip(domain.labels, domain.sizes, strict=True)
        )
