"""A search as ask and tell, over a study that several workers may share."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna
import psutil
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from models.errors import InputError
from models.files import FORMAT
from spaces.choices import Decision
from spaces.space import Arch

from .base import Evaluated, History, Question, Searcher
from .domain import Domain, Indices

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every study and trial on its own

# A trial without a worker's name for so long was left by one that was killed before it could write it.
_NAMELESS_SECONDS = 10
_CLAIMS = 20
_GIVE_UP_AFTER = 5

Screen = Callable[[History, Sequence[Indices]], Indices]
"""Archs that might be evaluated to the one that is."""


class Objective(NamedTuple):
    """What is to be small or large: a cost of the domain, or what the evaluation tells under that name."""

    name: str
    maximize: bool = False


@dataclass(frozen=True)
class Asked:
    """An arch that is to be evaluated, and told by `Search.tell`.

    Attributes
    ----------
    number
        How many were asked before it in the study.
    costs
        Every cost that the domain tells.
    """

    number: int
    indices: Indices
    arch: Arch
    costs: dict[str, float]
    trial: optuna.Trial


@dataclass(frozen=True)
class Result:
    """An arch whose evaluation has ended.

    Attributes
    ----------
    values
        Of every objective; None if it failed.
    record
        What it was told with, and its costs.
    """

    number: int
    arch: Arch
    values: dict[str, float] | None
    costs: dict[str, float]
    record: dict[str, Any]


class Search:
    """Asks for archs and hears of their values, with a searcher that decides what to ask.

    No network is asked for twice, none outside of the ranges, and in all no more than `budget`; also by several workers
    on one study. What a killed worker was at is asked anew, by number; a failed evaluation counts and is not repeated.

    Parameters
    ----------
    objectives
        At least one. Those that are costs of the domain need not be told.
    storage, name
        Of the study; in memory by default. One that is there is gone on with.
    settings
        What else has to agree with a study that is there.
    screen
        Chooses among `screened` archs in place of taking the searcher's first.
    dedup
        Whether no arch is asked twice.
    rng
        (Number of the question, attempt) to what is drawn from. By default each has a seed of its own, so that what is
        asked follows from the study alone.
    resumes
        Whether the study has to be there.
    first
        Archs that are asked before any of the searcher's, as far as they are feasible.

    Raises
    ------
    InputError
        If the study is there with other settings or directions, or is not there and has to be.
    """

    def __init__(
        self,
        domain: Domain,
        objectives: Sequence[Objective],
        searcher: Searcher,
        *,
        budget: int,
        seed: int = 0,
        storage: BaseStorage | None = None,
        name: str = "search",
        settings: Mapping[str, Any] | None = None,
        screen: Screen | None = None,
        screened: int = 1,
        dedup: bool = True,
        rng: Callable[[int, int], random.Random] | None = None,
        resumes: bool = False,
        first: Sequence[Arch] = (),
    ) -> None:
        if len(objectives) > searcher.most_objectives:
            raise InputError(
                f"{type(searcher).__name__} looks at {searcher.most_objectives} objective, not at {len(objectives)}: "
                "right would be the metric alone, with costs as limits"
            )
        self.domain, self.objectives, self.searcher = domain, tuple(objectives), searcher
        self.budget, self.seed, self.screen, self.screened = budget, seed, screen, screened
        # The trial's own number is another one for each of several workers that are at the same point.
        self.dedup, self._rng = dedup, rng or (lambda *place: random.Random("/".join(map(str, (seed, *place)))))
        self._said: Indices | None = None
        self._first = list(dict.fromkeys(domain.canonical(domain.indices(arch)) for arch in first))
        self.distributions = {label: _distribution(d) for label, d in domain.decisions.items()}
        self._worker = [socket.gethostname(), os.getpid(), psutil.Process().create_time()]
        self._in_a_file = _is_sqlite(storage)
        self._mine: set[int] = set()
        self._read: dict[int, Evaluated] = {}
        try:
            self._open(name, storage, settings or {}, resumes)
        except InputError:
            raise
        except Exception as e:  # a file that is damaged, or of another program, fails wherever it is read
            said = (str(e).splitlines() or [""])[0]
            raise InputError(
                f"the study '{name}' cannot be read: {type(e).__name__}: {said}; right would be another --storage or "
                "--study, or a new run"
            ) from e

    def _open(self, name: str, storage: BaseStorage | None, settings: Mapping[str, Any], resumes: bool) -> None:
        directions: list[Any] = ["maximize" if o.maximize else "minimize" for o in self.objectives]
        self.study = optuna.create_study(
            study_name=name, storage=storage, sampler=_Answers(self), directions=directions, load_if_exists=True
        )
        # Optuna takes any study of the name, and makes one where there is none.
        if resumes and not self.study.user_attrs:
            raise InputError(f"the study '{name}' is not there any more, or was emptied; right would be a new run")
        if (found := [d.name.lower() for d in self.study.directions]) != directions:
            raise InputError(
                f"the study '{name}' is there with other directions: {', '.join(found)}, not {', '.join(directions)}"
            )
        self._agree(name, settings)
        # Searchers shape themselves by the budget that the study began with, so that a larger one goes on the same way.
        if "budget" not in self.study.user_attrs:
            self.study.set_user_attr("budget", self.budget)
        self._first_budget = int(self.study.user_attrs["budget"])
        self.results()  # what cannot be read is said now, not after hours

    def ask(self, said: Indices | None = None) -> Asked | None:
        """The next arch; None when the budget is used up, or there are no more archs.

        Parameters
        ----------
        said
            What to answer in place of the searcher, which is asked nevertheless.
        """
        self._said = said
        failure = "the workers of this study keep asking for the same archs"
        for _ in range(_CLAIMS):
            self._clear()
            if sum(1 for _ in self._trials()) >= self.budget:
                return None
            trial = self.study.ask()
            self._mine.add(trial.number)
            try:
                trial.set_user_attr("worker", self._worker)
                number = self._number(trial.number)
                if number >= self.budget:
                    self._drop(trial.number)
                    return None
                trial.relative_params  # noqa: B018  (asks now: Optuna does not where every decision has one value)
                params = {label: _suggest(trial, label, d) for label, d in self.distributions.items()}
            except _NoMoreArchsError:
                self._drop(trial.number)
                return None
            except BaseException:
                self._drop(trial.number)
                raise
            # Another worker may have been at the same arch at the same time. Who looks last sees the other.
            others = (other for other in self._trials() if other.number != trial.number)
            if not self.dedup or all(other.params != params for other in others):
                try:
                    indices = self.domain.indices(params)
                    return Asked(number, indices, self.domain.arch(indices), self.domain.costs(indices), trial)
                except InputError:  # a pool that is dead, a package that is missing: of all archs
                    self._drop(trial.number)
                    raise
                except Exception as e:
                    # Of one arch, such as one that no runtime takes: a failed evaluation, and on to the next.
                    failure = f"{_CLAIMS} archs in a row had no costs, the last one by {type(e).__name__}: {e}"
                    trial.set_user_attr("record", {"error": f"{type(e).__name__}: {e}"})
                    self._end(trial.number, None)
                except BaseException:
                    self._drop(trial.number)
                    raise
            else:
                self._drop(trial.number)
        raise InputError(failure)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was asked so far, by any worker."""
        return next(self._trials(), None) is None

    def tell(self, asked: Asked, values: Mapping[str, float] | None, record: Mapping[str, Any] | None = None) -> None:
        """What came of an arch.

        Parameters
        ----------
        values
            By name, of every objective that is no cost; None if the evaluation failed.
        record
            Whatever else is to be kept, plain data.
        """
        asked.trial.set_user_attr("costs", asked.costs)
        asked.trial.set_user_attr("record", dict(record or {}))
        known = None if values is None else {**asked.costs, **values}
        if known is not None and all(math.isfinite(known[o.name]) for o in self.objectives):
            self._end(asked.trial.number, [known[o.name] for o in self.objectives])
        else:
            self._end(asked.trial.number, None)

    def abandon(self, asked: Asked) -> None:
        """Give an arch back without a result; it will be asked anew."""
        self._drop(asked.trial.number)

    def results(self) -> list[Result]:
        """What has been told, in the order in which it was asked."""
        found = []
        for number, trial in enumerate(self._trials()):
            if trial.state.is_finished():
                values = trial.values and dict(zip([o.name for o in self.objectives], trial.values, strict=True))
                kept = trial.user_attrs
                arch = self.domain.arch(self.domain.indices(trial.params))
                found.append(Result(number, arch, values or None, kept.get("costs", {}), kept.get("record", {})))
        return found

    def losses(self, results: Sequence[Result]) -> Any:
        """(n, m), of results that did not fail; the smaller the better."""
        import numpy as np

        signs = [-1 if o.maximize else 1 for o in self.objectives]
        rows = [
            [s * r.values[o.name] for s, o in zip(signs, self.objectives, strict=True)] for r in results if r.values
        ]
        return np.array(rows, float).reshape(len(rows), len(self.objectives))

    def _agree(self, name: str, settings: Mapping[str, Any]) -> None:
        """Write what the study is of, or compare it."""
        own = {
            "format": FORMAT,
            "decisions": dict(zip(self.domain.labels, self.domain.values, strict=True)),
            "objectives": self.objectives,
            "ranges": [[r.name, str(r.low), str(r.high)] for r in self.domain.ranges],
            "seed": self.seed,
            "screened": self.screened,
            **({"first": self._first} if self._first else {}),
            **self.searcher.settings,
            **settings,
        }
        there = self.study.user_attrs
        for key, value in json.loads(json.dumps(own)).items():
            if key not in there:
                self.study.set_user_attr(key, value)
            elif there[key] != value:
                raise InputError(
                    f"the study '{name}' is there with another setting: {key} is {there[key]!r}, not {value!r}"
                )

    def _trials(self) -> Iterator[FrozenTrial]:
        """Trials that count, by number: all but those that were given back or left behind."""
        trials, marks = self.study.get_trials(deepcopy=False), self.study.user_attrs
        return (t for t in trials if _mark(t.number) not in marks)

    def _number(self, trial: int) -> int:
        return sum(t.number < trial for t in self._trials())

    def _drop(self, number: int) -> None:
        self.study.set_user_attr(_mark(number), True)
        self._end(number, None)

    def _end(self, number: int, values: Sequence[float] | None) -> None:
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        # Another worker may end it between Optuna's look and its writing, which skip_if_finished does not cover.
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, values, state=state, skip_if_finished=True)
        self._mine.discard(number)

    def _clear(self) -> None:
        """Give back what workers of this machine left behind when they were killed."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.number not in self._mine and self._left(trial):
                self._drop(trial.number)

    def _left(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is None:
            age = datetime.datetime.now() - (trial.datetime_start or datetime.datetime.min)
            return age.total_seconds() > _NAMELESS_SECONDS
        host, pid, started = worker
        if host != self._worker[0]:
            # A container has another name each time it starts; a file of SQLite is not shared between machines.
            return self._in_a_file
        try:
            return bool(psutil.Process(pid).create_time() != started)
        except psutil.NoSuchProcess:
            return True

    def _history(self, number: int) -> History:
        evaluated, seen = [], set()
        for trial in self._trials():
            if trial.number == number or len(trial.params) < len(self.distributions):
                continue
            if trial.number not in self._read:
                one = Evaluated(self.domain.canonical(self.domain.indices(trial.params)), None)
                if trial.values is not None:
                    signs = [-1 if o.maximize else 1 for o in self.objectives]
                    one = one._replace(losses=tuple(s * v for s, v in zip(signs, trial.values, strict=True)))
                if not trial.state.is_finished():
                    seen.add(one.indices)
                    continue
                self._read[trial.number] = one
            evaluated.append(self._read[trial.number])
            seen.add(evaluated[-1].indices)
        return History(evaluated, seen, self._number(number), self._first_budget)

    def _answer(self, trial: FrozenTrial) -> Indices:
        history = self._history(trial.number)
        for told in self._first if len(history.seen) < len(self._first) else ():
            if told not in history.seen and self.domain.feasible(told):
                return told
        costs = tuple(o.name if o.name in self.domain.providers else None for o in self.objectives)
        found: list[Indices] = []
        arch: Indices | None = None
        for attempt in range(self.searcher.attempts * self.screened):
            rng = self._rng(history.number, attempt)
            question = Question(self.domain, history, self.seed, rng, costs, self.study, trial, self.distributions)
            arch = self.searcher.propose(question)
            if arch is None:
                break
            arch = self.domain.canonical(arch)
            new = not self.dedup or arch not in history.seen
            if new and arch not in found and self.domain.feasible(arch):
                found.append(arch)
                if len(found) == self.screened:
                    break
        if not found and arch is not None:
            arch = self.domain.settle(arch, history.seen if self.dedup else (), rng)
            found = [] if arch is None else [arch]
        if self._said is not None:
            return self._said
        if not found:
            raise _NoMoreArchsError
        return self.screen(history, found) if self.screen and len(found) > 1 else found[0]


def evaluate(
    search: Search, metric: str, rate: Callable[[Arch], float], record: Mapping[str, Any] | None = None
) -> None:
    """Ask, rate and tell until there is nothing left to ask for.

    An evaluation that fails is one failed evaluation.

    Raises
    ------
    InputError
        If the first five all fail: says why the last one did.
    """
    ended = succeeded = 0
    while (asked := search.ask()) is not None:
        began, told, values = time.perf_counter(), dict(record or {}), None
        try:
            value = float(rate(asked.arch))
            if not math.isfinite(value):
                raise ValueError(f"{metric} is {value}")
            values = {metric: value}
        except Exception as e:
            told["error"] = f"{type(e).__name__}: {e}"
            print(f"trial {asked.number} failed: {told['error']}", flush=True)
        except BaseException:
            search.abandon(asked)
            raise
        told["seconds"] = round(time.perf_counter() - began, 3)
        search.tell(asked, values, told)
        ended, succeeded = ended + 1, succeeded + (values is not None)
        if ended == _GIVE_UP_AFTER and not succeeded:
            raise InputError(f"the first {ended} evaluations all failed, the last one by {told['error']}")


def _is_sqlite(storage: BaseStorage | None) -> bool:
    backend = getattr(storage, "_backend", storage)  # Optuna wraps databases in a cache
    engine = getattr(backend, "engine", None)
    return engine is not None and engine.dialect.name == "sqlite"


def _mark(number: int) -> str:
    """Attribute of a study that says that a trial does not count."""
    return f"abandoned {number}"


class _NoMoreArchsError(Exception):
    """There are no more archs."""


class _Answers(BaseSampler):
    """A search's answers as a sampler of Optuna."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._search.distributions)

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return self._search.domain.arch(self._search._answer(trial))

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        raise NotImplementedError


def _distribution(decision: Decision) -> BaseDistribution:
    """Whole numbers in equal steps as such, so that models know what is near; names are in no order."""
    values = decision.values
    if len(values) > 2 and all(type(v) is int for v in values) and not decision.names:
        steps = {b - a for a, b in itertools.pairwise(values)}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return IntDistribution(values[0], values[-1], step=step)
    return CategoricalDistribution(values)


def _suggest(trial: optuna.Trial, label: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(label, distribution.low, distribution.high, step=distribution.step)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(label, distribution.choices)
