"""Archs in the order of their number, by a stride."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

from .base import Question, Searcher
from .domain import Domain, Indices

_BATCH = 256
# So many archs in a row out of range end the walk: a space may have 10**15.
_PATIENCE = 20_000


class Grid(Searcher):
    """Goes through the space by a stride, and meets every arch once; ends where 20,000 in a row are out of range.

    Parameters
    ----------
    stride
        1 for one after the other, the last decision changing fastest. By default such that the search's first budget
        covers the whole space. Either is raised until it has no divisor in common with the number of archs.
    shuffle
        Begin anywhere and go by a random stride, which the search's seed decides.
    """

    attempts = 1

    def __init__(self, stride: int | None = None, shuffle: bool = False) -> None:
        self.stride, self.shuffle = stride, shuffle

    @property
    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings.items() if k != "shuffle" or v}  # studies of before know no shuffle

    def propose(self, question: Question) -> Indices | None:
        way = self.memory(question.domain, lambda: _Way(question, self.stride, self.shuffle))
        return next((arch for arch in way if arch not in question.history.seen), None)


class _Way:
    """The archs within the ranges in the order of the walk; those that were met are not looked for again."""

    def __init__(self, question: Question, stride: int | None, shuffle: bool) -> None:
        self._met: list[Indices] = []
        total, offset = math.prod(question.domain.sizes), 0
        if shuffle and total > 1:
            rng = random.Random(question.seed)
            offset = rng.randrange(total)
            while math.gcd(stride := rng.randrange(1, total), total) != 1:
                pass
        step = coprime(stride or total // question.history.budget, total)
        self._ahead = self._feasible(question.domain, (((offset + v * step) % total) for v in range(total)))

    def __iter__(self) -> Iterator[Indices]:
        yield from self._met
        for arch in self._ahead:
            self._met.append(arch)
            yield arch

    @staticmethod
    def _feasible(domain: Domain, visits: Iterator[int]) -> Iterator[Indices]:
        # What a function allows is asked one by one: it may be slow.
        outside_since, size = 0, 1 if domain.allows else _BATCH
        while batch := [arch_of(v, domain.sizes) for v in itertools.islice(visits, size)]:
            for arch, outside in zip(batch, domain.outside(batch), strict=True):
                outside_since = outside_since + 1 if outside else 0
                if not outside:
                    yield domain.canonical(arch)
                elif outside_since >= _PATIENCE:
                    return


def coprime(stride: int, total: int) -> int:
    """The least number from `stride` on, and from 1, that has no divisor in common with `total`."""
    stride = max(stride, 1)
    while math.gcd(stride, total) != 1:
        stride += 1
    return stride


def arch_of(number: int, sizes: tuple[int, ...]) -> Indices:
    """The arch of a number from 0 to the product of `sizes`; the last decision changes fastest."""
    digits = []
    for n in reversed(sizes):
        number, digit = divmod(number, n)
        digits.append(digit)
    return tuple(reversed(digits))
