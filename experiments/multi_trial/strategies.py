"""The multi-trial strategies by NNI's names: a searcher each; see `MultiTrialStrategy` for what all of them take."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from models.errors import InputError

from .. import search
from .strategy import MultiTrialStrategy


class Random(MultiTrialStrategy):
    """Archs drawn uniformly."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(search.Random(), **settings)


class GridSearch(MultiTrialStrategy):
    """Goes through the whole space, unless so many archs in a row are not feasible that none may be left.

    Unlike NNI's, which shuffles a hundred archs at a time and forgets those of the hundred that were not yet submitted
    when it resumes, the order covers the space evenly from the start, and needs no memory.

    Parameters
    ----------
    shuffle
        Go through the archs in steps of a random stride; otherwise the last decision changes fastest.
    """

    def __init__(self, *, shuffle: bool = True, **settings: Any) -> None:
        super().__init__(search.Grid(1, shuffle), **settings)


class RegularizedEvolution(MultiTrialStrategy):
    """The winner of a tournament is mutated, and the oldest of the population dies (Real et al. 2019).

    Parameters
    ----------
    population_size
        So many random archs begin, and so many are kept. The paper's 100 suits thousands of trials.
    sample_size
        Archs in a tournament; by default three tenths of the population.
    """

    def __init__(self, *, population_size: int = 50, sample_size: int | None = None, **settings: Any) -> None:
        sample_size = max(round(0.3 * population_size), 1) if sample_size is None else sample_size
        if not 1 <= sample_size <= population_size:
            raise InputError(f"sample_size {sample_size} must lie between 1 and population_size {population_size}")
        super().__init__(search.Evolution(population_size, sample_size), **settings)


class TPE(MultiTrialStrategy):
    """The tree-structured Parzen estimator, without the second that NNI's sleeps for each trial."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(search.TPE(), **settings)


class ModelBased(MultiTrialStrategy):
    """The arch from which a Gaussian process of the metric expects most improvement; see `search.ModelBased`.

    Parameters
    ----------
    population_size
        So many archs, far from one another, begin.
    """

    def __init__(self, *, population_size: int = 20, **settings: Any) -> None:
        super().__init__(search.ModelBased(population_size), **settings)


class PolicyBasedRL(MultiTrialStrategy):
    """A controller draws the archs and learns from their metrics; takes what `experiments.search.rl.RL` takes, too."""

    def __init__(self, **settings: Any) -> None:
        of_rl = {name: settings.pop(name) for name in signature(search.RL).parameters if name in settings}
        super().__init__(search.RL(**of_rl), **settings)


class NSGA3(MultiTrialStrategy):
    """NSGA-III: a front of archs between several objectives.

    Parameters
    ----------
    population_size
        Archs in a generation, 2 or more. Optuna's 50 suits thousands of trials.
    """

    def __init__(
        self, *, objectives: Sequence[str] = ("metric", "flops"), population_size: int = 10, **settings: Any
    ) -> None:
        if population_size < 2:
            raise InputError(f"population_size {population_size} must be 2 or more")
        super().__init__(search.NSGA3(population_size), objectives=objectives, **settings)
