"""Trials that end early: Optuna's pruners, over a journal of what all trials have reached after each epoch.

Trials are processes of their own, so the journal is a file of the run; a pruner decides by what stands there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from ..search.storage import open_storage
from .options import Training

# Of successive halving (Jamieson and Talwalkar 2016; asynchronous: Li et al. 2020, arXiv:1810.05934): one of three goes
# on, since a candidate's few epochs give few rungs to a factor of four.
_REDUCTION = 3


def pruner_of(name: str, epochs: int) -> BasePruner:
    """The pruner of a search whose candidates are trained for so many epochs; one epoch is one unit of resource."""
    if name == "median":
        return MedianPruner()
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=_REDUCTION)
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION)


class Pruning:
    """A trial's part in the journal.

    Attributes
    ----------
    ended
        Whether the trial was told to end.
    """

    def __init__(self, training: Training, path: str | Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=open_storage(f"journal:{path}"),
            study_name="trials",
            pruner=pruner_of(training.pruner, training.epochs),
            direction="maximize",
            load_if_exists=True,
        )
        self._trial: Any = self._study.ask()
        self._epochs, self.ended = training.epochs, False

    def ends(self, value: float, epoch: int) -> bool:
        """Report what was reached after `epoch`, counted from 1; whether it is not worth going on."""
        self._trial.report(value, epoch)
        self.ended = epoch < self._epochs and self._trial.should_prune()
        return self.ended

    def close(self, value: float) -> None:
        """The trial has ended, with that value."""
        if self.ended:
            self._study.tell(self._trial, state=TrialState.PRUNED)
        else:
            self._study.tell(self._trial, value)
