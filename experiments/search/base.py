"""What all searchers are: an answer to "which arch next?" that depends on nothing but the question.

A searcher keeps no state of its own. What it knows stands in the study, in storage, so that a search which was
interrupted goes on exactly, and several processes on several machines can work on one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from models.errors import InputError

from .domain import Domain, Indices


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
    rng
        For what is drawn. Its seed follows from the search's, the history's `number` and the attempt.
    costs
        For each objective the cost that it is, as `Domain.cost` knows it; None for what has to be evaluated.
    study, trial, distributions
        Optuna's, of the trial that the answer is for.
    """

    domain: Domain
    history: History
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
    """

    attempts: ClassVar[int] = 10

    def propose(self, question: Question) -> Indices | None:
        """An arch, or None if there are no more."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """What its answers depend on beside the question."""
        return {"searcher": type(self).__name__, **vars(self)}


def check_positive(**values: int) -> None:
    """`InputError` where a number is below 1."""
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
