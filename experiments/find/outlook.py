"""What a run says of itself while it is under way: the phase, the best so far, how long it will take."""

from __future__ import annotations

import time

from .phases import Job
from .plan import duration, plan_of
from .sentence import best_so_far


class Outlook:
    """Called as a phase begins; as a string, what is known by now."""

    def __init__(self) -> None:
        self._title = self._best = ""
        self._ends: float | None = None

    def __call__(self, job: Job, title: str) -> str:
        self._title = title
        if "measure" in job.results:
            self._best, self._ends = best_so_far(job), time.monotonic() + plan_of(job).left()
        return str(self)

    def __str__(self) -> str:
        left = None if self._ends is None else duration(self._ends - time.monotonic())
        return "; ".join(filter(None, (self._title, self._best, left and f"about {left} left")))
