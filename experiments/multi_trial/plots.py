"""A picture of a multi-trial search: every trial, and the best so far."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from models.files import atomic

from ..nni_experiment.engine import Trial
from .trial_log import status_of, value_of


def plot_trials(trials: Sequence[Trial], metric: str, path: str | Path) -> None:
    """What the trials are worth by number, with a step where the best so far changes; failed ones at the bottom."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    done = [t for t in trials if status_of(t) == "done"]
    others = [t.number for t in trials if status_of(t) != "done"]
    figure, axis = plt.subplots(figsize=(7, 4))
    numbers, values = [t.number for t in done], [value_of(t) for t in done]
    axis.plot(numbers, values, "o", alpha=0.5, label="trial")
    best = list(itertools.accumulate(values, max))
    axis.step(
        [*numbers, *([trials[-1].number] if done else [])], [*best, *best[-1:]], where="post", label="best so far"
    )
    if others:
        axis.plot(others, [min(values, default=0)] * len(others), "x", color="grey", label="without a result")
    axis.set_xlabel("trial")
    axis.set_ylabel(metric)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
