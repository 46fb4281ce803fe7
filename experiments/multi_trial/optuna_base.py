"""What the strategies of Optuna share: its ask-and-tell interface as `propose` and `learn`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from models.errors import InputError

from .strategy import Arch, Indices, MultiTrialStrategy, Trial

Costs = Callable[[Arch], Mapping[str, float]]

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every study and trial on its own


class OptunaStrategy(MultiTrialStrategy):
    """Archs of a sampler of Optuna.

    An arch that it proposes a second time, or that is not feasible, is replaced by the nearest one that is new and
    feasible, and the sampler is told.

    Parameters
    ----------
    objectives
        ``"metric"`` is the trial's result; others are looked up by name in what the trial reports
        (``nni.report_final_result({"default": 0.9, "flops": 1e9})``), then in `costs`.
    directions
        ``"maximize"`` or ``"minimize"`` for each of them. By default the metric is maximized, the others minimized.
    costs
        Arch to what it costs, by objective.
    seed, dedup, feasible
        See `MultiTrialStrategy`.
    """

    def __init__(
        self,
        *,
        objectives: Sequence[str] = ("metric",),
        directions: Sequence[str] | None = None,
        costs: Costs | None = None,
        seed: int | None = None,
        dedup: bool = True,
        feasible: Callable[[Arch], bool] | None = None,
    ) -> None:
        super().__init__(seed=seed, dedup=dedup, feasible=feasible)
        self.objectives, self.costs = tuple(objectives), costs
        self.directions = tuple(directions or ("maximize" if o == "metric" else "minimize" for o in objectives))
        if len(self.directions) != len(self.objectives) or not set(self.directions) <= {"maximize", "minimize"}:
            raise InputError(
                f"directions {list(self.directions)} do not fit objectives {list(self.objectives)}:"
                " right would be 'maximize' or 'minimize' for each"
            )

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler."""
        raise NotImplementedError

    def start(self, seed: int) -> None:
        self._study = optuna.create_study(
            sampler=self.sampler(seed), directions=[StudyDirection[d.upper()] for d in self.directions]
        )
        self._distributions: dict[str, Any] = {
            label: CategoricalDistribution(range(n)) for label, n in zip(self.choices, self.sizes, strict=True)
        }
        self._asked: dict[int, optuna.Trial] = {}  # by our own numbers
        self._told: dict[int, Trial] = {}  # by Optuna's

    def propose(self) -> Indices | None:
        asked = self._study.ask(self._distributions)
        indices: Indices = tuple(asked.params[label] for label in self.choices)
        if not self.usable(indices):
            # As pruned, infeasible archs count as bad ones; a failed trial does not count.
            self._study.tell(asked, state=TrialState.PRUNED if indices in self._infeasible else TrialState.FAIL)
            if (nearest := self.neighbour(indices)) is None:
                return None
            indices = nearest
            self._study.enqueue_trial(dict(zip(self.choices, indices, strict=True)))
            asked = self._study.ask(self._distributions)
        self._asked[len(self._trials)] = asked
        return indices

    def learn(self, trial: Trial) -> None:
        asked = self._asked.pop(trial.number)
        self._told[asked.number] = trial
        if trial.values is None:
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, trial.values)

    def values_of(self, arch: Arch, reported: Mapping[str, Any]) -> tuple[float, ...]:
        known = {"metric": reported["default"], **reported}
        if not set(self.objectives) <= set(known):
            known = {**(self.costs(arch) if self.costs else {}), **known}
        if missing := [name for name in self.objectives if name not in known]:
            raise InputError(
                f"objective '{missing[0]}' is neither among what the trial reports ({', '.join(sorted(reported))})"
                " nor given by costs"
            )
        return tuple(float(known[name]) for name in self.objectives)

    def pareto_front(self) -> list[Trial]:
        """The trials that no other beats in all objectives."""
        with self._lock:
            return [self._told[trial.number] for trial in self._study.best_trials]
