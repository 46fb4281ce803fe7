"""Archs in the order of their number, by a stride."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

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
    """

    attempts = 1

    def __init__(self, stride: int | None = None) -> None:
        self.stride = stride
        # The archs within the ranges so far on the way, and the way itself: what need not be gone twice.
        self._met: list[Indices] = []
        self._way: Iterator[Indices] | None = None

    def propose(self, question: Question) -> Indices | None:
        if self._way is None:
            self._way = self._feasible(question.domain, question.history.budget)
        seen = question.history.seen
        for arch in itertools.chain(self._met, self._going_on()):
            if arch not in seen:
                return arch
        return None

    def _going_on(self) -> Iterator[Indices]:
        assert self._way is not None
        for arch in self._way:
            self._met.append(arch)
            yield arch

    def _feasible(self, domain: Domain, budget: int) -> Iterator[Indices]:
        total = math.prod(domain.sizes)
        stride = coprime(self.stride or total // budget, total)
        visits, outside_since = iter(range(total)), 0
        while batch := [arch_of(v * stride % total, domain.sizes) for v in itertools.islice(visits, _BATCH)]:
            for arch, outside in zip(batch, domain.outside(batch), strict=True):
                outside_since = outside_since + 1 if outside else 0
                if not outside:
                    yield arch
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
