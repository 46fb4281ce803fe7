"""Random search, the baseline of every other one (Li and Talwalkar 2019, arXiv:1902.07638)."""

from __future__ import annotations

from .base import Question, Searcher
from .domain import Indices


class Random(Searcher):
    """Feasible archs, drawn uniformly."""

    def propose(self, question: Question) -> Indices | None:
        return question.draw()
