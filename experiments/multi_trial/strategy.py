"""What all multi-trial strategies share: one loop around "which arch next" and "this is what came of it".

A strategy is three methods: `start` sets it up, `propose` names the next arch, `learn` hears of a finished trial.
All of them run under one lock, because a training service reports results in a thread of its own. A strategy is a
function of its seed and of the order of these calls, so its state is their log, and resuming is calling them again.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from models.errors import InputError
from spaces.nni_compat import Categorical, ModelEventType, ModelStatus, MutableAnnotation, Strategy

Arch = dict[str, Any]
Indices = tuple[int, ...]
"""An arch as the position of every decision's value."""

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
    """Base of the strategies that train every candidate on its own, over any of NNI's engines.

    The higher metric is the better one. A trial that fails, or ends without a finite metric, teaches nothing and ends
    nothing. Where no new arch is found, the search ends before its budget does, and says so.

    Parameters
    ----------
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

    _draws: ClassVar[int] = 10_000
    _changes_tried: ClassVar[int] = 50
    _poll_seconds: ClassVar[float] = 0.1

    def __init__(
        self,
        *,
        seed: int | None = None,
        dedup: bool = True,
        feasible: Callable[[Arch], bool] | None = None,
    ) -> None:
        super().__init__()
        self.dedup, self.feasible = dedup, feasible
        self.start_from: Arch | None = None
        self._seed = secrets.randbits(31) if seed is None else seed
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self.choices: dict[str, list[Any]] = {}
        self.sizes: Indices = ()
        self._rare = False  # feasible archs are so rare that draws do not find them
        self._forget()

    def start(self, seed: int) -> None:
        """Set up, once `choices` (label to values) and `sizes` are known."""

    def propose(self) -> Indices | None:
        """The next arch; it must be `usable`. None if there is none."""
        raise NotImplementedError

    def learn(self, trial: Trial) -> None:
        """A trial has ended; its values are None if it failed."""

    def values_of(self, arch: Arch, reported: Mapping[str, Any]) -> tuple[float, ...]:
        """The objectives' values, from the dictionary that the trial reported; ``"default"`` is its metric."""
        return (float(reported["default"]),)

    @property
    def trials(self) -> list[Trial]:
        """The trials that ended, in the order in which they began."""
        with self._lock:
            return [trial for trial in self._trials if trial.number not in self._open]

    def arch_of(self, indices: Indices) -> Arch:
        """``{label: value}``."""
        return {label: values[i] for (label, values), i in zip(self.choices.items(), indices, strict=True)}

    def draw(self) -> Indices:
        """Any arch, each with the same probability."""
        return tuple(self._random.randrange(n) for n in self.sizes)

    def draw_usable(self) -> Indices | None:
        """A random arch that is usable, or None if none was found in so many draws."""
        if not self._rare:
            if found := next((a for a in (self.draw() for _ in range(self._draws)) if self.usable(a)), None):
                return found
            self._rare = self.start_from is not None
        return self._near_feasible() if self._rare else None

    def _near_feasible(self) -> Indices | None:
        """A usable arch one to three decisions away from one that is known to be feasible."""
        first = tuple(values.index(self.start_from[label]) for label, values in self.choices.items())  # type: ignore[index]
        if self.usable(first):
            return first
        free = [i for i, n in enumerate(self.sizes) if n > 1]
        known = [first, *(trial.indices for trial in self._trials)]
        for _ in range(self._draws):
            where = self._random.sample(free, self._random.randint(1, min(3, len(free))))
            child = self._changed(self._random.choice(known), where)
            if self.usable(child):
                return child
        return None

    def _changed(self, indices: Indices, where: Sequence[int]) -> Indices:
        """Another arch, in which these decisions have any value but the present one."""
        child = list(indices)
        for i in where:
            child[i] = (child[i] + self._random.randrange(1, self.sizes[i])) % self.sizes[i]
        return tuple(child)

    def neighbour(self, indices: Indices) -> Indices | None:
        """A usable arch one decision away; where none is found, two away, and so on; at last a random one."""
        free = [i for i, n in enumerate(self.sizes) if n > 1]
        for num_changes in range(1, len(free) + 1):
            for _ in range(self._changes_tried):
                if self.usable(child := self._changed(indices, self._random.sample(free, num_changes))):
                    return child
        return self.draw_usable()

    def usable(self, indices: Indices) -> bool:
        """Whether an arch may be trained: new, where that matters, in the space and feasible."""
        if indices in self._infeasible or (self.dedup and indices in self._seen):
            return False
        if self._replaying or indices in self._seen:
            return True
        arch = self.arch_of(indices)
        # A space's constraints are annotations, and no decisions.
        allowed = self.model_space.check_contains(arch) is None and (self.feasible is None or self.feasible(arch))
        if not allowed:
            self._infeasible.add(indices)
        return allowed

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, as plain data; trials under way are run again by it."""
        with self._lock:
            return {
                "seed": self._seed,
                "sizes": dict(zip(self.choices, self.sizes, strict=True)),
                "infeasible": sorted(self._infeasible),
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
            if dict(state["sizes"]) != dict(zip(self.choices, self.sizes, strict=True)):
                raise InputError("the state to resume is of another space: its decisions are not those of this one")
            self._forget()
            self._seed = state["seed"]
            self._infeasible.update(tuple(indices) for indices in state["infeasible"])
            self._begin()
            self._replaying = True
            for indices, number, values in state["log"]:
                if number is not None:
                    self._end(number, None if values is None else tuple(values))
                elif self._propose() != (None if indices is None else tuple(indices)):
                    raise InputError(
                        f"the state to resume does not fit: with its settings of now, {type(self).__name__} would have"
                        f" chosen another arch for trial {len(self._trials) - 1}; resume with the settings of then"
                    )
            self._replaying = False
            self._again.extend(self._open)

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        self.choices = decisions_of(model_space)
        self.sizes = tuple(len(values) for values in self.choices.values())
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

    def _propose(self) -> Indices | None:
        indices = self.propose()
        if indices is not None:
            number = len(self._trials)
            self._trials.append(Trial(number, indices, self.arch_of(indices)))
            self._seen.add(indices)
            self._open[number] = None
        self._log.append((indices, None, None))
        return indices

    def _end(self, number: int, values: tuple[float, ...] | None) -> None:
        trial = self._trials[number]
        trial.values = values
        del self._open[number]
        self._log.append((None, number, values))
        self.learn(trial)

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
        self._random = random.Random(self._seed)
        self.start(self._seed)

    def _forget(self) -> None:
        self._trials: list[Trial] = []
        self._open: dict[int, None] = {}  # numbers of trials without an end, in order
        self._again: list[int] = []
        self._seen: set[Indices] = set()
        self._infeasible: set[Indices] = set()
        self._replaying = False
        self._rare = False
        # (indices, None, None) of a proposal, (None, number, values) of an end.
        self._log: list[tuple[Indices | None, int | None, tuple[float, ...] | None]] = []
        self._running: dict[int, tuple[Any, Trial]] = {}  # by id; engines hold models weakly, so the model is kept
        self._reported: dict[int, Mapping[str, Any]] = {}  # by the same


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
        elif not isinstance(mutable, MutableAnnotation):
            raise InputError(f"decision '{label}' is a {type(mutable).__name__}: right would be a choice of values")
    return decisions
