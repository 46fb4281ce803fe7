"""What all searchers are: an answer to "which arch next?" that depends on nothing but the question.

What a searcher knows stands in the study, in storage, so that a search which was interrupted goes on exactly, and
several processes on several machines can work on one. What it remembers besides (`Searcher.memory`) only saves time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import numpy as np

from models.errors import InputError

from .domain import Domain, Indices

_T = TypeVar("_T")


class Evaluated(NamedTuple):
    """An arch whose evaluation has ended, and its losses; None if it failed."""

    indices: Indices
    losses: tuple[float, ...] | None


@dataclass(frozen=True)
class History:
    """What a study holds.

    Attributes
    ----------
    evaluated
        In the order in which they were asked.
    seen
        Those, and the ones under way.
    number
        How many archs were asked for before; the same question has the same number after an interruption.
    budget
        How many were to be asked for in all when the study began.
    """

    evaluated: Sequence[Evaluated]
    seen: Collection[Indices]
    number: int
    budget: int

    def population(self, most: int) -> int:
        """Archs that begin, where the searcher was told no number: a quarter of the budget, and `most` at most."""
        return min(max(self.budget // 4, 2), most)

    @cached_property
    def good(self) -> list[Indices]:
        """The archs whose evaluation did not fail."""
        return [e.indices for e in self.evaluated if e.losses is not None]

    @cached_property
    def losses(self) -> np.ndarray:
        """(n, m), of each of `good` and each objective; the smaller the better."""
        return np.array([e.losses for e in self.evaluated if e.losses is not None], float)


@dataclass(frozen=True)
class Question:
    """Which arch next?

    Attributes
    ----------
    seed
        The search's.
    rng
        For what is drawn. Its seed follows from the search's, the history's `number` and the attempt.
    costs
        For each objective the cost that it is, as `Domain.cost` knows it; None for what has to be evaluated.
    study, trial, distributions
        Optuna's, of the trial that the answer is for.
    """

    domain: Domain
    history: History
    seed: int
    rng: random.Random
    costs: tuple[str | None, ...]
    study: Any
    trial: Any
    distributions: Mapping[str, Any]

    def draw(self) -> Indices | None:
        """A feasible arch, drawn uniformly."""
        return self.domain.draw(self.rng)


class Searcher:
    """Base of searchers. The first objective is the metric where there is one, the next a cost.

    Attributes
    ----------
    attempts
        How often it is asked anew when what it answers is not feasible or not new. After that, the nearest arch that is
        both takes its place.
    most_objectives
        How many objectives it can look at.
    """

    attempts: ClassVar[int] = 10
    most_objectives: ClassVar[int] = sys.maxsize

    def propose(self, question: Question) -> Indices | None:
        """An arch, or None if there are no more."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """What its answers depend on beside the question."""
        return {"searcher": type(self).__name__, **{k: v for k, v in vars(self).items() if not k.startswith("_")}}

    def memory(self, domain: Domain, make: Callable[[], _T]) -> _T:
        """What `make` made when this domain was first asked about."""
        of, found = getattr(self, "_memory", (None, None))
        if of is not domain:
            self._memory = domain, (found := make())
        return cast(_T, found)


def check_positive(**values: int) -> None:
    """`InputError` where a number is below 1."""
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
