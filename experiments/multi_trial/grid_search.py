"""Every arch of a space, once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from .strategy import Arch, Indices, MultiTrialStrategy


class GridSearch(MultiTrialStrategy):
    """Goes through the whole space, unless so many archs in a row are not feasible that none may be left.

    Unlike NNI's, which shuffles a hundred archs at a time and forgets those of the hundred that were not yet submitted
    when it resumes, the order covers the space evenly from the start, and needs no memory.

    Parameters
    ----------
    shuffle
        Go through the archs in steps of a random stride; otherwise the last decision changes fastest.
    seed, feasible
        See `MultiTrialStrategy`.
    """

    _rejected: ClassVar[int] = 20_000

    def __init__(
        self, *, shuffle: bool = True, seed: int | None = None, feasible: Callable[[Arch], bool] | None = None
    ) -> None:
        super().__init__(seed=seed, feasible=feasible)
        self.shuffle = shuffle

    def start(self, seed: int) -> None:
        self._total, self._visited = math.prod(self.sizes), 0
        self._offset, self._stride = 0, 1
        if self.shuffle and self._total > 1:
            self._offset = self._random.randrange(self._total)
            # Coprime with the total, so that no arch is met twice before all were met once.
            while math.gcd(stride := self._random.randrange(1, self._total), self._total) != 1:
                pass
            self._stride = stride

    def propose(self) -> Indices | None:
        rejected = 0
        while self._visited < self._total and rejected < self._rejected:
            rank = (self._offset + self._visited * self._stride) % self._total
            self._visited += 1
            if self.usable(arch := self._decode(rank)):
                return arch
            rejected += 1
        return None

    def _decode(self, rank: int) -> Indices:
        digits = []
        for n in reversed(self.sizes):
            rank, digit = divmod(rank, n)
            digits.append(digit)
        return tuple(reversed(digits))
