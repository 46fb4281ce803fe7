"""The evolutionary search of SPOS (Guo et al. 2020, arXiv:1904.00420, section 3.4, algorithm 1)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator

from .base import History, Question, Searcher, check_positive
from .domain import Domain, Indices

# In a narrow space so many draws for each arch that is wanted are enough to say that there are no more.
_DRAWS_AN_ARCH = 100

_Asking = Generator[Indices, float, None]


class Genetic(Searcher):
    """Generations: random archs first, then half of them crossed and half of them mutated from the best so far.

    Where draws find nothing that may be evaluated, the first generation is what the domain knows.

    Parameters
    ----------
    population
        Archs in each generation.
    mutation_probability
        Of each decision of a mutated arch to be drawn anew.
    top
        So many of the best archs so far are parents. The defaults are SPOS' (section 4).
    """

    attempts = 1
    most_objectives = 1

    def __init__(self, population: int = 50, mutation_probability: float = 0.1, top: int = 10) -> None:
        self.population, self.mutation_probability, self.top = population, mutation_probability, top
        check_positive(population=population, top=top)

    def propose(self, question: Question) -> Indices | None:
        def begin() -> _Run:
            return _Run(_generations(self, question.domain, random.Random(question.seed)))

        return self.memory(question.domain, begin).next(question.history)


class _Run:
    """The course of a search: a function of its seed and of the losses, gone through as far as these are known."""

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking
        self._next = next(asking, None)

    def next(self, history: History) -> Indices | None:
        losses = {e.indices: math.inf if e.losses is None else e.losses[0] for e in history.evaluated}
        while self._next is not None and self._next in losses:
            try:
                self._next = self._asking.send(losses[self._next])
            except StopIteration:
                self._next = None
        return self._next


def _generations(of: Genetic, domain: Domain, rng: random.Random) -> _Asking:
    """Archs to be evaluated; each is answered by its loss."""
    sizes, seen = domain.sizes, set[Indices]()
    losses: dict[Indices, float] = {}

    def new(draw: Callable[[], Indices], count: int) -> list[Indices]:
        """So many archs that were not seen before, fewer where there are no more."""
        found: list[Indices] = []
        for _ in range(_DRAWS_AN_ARCH):
            if len(found) == count or len(seen) == math.prod(sizes):
                break
            drawn = [domain.canonical(draw()) for _ in range(count - len(found))]
            drawn = list(dict.fromkeys(a for a in drawn if a not in seen))
            seen.update(drawn)
            found += [a for a, outside in zip(drawn, domain.outside(drawn), strict=True) if not outside]
        return found

    def drawn() -> Indices:
        return tuple(rng.randrange(n) for n in sizes)

    def mutated() -> Indices:
        parent = rng.choice(best)
        redrawn = (rng.random() < of.mutation_probability for _ in sizes)
        return tuple(rng.randrange(n) if r else i for i, n, r in zip(parent, sizes, redrawn, strict=True))

    def crossed() -> Indices:
        return tuple(map(rng.choice, zip(rng.choice(best), rng.choice(best), strict=True)))

    population = new(drawn, of.population) or [domain.canonical(a) for a in domain.known[:1]]
    seen.update(population)
    while population:
        for arch in population:
            losses[arch] = yield arch
        best = sorted(losses, key=losses.__getitem__)[: of.top]
        mutations = of.population // 2
        population = [*new(crossed, of.population - mutations), *new(mutated, mutations)]
        population += new(drawn, of.population - len(population))
