"""Random search, the baseline of every other one (Li and Talwalkar 2019, arXiv:1902.07638)."""

from __future__ import annotations

from .strategy import Indices, MultiTrialStrategy


class Random(MultiTrialStrategy):
    """Archs drawn uniformly; see `MultiTrialStrategy` for the parameters."""

    def propose(self) -> Indices | None:
        return self.draw_usable()
