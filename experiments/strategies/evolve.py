"""The evolutionary search of a trained supernet (SPOS, arXiv:1904.00420, section 3.4, algorithm 1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import InputError

from .derive import Arch, Budget

# Crossover and mutation may bring forth nothing new in a small space, and nothing feasible in a narrow one.
_ATTEMPTS = 100


@dataclass(frozen=True)
class Evolution:
    """Numbers of the search; the defaults are SPOS' (section 4)."""

    population: int = 50
    generations: int = 20
    mutations: int = 25
    crossovers: int = 25
    mutation_probability: float = 0.1
    top: int = 10
    seed: int = 0


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
        Arch to what is to be large.

    Returns
    -------
    Archs and their ratings in the order in which they were rated.

    Raises
    ------
    InputError
        If no arch within the limits was drawn.
    """
    e = evolution or Evolution()
    rng = random.Random(e.seed)
    rated: dict[tuple[Any, ...], float] = {}

    def new(draw: Callable[[], Arch], count: int) -> Iterator[tuple[Any, ...]]:
        found: set[tuple[Any, ...]] = set()
        for _ in range(_ATTEMPTS * count):
            if len(found) == count:
                return
            key = tuple(draw()[label] for label in choices)
            if key in rated or key in found:
                continue
            if budget is None or budget.feasible([_arch(key)])[0]:
                found.add(key)
                yield key

    def _arch(key: tuple[Any, ...]) -> Arch:
        return dict(zip(choices, key, strict=True))

    def drawn() -> Arch:
        return {label: rng.choice(values) for label, values in choices.items()}

    def mutated() -> Arch:
        return {
            label: rng.choice(choices[label]) if rng.random() < e.mutation_probability else value
            for label, value in _arch(rng.choice(best)).items()
        }

    def crossed() -> Arch:
        one, other = _arch(rng.choice(best)), _arch(rng.choice(best))
        return {label: rng.choice((one[label], other[label])) for label in choices}

    best: list[tuple[Any, ...]] = []
    population = list(new(drawn, e.population))
    if not population and budget is not None:
        population = [tuple(budget.cheapest()[label] for label in choices)]
    for generation in range(e.generations + 1):
        for key in population:
            rated[key] = rate(_arch(key))
        if not rated:
            raise InputError("no arch within the limits was found")
        best = sorted(rated, key=lambda k: -rated[k])[: e.top]
        if generation < e.generations:
            population = [*new(crossed, e.crossovers), *new(mutated, e.mutations)]
            population += new(drawn, e.mutations + e.crossovers - len(population))
    return [(_arch(key), rating) for key, rating in rated.items()]
