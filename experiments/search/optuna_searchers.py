"""Samplers of Optuna as searchers: NSGA-II, NSGA-III, TPE, and Bayesian optimisation with Gaussian processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler

from .base import Question, Searcher, check_positive
from .domain import Indices


class OptunaSearcher(Searcher):
    """What a sampler of Optuna samples.

    The sampler is made anew for every question, so that all it knows is in the study. It sees the archs that were
    evaluated, whoever proposed them.
    """

    def sampler(self, seed: int, budget: int) -> BaseSampler:
        """Optuna's sampler."""
        raise NotImplementedError

    def propose(self, question: Question) -> Indices | None:
        study, trial, domain = question.study, question.trial, question.domain
        sampler = self.sampler(question.rng.getrandbits(31), question.history.budget)
        params = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        for label, distribution in question.distributions.items():
            if label not in params:
                params[label] = sampler.sample_independent(study, trial, label, distribution)
        return domain.indices(params)


class _Genetic(OptunaSearcher):
    make: Callable[..., BaseSampler]

    def __init__(self, population: int | None = None) -> None:
        self.population = population
        check_positive(population=population or 1)

    def sampler(self, seed: int, budget: int) -> BaseSampler:
        population = self.population or min(max(budget // 12, 10), 50)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # NSGA-III has been experimental since Optuna 3.2
            return type(self).make(seed=seed, population_size=max(population, 2))


class NSGA2(_Genetic):
    """NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017).

    Parameters
    ----------
    population
        Archs in a generation; by default a twelfth of the budget, but 10 at least and Optuna's 50 at most.
    """

    make = NSGAIISampler


class NSGA3(_Genetic):
    """NSGA-III (Deb and Jain 2014, doi:10.1109/TEVC.2013.2281535); the parameter is `NSGA2`'s."""

    make = NSGAIIISampler


class TPE(OptunaSearcher):
    """The tree-structured Parzen estimator (Bergstra et al. 2011); of several objectives as in Ozaki et al. 2022."""

    def sampler(self, seed: int, budget: int) -> BaseSampler:
        # Trials that run side by side keep off each other's archs.
        return TPESampler(seed=seed, constant_liar=True)


class GP(OptunaSearcher):
    """Bayesian optimisation: Gaussian processes and the expected improvement of the metric, or of the hypervolume."""

    attempts = 2  # it takes seconds, and answers the same questions much alike

    def sampler(self, seed: int, budget: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            arguments: dict[str, Any] = {"deterministic_objective": True}
            return GPSampler(seed=seed, **arguments)
