"""Search by a model of the metric, as BANANAS does (White et al. 2021, arXiv:1910.11858), with a Gaussian process.

Expected improvement is of Jones et al. 1998 (doi:10.1023/A:1008306431147); of the hypervolume, of Emmerich et al. 2006
(doi:10.1109/TEVC.2005.859463); several objectives by random weights, of Knowles 2006 (doi:10.1109/TEVC.2005.851274).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np

from ..costs import Counted
from .base import History, Question, Searcher, check_positive
from .domain import Domain, Indices
from .gaussian_process import Features, GaussianProcess, Warp, as_rows
from .pareto import front, reference_point

# Of a space of no more archs all are candidates.
_ALL = 8192
_DRAWN, _PARENTS, _CHILDREN, _FIRST_DRAWN = 512, 12, 48, 128
# Of the candidates with the most to expect, so many are looked at where a range is of a cost that is not counted.
_LOOKED_AT = 16
# Gauss-Hermite nodes of an expectation.
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


class ModelBased(Searcher):
    """The candidate from which most improvement is expected, by a Gaussian process of the metric.

    With two objectives improvement is that of the hypervolume, the second one being known (a counted cost) or
    predicted; with more, that of a Chebyshev sum with random weights. Candidates are random archs, and mutations and
    crossings of the best; of a small space, all. The search begins with the cheapest and the dearest value of every
    decision, and goes on with archs of all costs that are far from one another.

    Parameters
    ----------
    population
        So many archs begin; by default a seventh of the budget, from 5 to 20.
    """

    attempts = 1

    def __init__(self, population: int | None = None) -> None:
        self.population = population
        check_positive(population=1 if population is None else population)

    def propose(self, question: Question) -> Indices | None:
        history = question.history
        known = self.memory(question.domain, lambda: _Known(question.domain, question.seed))
        first = self.population or min(max(history.budget // 7, 5), 20)
        if history.number < first or len(history.good) < 2:
            begin = known.first(first, next((c for c in question.costs if c in known.counted), None))
            found = begin[history.number] if history.number < len(begin) else question.draw()
            return question.draw() if found in history.seen else found
        candidates = known.candidates(question)
        if not candidates:
            return question.draw()
        gains = known.gains(question, candidates)
        order = [candidates[i] for i in np.argsort(-gains, kind="stable")[:_LOOKED_AT]]
        within = (arch for arch in order if known.is_counted or question.domain.feasible(arch))
        return next(within, order[0])


class _Known:
    """What is made once for a domain."""

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain, self.seed = domain, seed
        self.counted = [name for name, p in domain.providers.items() if isinstance(p, Counted)]
        self.is_counted = domain.allows is None and all(r.name in self.counted for r in domain.ranges)
        ordered = [not isinstance(v[0], str) for v in domain.values]
        self.features = Features(domain.sizes, ordered)
        self._first: dict[tuple[int, str | None], list[Indices]] = {}
        self._all: list[Indices] | None = None

    def costs(self, archs: Sequence[Indices]) -> np.ndarray:
        """(n, q), logarithms of the costs that are counted."""
        columns = [self.domain.cost(name, archs) for name in self.counted]
        return np.log(np.maximum(np.array(columns, float).reshape(len(columns), len(archs)).T, 1.0))

    def first(self, count: int, cost: str | None) -> list[Indices]:
        """Archs to begin with: of every range of the cost the one that is farthest from those before it."""
        if (count, cost) not in self._first:
            domain, rng = self.domain, random.Random(f"{self.seed}/first")
            drawn = [domain.draw(rng) for _ in range(_FIRST_DRAWN if self.is_counted else count)]
            pool = list(dict.fromkeys(domain.canonical(a) for a in drawn if a is not None))
            ends = [domain.canonical(tuple(place * (n - 1) for n in domain.sizes)) for place in (0, 1)]
            chosen = [a for a in dict.fromkeys(ends) if domain.feasible(a)]
            of_cost = cost or next(iter(self.counted), None)
            if of_cost is not None:
                pool = [pool[i] for i in np.argsort(domain.cost(of_cost, pool), kind="stable")]
            parts = [pool[i] for i in rng.sample(range(len(pool)), len(pool))] if of_cost is None else pool
            wanted = max(count - len(chosen), 0)
            for part in np.array_split(np.arange(len(parts)), wanted) if wanted else ():
                near = [parts[i] for i in part if parts[i] not in chosen]
                if near:
                    rows = as_rows(near, len(domain.sizes))
                    others = as_rows(chosen or near[:1], len(domain.sizes))
                    least = self.features.distances(rows, others).sum(0).min(1)
                    chosen.append(near[int(least.argmax())])
            # The ends first, then in no order, so that few of them are of all costs as well.
            tail = chosen[2:]
            rng.shuffle(tail)
            self._first[count, cost] = chosen[:2] + tail
        return self._first[count, cost]

    def candidates(self, question: Question) -> list[Indices]:
        """New archs, within the ranges as far as these are counted."""
        domain, history, rng = self.domain, question.history, question.rng
        if math.prod(domain.sizes) <= _ALL:
            if self._all is None:
                self._all = [a for a in itertools.product(*map(range, domain.sizes)) if a == domain.canonical(a)]
                self._all = self._within(self._all)
            return [a for a in self._all if a not in history.seen]
        pool = [tuple(rng.randrange(n) for n in domain.sizes) for _ in range(_DRAWN)]
        if self.is_counted and domain.ranges:
            pool += [a for a in (question.draw() for _ in range(_DRAWN // 8)) if a is not None]
        parents = [history.good[i] for i in _best(history)]
        for parent in parents:
            for number in range(_CHILDREN):
                if number % 4 == 3:
                    pool.append(tuple(map(rng.choice, zip(parent, rng.choice(parents), strict=True))))
                else:
                    pool.append(domain.mutate(parent, rng, (None, 1.5 / len(parent), 3 / len(parent))[number % 4]))
        pool = list(dict.fromkeys(map(domain.canonical, pool)))
        return self._within([a for a in pool if a not in history.seen])

    def _within(self, archs: list[Indices]) -> list[Indices]:
        if not self.is_counted:
            return archs
        return [a for a, outside in zip(archs, self.domain.outside(archs), strict=True) if not outside]

    def gains(self, question: Question, candidates: Sequence[Indices]) -> np.ndarray:
        """(n,), the improvement that is expected of every candidate."""
        losses = question.history.losses
        count = losses.shape[1]
        warp = Warp(losses[:, 0])
        mean, sd = self._predicted(question, 0, warp(losses[:, 0]), candidates)
        if count == 1:
            return expected_improvement(float(warp(losses[:, 0]).min()), mean, sd)
        nodes = warp.inverse(mean[:, None] + sd[:, None] * _NODES)
        others = np.column_stack([self._other(question, k, candidates) for k in range(1, count)])
        if count == 2:
            reference = reference_point(np.concatenate([losses, [[losses[:, 0].max(), others.max()]]]))
            return expected_hypervolume(losses, reference, nodes, others[:, 0])
        low, spread = losses.min(0), np.ptp(losses, 0)
        spread = np.where(spread > 0, spread, 1.0)
        weights = np.array([question.rng.expovariate(1) for _ in range(count)])
        weights /= weights.sum()

        def chebyshev(points: np.ndarray) -> np.ndarray:
            scaled = weights * (points - low) / spread
            found: np.ndarray = scaled.max(-1) + 0.05 * scaled.sum(-1)
            return found

        points = np.concatenate([nodes[:, :, None], np.repeat(others[:, None, :], nodes.shape[1], 1)], 2)
        better = np.maximum(chebyshev(losses).min() - chebyshev(points), 0.0)
        expected: np.ndarray = better @ _NODE_WEIGHTS
        return expected

    def _other(self, question: Question, k: int, candidates: Sequence[Indices]) -> np.ndarray:
        """(n,), losses of an objective after the first: known where it is a counted cost, else what is predicted."""
        history, name = question.history, question.costs[k]
        if name is not None and name in self.counted:
            own = self.domain.cost(name, history.good)
            sign = 1.0 if np.allclose(own, history.losses[:, k]) else -1.0
            return np.array([sign * c for c in self.domain.cost(name, candidates)])
        return self._predicted(question, k, history.losses[:, k], candidates)[0]

    def _predicted(
        self, question: Question, k: int, targets: np.ndarray, candidates: Sequence[Indices]
    ) -> tuple[np.ndarray, np.ndarray]:
        history = question.history
        model = GaussianProcess(self.features, self._rows(history.good), self.costs(history.good), targets)
        return model.predict(self._rows(candidates), self.costs(candidates))

    def _rows(self, archs: Sequence[Indices]) -> np.ndarray:
        return as_rows(archs, len(self.domain.sizes))


def _best(history: History) -> list[int]:
    """Evaluated archs that are parents: of one objective the best; of several the front, evenly along it."""
    losses = history.losses
    if losses.shape[1] == 1:
        return losses[:, 0].argsort(kind="stable")[:_PARENTS].tolist()
    ends = np.flatnonzero(front(losses))
    ends = ends[losses[ends, 0].argsort(kind="stable")]
    return ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), _PARENTS)).round().astype(int))].tolist()


def expected_improvement(best: float, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """(n,), how much less than `best` normal variables are expected to be, where they are less."""
    from scipy.special import ndtr

    u = (best - mean) / sd
    found: np.ndarray = sd * (u * ndtr(u) + np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi))
    return found


def expected_hypervolume(losses: np.ndarray, reference: np.ndarray, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """(n,), what archs are expected to add to the hypervolume of a front.

    Parameters
    ----------
    losses
        (k, 2), of what is known.
    reference
        (2,).
    nodes
        (n, q), the first loss of every arch at the nodes of the expectation.
    cost
        (n,), the second one.
    """
    steps = losses[front(losses)]
    steps = steps[(steps < reference).all(1)]
    steps = steps[steps[:, 1].argsort(kind="stable")]
    # Between two costs of the front, what the cheaper one of them has is to be improved on.
    low = np.concatenate([[-np.inf], steps[:, 1]])
    high = np.concatenate([steps[:, 1], [reference[1]]])
    best = np.concatenate([[reference[0]], steps[:, 0]])
    widths = np.maximum(high - np.maximum(low, cost[:, None]), 0.0)
    found = np.zeros(len(cost))
    for node, weight in zip(nodes.T, _NODE_WEIGHTS, strict=True):
        found += weight * (np.maximum(best - node[:, None], 0.0) * widths).sum(1)
    return found
