"""What is left of the trials of a multi-trial search: ``trials.csv``, ``trials/<id>/``, and a line for each."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.files import write_text

from ..nni_experiment.engine import Trial
from ..run.console import say
from ..run.tables import write_csv

_NUMBERS = ("unseen", "params", "flops", "latency")


def status_of(trial: Trial) -> str:
    """``running``, ``done``, ``pruned``, ``infeasible`` (beyond a limit, so not trained), ``failed``, ``cancelled``."""
    if not trial.ended:
        return "running"
    if trial.status == "SUCCEEDED":
        if trial.metric is not None:
            return "pruned" if "pruned" in _mapping(trial.metric) else "done"
        return "infeasible" if any("infeasible" in _mapping(v) for v in trial.intermediates) else "failed"
    return "failed" if trial.status == "FAILED" else "cancelled"


def value_of(trial: Trial) -> float:
    """What a done or pruned trial is worth: its metric, or its reward where the search has a target."""
    return float(_mapping(trial.metric)["default"])


def reported(trial: Trial, name: str) -> float | None:
    """A number that the trial reported by name, such as ``flops``; None if it did not."""
    for value in (trial.metric, *trial.intermediates):
        if name in _mapping(value):
            return float(_mapping(value)[name])
    return None


class TrialLog:
    """Keeps the files of a search's trials; its methods may be called from several threads.

    Parameters
    ----------
    path
        The run's folder.
    metric
        Name of what trials report.
    labels
        Of the decisions.
    trials
        Gives all trials, in order.
    stderr
        What the trial with an id wrote to its standard error.
    drop
        Removes the weights of a trial that is not the best.
    """

    def __init__(
        self,
        path: Path,
        metric: str,
        labels: Sequence[str],
        trials: Callable[[], Sequence[Trial]],
        stderr: Callable[[str], str],
        drop: Callable[[Trial], None],
    ) -> None:
        self.path, self.metric, self.labels = path, metric, list(labels)
        self.trials, self.stderr, self.drop = trials, stderr, drop
        self._lock = threading.Lock()

    @property
    def best(self) -> Trial | None:
        """The first of the best trials."""
        return max((t for t in self.trials() if status_of(t) == "done"), key=value_of, default=None)

    def add(self, trial: Trial) -> None:
        """Take note of a trial that has ended."""
        with self._lock:
            folder, status = self.path / "trials" / trial.id, status_of(trial)
            if (folder / "arch.json").exists():
                return  # of before a resume
            line = status
            if status == "failed":
                write_text(folder / "stderr.txt", self.stderr(trial.id))
                line += f", see {folder / 'stderr.txt'}"
            elif status == "done":
                line = f"{self.metric} {reported(trial, self.metric):.4f}"
            elif status == "pruned":
                epochs = len(trial.intermediates)
                line = f"{self.metric} {reported(trial, self.metric):.4f}, pruned after epoch {epochs}"
            write_text(folder / "arch.json", json.dumps(trial.arch, indent=2) + "\n")
            best = self.best
            if best is not None:
                line += f"  best {value_of(best):.4f} (trial {best.number})"
            for other in self.trials():
                if other.ended and other is not best:
                    self.drop(other)
            self._write()
        say(f"trial {trial.number:>4}  {line}")

    def write(self) -> None:
        """Write ``trials.csv``."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        fields = ["number", "id", "status", "default", self.metric, *_NUMBERS, "epochs", "seconds", *self.labels]
        write_csv(self.path / "trials.csv", map(self._row, self.trials()), fields)

    def _row(self, trial: Trial) -> dict[str, Any]:
        status = status_of(trial)
        named = {name: reported(trial, name) for name in (self.metric, *_NUMBERS)}
        return {
            "number": trial.number,
            "id": trial.id,
            "status": status,
            "default": value_of(trial) if status in ("done", "pruned") else None,
            **{
                k: v if v is None or not v.is_integer() or k in (self.metric, "unseen") else int(v)
                for k, v in named.items()
            },
            "epochs": 0 if status == "infeasible" else len(trial.intermediates),
            "seconds": f"{trial.seconds:.1f}" if trial.ended else None,
            **trial.arch,
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"default": value}
