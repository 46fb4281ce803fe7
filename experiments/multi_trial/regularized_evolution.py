"""Regularized evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from models.errors import InputError

from .strategy import Arch, Indices, MultiTrialStrategy, Trial


class RegularizedEvolution(MultiTrialStrategy):
    """The winner of a tournament is mutated, and the oldest of the population dies.

    As in the paper, a mutation changes one decision; where that gives nothing new and feasible, more of them.

    Parameters
    ----------
    population_size
        So many random archs begin, and so many are kept. The paper's 100 suits thousands of trials.
    sample_size
        Archs in a tournament.
    seed, dedup, feasible
        See `MultiTrialStrategy`.
    """

    def __init__(
        self,
        *,
        population_size: int = 50,
        sample_size: int = 15,
        seed: int | None = None,
        dedup: bool = True,
        feasible: Callable[[Arch], bool] | None = None,
    ) -> None:
        if not 1 <= sample_size <= population_size:
            raise InputError(f"sample_size {sample_size} must lie between 1 and population_size {population_size}")
        super().__init__(seed=seed, dedup=dedup, feasible=feasible)
        self.population_size, self.sample_size = population_size, sample_size

    def start(self, seed: int) -> None:
        self._population: deque[Trial] = deque(maxlen=self.population_size)

    def propose(self) -> Indices | None:
        if len(self._population) + len(self._open) < self.population_size or not self._population:
            return self.draw_usable()
        tournament = self._random.sample(list(self._population), min(self.sample_size, len(self._population)))
        return self.neighbour(max(tournament, key=lambda trial: trial.values or ()).indices)

    def learn(self, trial: Trial) -> None:
        if trial.values is not None:
            self._population.append(trial)
