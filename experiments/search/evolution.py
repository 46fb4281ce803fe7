"""Regularized evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1), for several objectives."""

from __future__ import annotations

import numpy as np

from .base import Question, Searcher, check_positive
from .domain import Indices


class Evolution(Searcher):
    """The winner of a tournament among the youngest is mutated in one decision.

    With several objectives, each tournament weighs them by weights of its own, drawn anew: the winner has the smallest
    augmented Chebyshev sum, as in ParEGO (Knowles 2006, doi:10.1109/TEVC.2005.851274, section III-B).

    Parameters
    ----------
    population
        So many random archs begin, and so many of the youngest take part; by default a quarter of the budget, but 50 at
        most.
    tournament
        Archs in one; by default half of the population. The paper's quarter is for one objective: here a tournament
        looks in one direction of many, and of few archs hardly any lies there.
    """

    def __init__(self, population: int | None = None, tournament: int | None = None) -> None:
        self.population, self.tournament = population, tournament
        check_positive(**{name: n for name, n in vars(self).items() if n is not None})

    def propose(self, question: Question) -> Indices | None:
        history, rng = question.history, question.rng
        population = self.population or history.population(50)
        if history.number < population or not history.good:
            return question.draw()
        archs, losses = history.good[-population:], history.losses[-population:]
        drawn = rng.sample(range(len(archs)), min(self.tournament or max(population // 2, 1), len(archs)))
        spread = losses.max(0) - losses.min(0)
        scaled = (losses[drawn] - losses.min(0)) / np.where(spread > 0, spread, 1)
        # Of a flat Dirichlet distribution.
        weights = np.array([rng.expovariate(1) for _ in spread])
        weighted = scaled * (weights / weights.sum())
        winner = drawn[int((weighted.max(1) + 0.05 * weighted.sum(1)).argmin())]
        return question.domain.mutate(archs[winner], rng)
