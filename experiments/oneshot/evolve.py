"""The evolutionary search of a trained supernet (SPOS, arXiv:1904.00420, section 3.4, algorithm 1)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .derive import Arch, Budget

# In a narrow space so many draws for each arch that is wanted are enough to say that there are no more.
_DRAWS_AN_ARCH = 100

_Key = tuple[int, ...]


@dataclass(frozen=True)
class Evolution:
    """Numbers of the search; the defaults are SPOS' (section 4).

    Attributes
    ----------
    population
        Archs in each generation: random ones in the first, later half of them crossed, half of them mutated.
    generations
        Populations that are rated.
    mutation_probability
        Of each decision of a mutated arch to be drawn anew.
    top
        So many of the best archs so far are parents.
    """

    population: int = 50
    generations: int = 20
    mutation_probability: float = 0.1
    top: int = 10
    seed: int = 0

    @property
    def mutations(self) -> int:
        return self.population // 2

    @property
    def crossovers(self) -> int:
        return self.population - self.mutations


def evolve(
    choices: Mapping[str, Sequence[Any]],
    rate: Callable[[Arch], float],
    budget: Budget | None = None,
    evolution: Evolution | None = None,
) -> list[tuple[Arch, float]]:
    """Search for the arch that `rate` rates highest. No arch is rated twice, none beyond the budget at all.

    Parameters
    ----------
    choices
        Label to values of every decision.
    rate
        Arch to what is to be large; where it is NaN, the arch is the last of all.

    Returns
    -------
    Archs and their ratings in the order in which they were rated.
    """
    e = evolution or Evolution()
    rng = random.Random(e.seed)
    sizes = [len(values) for values in choices.values()]
    seen: set[_Key] = set()
    ratings: dict[_Key, float] = {}

    def arch_of(key: _Key) -> Arch:
        return {label: values[i] for (label, values), i in zip(choices.items(), key, strict=True)}

    def new(draw: Callable[[], _Key], count: int) -> list[_Key]:
        """So many archs that were not seen before, fewer where there are no more."""
        found: list[_Key] = []
        for _ in range(_DRAWS_AN_ARCH):
            if len(found) == count or len(seen) == math.prod(sizes):
                break
            keys = list(dict.fromkeys(k for _ in range(count - len(found)) if (k := draw()) not in seen))
            seen.update(keys)
            fits = [True] * len(keys) if budget is None else budget.feasible([arch_of(k) for k in keys])
            found += [key for key, ok in zip(keys, fits, strict=True) if ok]
        return found

    def drawn() -> _Key:
        return tuple(rng.randrange(n) for n in sizes)

    def mutated() -> _Key:
        parent = rng.choice(best)
        redrawn = (rng.random() < e.mutation_probability for _ in sizes)
        return tuple(rng.randrange(n) if r else i for i, n, r in zip(parent, sizes, redrawn, strict=True))

    def crossed() -> _Key:
        return tuple(map(rng.choice, zip(rng.choice(best), rng.choice(best), strict=True)))

    population = new(drawn, e.population)
    if not population and budget is not None:
        cheapest = budget.cheapest()
        population = [tuple(values.index(cheapest[label]) for label, values in choices.items())]
        seen.update(population)
    for generation in range(e.generations):
        if generation:
            best = sorted(ratings, key=lambda k: -ratings[k])[: e.top]
            population = [*new(crossed, e.crossovers), *new(mutated, e.mutations)]
            population += new(drawn, e.population - len(population))
        for key in population:
            rating = rate(arch_of(key))
            ratings[key] = -math.inf if math.isnan(rating) else rating
    return [(arch_of(key), rating) for key, rating in ratings.items()]
