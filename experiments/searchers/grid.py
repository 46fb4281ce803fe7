"""Archs in the order of their number, by a stride."""

from __future__ import annotations

import itertools
import math

from .base import Question, Searcher
from .domain import Indices

_BATCH = 256
# So many archs in a row out of range end the walk: a space may have 10**15.
_PATIENCE = 20_000


class Grid(Searcher):
    """Goes through the space by a stride, and meets every arch once; ends where 20,000 in a row are out of range.

    Parameters
    ----------
    stride
        1 for one after the other, the last decision changing fastest. By default such that the search's budget covers
        the whole space. Either is raised until it has no divisor in common with the number of archs.
    """

    attempts = 1

    def __init__(self, stride: int | None = None) -> None:
        self.stride = stride

    def propose(self, question: Question) -> Indices | None:
        domain, history = question.domain, question.history
        total = math.prod(domain.sizes)
        stride = coprime(self.stride or total // history.budget, total)
        # Where an arch stands on the way, so that the way need not be gone again.
        place = pow(stride, -1, total)
        start = max((number_of(a, domain.sizes) * place % total + 1 for a in history.seen), default=0)
        visits = iter(range(start, min(total, start + _PATIENCE)))
        while batch := [arch_of(v * stride % total, domain.sizes) for v in itertools.islice(visits, _BATCH)]:
            for arch, outside in zip(batch, domain.outside(batch), strict=True):
                if not outside:
                    return arch
        return None


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


def number_of(arch: Indices, sizes: tuple[int, ...]) -> int:
    """The inverse of `arch_of`."""
    number = 0
    for digit, n in zip(arch, sizes, strict=True):
        number = number * n + digit
    return number
