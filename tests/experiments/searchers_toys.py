"""Two small spaces whose fronts are known, for the tests of searchers. Loads no torch: workers are started with it."""

import functools
import itertools

import numpy as np

from experiments.search import Domain, Search, make_searcher
from experiments.search.pareto import hypervolume, reference_point
from experiments.testing import BOTH, BUDGET, Flops, domain
from spaces.choices import Decision

POPULATION = 8
EVOLUTION_POPULATION = 16  # its first archs are all random, the last ones all that it knows


def search(searcher, *ranges, objectives=BOTH, budget=BUDGET, **kwargs):
    made = make_searcher(searcher, population=population_of(searcher))
    return Search(domain(*ranges), objectives[: made.most_objectives], made, budget=budget, **kwargs)


def population_of(searcher):
    return EVOLUTION_POPULATION if searcher == "evolution" else POPULATION


# A space of 729 archs, to be searched with 60.
LARGER = {f"d{i}": Decision(f"d{i}", (0, 1, 2)) for i in range(6)}


class LargerFlops(Flops):
    def __call__(self, archs):
        return [larger_losses(a)[1] for a in archs]


def larger_losses(arch):
    """What each value of a decision brings differs, and so does what it costs."""
    values = list(arch.values())
    right = sum((0.05 + 0.03 * i) * v for i, v in enumerate(values)) + 0.1 * (values[0] == values[5])
    return -right, 1.0 + sum((1 + (i * 5) % 7) * v for i, v in enumerate(values))


ALL_LARGER = np.array([larger_losses(dict(zip(LARGER, v, strict=True))) for v in itertools.product(range(3), repeat=6)])


def found_share(name, seed, budget=60):
    """Of the hypervolume of the whole space."""
    made = make_searcher(name, population=population_of(name))
    found = Search(Domain(LARGER, [LargerFlops()]), BOTH, made, budget=budget, seed=seed)
    while (asked := found.ask()) is not None:
        found.tell(asked, {"accuracy": -larger_losses(asked.arch)[0]})
    reference = reference_point(ALL_LARGER)
    return hypervolume(found.losses(found.results()), reference) / hypervolume(ALL_LARGER, reference)


def best_metric(name, seed):
    """Of 60 archs; for searchers of one objective."""
    made = make_searcher(name, population=population_of(name))
    found = Search(Domain(LARGER), BOTH[:1], made, budget=60, seed=seed)
    while (asked := found.ask()) is not None:
        found.tell(asked, {"accuracy": -larger_losses(asked.arch)[0]})
    return max(r.values["accuracy"] for r in found.results())


@functools.cache
def random_share():
    return np.mean([found_share("random", seed) for seed in range(8)])
