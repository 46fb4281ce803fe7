"""What a multi-trial search says at its end: the best trials, and a picture of every trial and the best so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..nni_experiment.engine import Trial
from ..run.amounts import titled
from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import table
from .trial_log import reported, status_of, value_of

if TYPE_CHECKING:
    from .search import Options

_SHOWN = 5


def plot_trials(trials: Sequence[Trial], metric: str, path: str | Path) -> None:
    """What the trials are worth by number, with a step where the best so far changes; failed ones at the bottom."""
    done = [t for t in trials if status_of(t) == "done"]
    pruned = [t for t in trials if status_of(t) == "pruned"]
    others = [t.number for t in trials if status_of(t) not in ("done", "pruned")]
    numbers, values = [t.number for t in done], [value_of(t) for t in done]
    best = list(itertools.accumulate(values, max))
    last = [trials[-1].number] if done else []
    with picture(path, figsize=(7, 4), layout="tight") as figure:
        axis = figure.subplots()
        axis.plot(numbers, values, "o", alpha=0.5, label="trial")
        axis.step([*numbers, *last], [*best, *best[-1:]], where="post", label="best so far")
        if pruned:
            axis.plot([t.number for t in pruned], [value_of(t) for t in pruned], "v", color="grey", label="pruned")
        if others:
            axis.plot(others, [min(values, default=0)] * len(others), "x", color="grey", label="without a result")
        axis.set_xlabel("trial")
        axis.set_ylabel(metric)
        axis.grid(alpha=0.3)
        axis.legend()


def counted(counts: Mapping[str, int]) -> str:
    """How many trials ended in which way, in words."""
    return ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "none was run"


def report(options: Options, run: RunFolder, metric: str, trials: Sequence[Trial], results: Mapping[str, Any]) -> None:
    """The best trials."""
    counts = {status: number for status, number in results["trials"].items() if status != "all"}
    reward = [] if options.target_latency is None else ["reward"]
    columns = ["trial", *reward, metric, "unseen", "parameters", f"GFLOPs at {options.cost_imgsz}"]
    times = ["latency"] if options.max_latency is not None or options.target_latency is not None else []
    columns += [titled(name) for name in times]
    done = sorted((t for t in trials if status_of(t) == "done"), key=value_of, reverse=True)
    rows = [
        (
            f"{trial.number}",
            *(f"{value_of(trial):.4f}" for _ in reward),
            *(f"{reported(trial, name):.4f}" for name in (metric, "unseen")),
            f"{reported(trial, 'params'):,.0f}",
            f"{(reported(trial, 'flops') or 0) / 1e9:.3f}",
            *(f"{reported(trial, name) or math.nan:.2f}" for name in times),
        )
        for trial in done[:_SHOWN]
    ]
    title = f"{options.strategy} on {options.data}, best of {counted(counts)}"
    say(table(columns, rows, title), f"results in {run.path}")
