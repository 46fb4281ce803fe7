"""Evolution along the front, as AttentiveNAS searches its supernet (Wang et al. 2021, arXiv:2011.09011, appendix C)."""

from __future__ import annotations

import numpy as np

from .base import Question, Searcher, check_positive
from .domain import Indices


class Attentive(Searcher):
    """The best arch of every bin of the cost is a parent; half of the children are mutated, half crossed.

    The first objective is the metric, the second the cost; bins are equally wide from the least to the largest cost
    that was met. With one objective there is one bin, of the best archs. The search begins with the cheapest and the
    dearest value of every decision, and goes on with random archs.

    Parameters
    ----------
    population
        So many archs begin; by default a quarter of the budget, but 50 at most.
    bins
        Of the cost.
    probability
        Of each decision of a mutated arch to take another value.
    """

    def __init__(self, population: int | None = None, bins: int = 20, probability: float = 0.1) -> None:
        self.population, self.bins, self.probability = population, bins, probability
        check_positive(population=50 if population is None else population, bins=bins)

    def propose(self, question: Question) -> Indices | None:
        history, rng, sizes = question.history, question.rng, question.domain.sizes
        if history.number < 2:
            return tuple(history.number * (n - 1) for n in sizes)
        if history.number < (self.population or history.population(50)) or not history.good:
            return question.draw()
        chosen = [history.good[i] for i in best_of_bins(history.losses, self.bins)]
        parent = rng.choice(chosen)
        if rng.random() < 0.5:
            return question.domain.mutate(parent, rng, self.probability)
        other = rng.choice(chosen)
        return tuple(map(rng.choice, zip(parent, other, strict=True)))


def best_of_bins(losses: np.ndarray, bins: int) -> list[int]:
    """Rows with the smallest first loss in each bin of the second; with one loss, the `bins` smallest.

    Parameters
    ----------
    losses
        (n, m).
    """
    order = losses[:, 0].argsort(kind="stable")
    if losses.shape[1] == 1:
        return order[:bins].tolist()
    cost = losses[:, 1]
    width = (cost.max() - cost.min()) / bins or 1.0
    which = np.minimum(((cost - cost.min()) / width).astype(int), bins - 1)
    _, first = np.unique(which[order], return_index=True)
    return order[first].tolist()
