"""A searcher as a strategy of NNI, which trains every arch on its own, over any of NNI's engines.

All methods run under one lock, because a training service reports results in a thread of its own. What is asked is a
function of the seed and of the order of asks and ends, so the state is their log, and resuming is asking again.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from models.errors import InputError
from spaces.choices import Decision
from spaces.nni_compat import (
    Categorical,
    CategoricalMultiple,
    ModelEventType,
    ModelStatus,
    MutableAnnotation,
    Strategy,
    subsets,
)
from spaces.space import Arch

from ..search import Asked, Domain, Objective, Search, Searcher
from ..search.domain import Indices
from ..search.pareto import front

_FORMAT = 2  # of the state; 1, which said no format, was of strategies that drew otherwise
_PLAIN = (bool, int, float, str, type(None))
_logger = logging.getLogger(__name__)


@dataclass
class Trial:
    """An arch that is or was trained.

    Attributes
    ----------
    values
        One for each objective; None as long as it runs, and for good if it failed.
    """

    number: int
    indices: Indices
    arch: Arch
    values: tuple[float, ...] | None = None


class MultiTrialStrategy(Strategy):
    """Base of the strategies that train every candidate on its own.

    A trial that fails, or ends without finite values, teaches nothing and ends nothing. Where no new arch is found, the
    search ends before its budget does, and says so.

    Parameters
    ----------
    searcher
        Decides which arch is next.
    objectives
        ``"metric"`` is the trial's result; others are looked up by name in what the trial reports
        (``nni.report_final_result({"default": 0.9, "flops": 1e9})``), then in `costs`.
    directions
        ``"maximize"`` or ``"minimize"`` for each of them. By default the metric is maximized, the others minimized.
    costs
        Arch to what it costs, by objective.
    seed
        The same seed gives the same archs if results come in the same order; drawn if it is None.
    dedup
        Whether no arch is trained twice.
    feasible
        Whether an arch ``{label: value}`` may be trained at all; it is asked once for every arch.

    Attributes
    ----------
    start_from
        A feasible arch, if one is known. Where draws find none, archs near it and near earlier trials are proposed.
    """

    plain_state: ClassVar[bool] = True  # what `state_dict` gives is what JSON gives back
    _poll_seconds: ClassVar[float] = 0.1

    def __init__(
        self,
        searcher: Searcher,
        *,
        objectives: Sequence[str] = ("metric",),
        directions: Sequence[str] | None = None,
        costs: Callable[[Arch], Mapping[str, float]] | None = None,
        seed: int | None = None,
        dedup: bool = True,
        feasible: Callable[[Arch], bool] | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise InputError(
                f"{type(self).__name__} takes no '{next(iter(unknown))}'; what became of NNI's options: "
                "docs/nni-strategies.md"
            )
        self.objectives, self.costs = tuple(objectives), costs
        self.directions = tuple(directions or ("maximize" if o == "metric" else "minimize" for o in objectives))
        if len(self.directions) != len(self.objectives) or not set(self.directions) <= {"maximize", "minimize"}:
            raise InputError(
                f"directions {list(self.directions)} do not fit objectives {list(self.objectives)}:"
                " right would be 'maximize' or 'minimize' for each"
            )
        self.searcher, self.dedup, self.feasible = searcher, dedup, feasible
        self.start_from: Arch | None = None
        self._seed = secrets.randbits(31) if seed is None else seed
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self.choices: dict[str, list[Any]] = {}
        self._search: Search
        self._forget()

    def values_of(self, arch: Arch, reported: Mapping[str, Any]) -> tuple[float, ...]:
        """The objectives' values, from what the trial reported; ``"default"`` is its metric."""
        known = {"metric": reported["default"], **reported}
        if not set(self.objectives) <= set(known):
            known = {**(self.costs(arch) if self.costs else {}), **known}
        if missing := [name for name in self.objectives if name not in known]:
            raise InputError(
                f"objective '{missing[0]}' is neither among what the trial reports ({', '.join(sorted(reported))})"
                " nor given by costs"
            )
        return tuple(float(known[name]) for name in self.objectives)

    @property
    def trials(self) -> list[Trial]:
        """The trials that ended, in the order in which they began."""
        with self._lock:
            return [trial for trial in self._trials if trial.number not in self._open]

    def pareto_front(self) -> list[Trial]:
        """The trials that no other beats in all objectives."""
        with self._lock:
            good = [trial for trial in self.trials if trial.values is not None]
            return [t for t, best in zip(good, front(self._search.losses(self._search.results())), strict=True) if best]

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, as plain data; trials under way are run again by it."""
        with self._lock:
            allowed = self._search.domain.allowed if self.choices else {}
            return {
                "format": _FORMAT,
                "seed": self._seed,
                "sizes": {label: len(values) for label, values in self.choices.items()},
                "infeasible": sorted(indices for indices, allows in allowed.items() if not allows),
                "log": list(self._log),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over from a strategy of the same settings, after `initialize`.

        Raises
        ------
        InputError
            If that strategy had another space or other settings.
        """
        with self._lock:
            if dict(state["sizes"]) != {label: len(values) for label, values in self.choices.items()}:
                raise InputError("the state to resume is of another space: its decisions are not those of this one")
            self._forget()
            self._seed = state["seed"]
            self._begin()
            self._search.domain.allowed.update((tuple(indices), False) for indices in state["infeasible"])
            self._replaying, told = True, "format" not in state
            for given, number, values in state["log"]:
                indices = None if given is None else tuple(given)
                if number is not None:
                    self._end(number, None if values is None else tuple(values))
                elif told and indices is None:
                    continue
                elif self._propose(indices if told else None) != indices:
                    raise InputError(
                        f"the state to resume does not fit: with its settings of now, {type(self).__name__} would have"
                        f" chosen another arch for trial {len(self._trials) - 1}; resume with the settings of then"
                    )
            self._replaying = False
            self._again.extend(self._open)

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        self.choices = decisions_of(model_space)
        self._constraint = model_space.check_contains
        self._begin()
        engine.register_model_event_callback(ModelEventType.FinalMetric, self._on_metric)
        engine.register_model_event_callback(ModelEventType.TrainingEnd, self._on_end)
        return model_space

    def _run(self) -> None:
        while self.wait_for_resource():
            if (trial := self._next()) is None:
                break
            model = self.model_space.freeze(trial.arch)
            with self._lock:
                self._running[id(model)] = (model, trial)
            self.engine.submit_models(model)
        if self._running and self._error is None:
            # Not by name: what was submitted beyond the budget of a training service is never run.
            self.engine.wait_models()
        if self._error is not None:
            raise self._error

    def _cleanup(self) -> None:
        """Goes on to hear of trials: after Ctrl-C some end before the engine does, which takes them for heard of."""

    def wait_for_resource(self) -> bool:
        """Whether there is budget for another trial, once a worker is free; NNI's own sleeps a second each time."""
        while self._error is None and self.engine.budget_available():
            if self.engine.idle_worker_available():
                return True
            self._ended.wait(self._poll_seconds)
            self._ended.clear()
        return False

    def _next(self) -> Trial | None:
        with self._lock:
            if self._again:
                return self._trials[self._again.pop(0)]
            if self._propose() is not None:
                return self._trials[-1]
            if not self._trials:
                raise InputError("no feasible arch was found: wider limits would be right")
            _logger.warning("No new feasible arch was found: the search ends after %d trials", len(self._trials))
            return None

    def _propose(self, said: Indices | None = None) -> Indices | None:
        asked = self._search.ask(said)
        indices = None if asked is None else asked.indices
        if asked is not None:
            number = len(self._trials)
            self._trials.append(Trial(number, asked.indices, self._arch_of(asked.indices)))
            self._open[number] = asked
        self._log.append((indices, None, None))
        return indices

    def _end(self, number: int, values: tuple[float, ...] | None) -> None:
        self._trials[number].values = values
        self._log.append((None, number, values))
        told = None if values is None else dict(zip(self.objectives, values, strict=True))
        self._search.tell(self._open.pop(number), told)

    def _on_metric(self, event: Any) -> None:
        reported = event.metric if isinstance(event.metric, Mapping) else {"default": event.metric}
        if not isinstance(metric := reported.get("default"), (int, float)) or not math.isfinite(metric):
            event.prevent_default()  # it raises for what is no number, which ends the engine's thread
            return
        with self._lock:
            if id(event.model) in self._running:
                self._reported[id(event.model)] = reported

    def _on_end(self, event: Any) -> None:
        with self._lock:
            _, trial = self._running.pop(id(event.model), (None, None))
            reported = self._reported.pop(id(event.model), None)
            if trial is None or event.status == ModelStatus.Interrupted:
                return  # an interrupted trial stays open, so that it is run again on resume
            try:
                values = None
                if event.status == ModelStatus.Trained and reported is not None:
                    values = self.values_of(trial.arch, reported)
                    values = values if all(map(math.isfinite, values)) else None
                self._end(trial.number, values)
            except Exception as e:
                self._error = e  # raised by the loop; here it would end the engine's thread
        self._ended.set()

    def _begin(self) -> None:
        stream = random.Random(self._seed)
        domain = Domain(
            {label: _decision(label, values) for label, values in self.choices.items()},
            allows=lambda archs: [self._replaying or self._allows(self._arch_of(indices)) for indices in archs],
            known=[] if self.start_from is None else [self._indices_of(self.start_from)],
        )
        objectives = [Objective(o, d == "maximize") for o, d in zip(self.objectives, self.directions, strict=True)]
        self._search = Search(
            domain,
            objectives,
            self.searcher,
            budget=sys.maxsize,  # the engine's own ends the search
            seed=self._seed,
            dedup=self.dedup,
            rng=lambda number, attempt: stream,
        )

    def _allows(self, arch: Arch) -> bool:
        # A space's constraints are annotations, and no decisions.
        return self._constraint(arch) is None and (self.feasible is None or self.feasible(arch))

    def _arch_of(self, indices: Indices) -> Arch:
        return {label: values[i] for (label, values), i in zip(self.choices.items(), indices, strict=True)}

    def _indices_of(self, arch: Arch) -> Indices:
        return tuple(values.index(arch[label]) for label, values in self.choices.items())

    def _forget(self) -> None:
        self._trials: list[Trial] = []
        self._open: dict[int, Asked] = {}  # by number, trials without an end, in order
        self._again: list[int] = []
        self._replaying = False
        # (indices, None, None) of a proposal, (None, number, values) of an end.
        self._log: list[tuple[Indices | None, int | None, tuple[float, ...] | None]] = []
        self._running: dict[int, tuple[Any, Trial]] = {}  # by id; engines hold models weakly, so the model is kept
        self._reported: dict[int, Mapping[str, Any]] = {}  # by the same


def _decision(label: str, values: Sequence[Any]) -> Decision:
    """Of values that Optuna can keep; others by their places."""
    if all(isinstance(v, _PLAIN) for v in values):
        return Decision(label, tuple(values))
    return Decision(label, tuple(range(len(values))), names=tuple(map(str, values)))


def decisions_of(model_space: Any) -> dict[str, list[Any]]:
    """Label to values of a space's decisions.

    Raises
    ------
    InputError
        If one of them is not a choice between given values.
    """
    decisions = {}
    for label, mutable in model_space.simplify().items():
        if isinstance(mutable, Categorical):
            decisions[str(label)] = list(mutable.values)  # NNI's label is a string of its own kind
        elif isinstance(mutable, CategoricalMultiple):
            decisions[str(label)] = subsets(mutable)
        elif not isinstance(mutable, MutableAnnotation):
            raise InputError(f"decision '{label}' is a {type(mutable).__name__}: right would be a choice of values")
    return decisions
