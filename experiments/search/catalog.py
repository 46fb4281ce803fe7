"""Searchers by name."""

from __future__ import annotations

from collections.abc import Callable

from .attentive import Attentive
from .base import Searcher
from .coarse_to_fine import CoarseToFine
from .evolution import Evolution
from .genetic import Genetic
from .grid import Grid
from .optuna_searchers import GP, NSGA2, NSGA3, TPE
from .random import Random
from .rl import RL

# The names of `search_subnets.py --searcher`: (population, stride), None for the searcher's own, to searcher.
SEARCHERS: dict[str, Callable[[int | None, int | None], Searcher]] = {
    "nsga3": lambda population, _: NSGA3(population),
    "nsga2": lambda population, _: NSGA2(population),
    "tpe": lambda *_: TPE(),
    "gp": lambda *_: GP(),
    "random": lambda *_: Random(),
    "grid": lambda _, stride: Grid(stride),
    "evolution": lambda population, _: Evolution(population),
    "attentive": lambda population, _: Attentive(population),
    "coarse-to-fine": lambda *_: CoarseToFine(),
    "genetic": lambda population, _: Genetic() if population is None else Genetic(population),
    "rl": lambda *_: RL(),
}
