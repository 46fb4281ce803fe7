"""NSGA-III (Deb and Jain 2014), Optuna's: a front of archs between several objectives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler

from models.errors import InputError

from .optuna_base import OptunaStrategy


class NSGA3(OptunaStrategy):
    """NSGA-III.

    Parameters
    ----------
    population_size
        Archs in a generation, 2 or more. Optuna's 50 suits thousands of trials.
    objectives, directions, costs, seed, dedup, feasible
        See `OptunaStrategy`.
    """

    def __init__(
        self, *, objectives: Sequence[str] = ("metric", "flops"), population_size: int = 10, **settings: Any
    ) -> None:
        if population_size < 2:
            raise InputError(f"population_size {population_size} must be 2 or more")
        super().__init__(objectives=objectives, **settings)
        self.population_size = population_size

    def sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # it has been experimental since Optuna 3.2
            return NSGAIIISampler(seed=seed, population_size=self.population_size)
