"""How the time is spent: so many epochs and archs that all of it ends in time. Measured, and said before it begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.errors import InputError

from ..run.console import say
from ..run.tables import table
from .options import Options
from .phases import Job

HOURS = 1.0
_FILE = "plan.json"
# Of the time that is left, for what is trained or searched.
_SHARES = {"baselines": 0.2, "supernet": 0.25, "search": 0.1, "finetune": 0.1, "long": 0.35}
# More brings nothing.
_MOST = {"baselines": 300, "supernet": 300, "search": 500, "finetune": 100, "long": 300}
_QUICK = {"baselines": 8, "supernet": 8, "search": 12, "finetune": 3, "long": 3}
SEARCHING = ("supernet", "search", "finetune", "long")
_TRIALS = 40  # where epochs are told
UNITS = {"baselines": "epochs", "supernet": "epochs", "search": "archs", "finetune": "epochs", "long": "epochs"}


@dataclass(frozen=True)
class Step:
    """A phase that takes as long as it is given.

    Attributes
    ----------
    count
        Epochs, or archs.
    seconds
        Of one.
    """

    name: str
    count: int
    seconds: float

    @property
    def total(self) -> float:
        """Seconds."""
        return self.count * self.seconds


@dataclass(frozen=True)
class Paces:
    """What was measured before anything was trained, or in the phases that are done.

    Attributes
    ----------
    seconds
        Of an epoch of all baselines together, of the supernet, of all finetunings together and of the two that are
        trained on; of the rating of an arch. By phase.
    fixed
        Of what takes as long as it takes, by phase: ``test``, ``export`` and so on.
    equal
        Plain networks that are trained for equal time, beside the time of all else.
    """

    seconds: Mapping[str, float]
    fixed: Mapping[str, float]
    equal: int = 0

    def slower(self, factor: float, names: Sequence[str]) -> Paces:
        """With trainings that take so many times as long."""
        return replace(self, seconds={k: v * factor if k in names else v for k, v in self.seconds.items()})


def steps_for(paces: Paces, seconds: float, names: Sequence[str]) -> list[Step]:
    """As many epochs and archs of the phases as fit into the seconds, one of each at least.

    What a phase does not need of its share, since more brings nothing, others have.
    """
    left, counts = seconds - sum(paces.fixed.values()), {}
    shares = {name: _SHARES[name] for name in names}
    open_names = list(shares)
    while open_names:
        of = sum(shares[n] for n in open_names)
        fits = {n: int(left * shares[n] / of / paces.seconds[n]) for n in open_names}
        full = [n for n in open_names if fits[n] >= _MOST[n] or fits[n] < 1]
        for n in full or open_names:
            counts[n] = min(max(fits[n], 1), _MOST[n])
            left -= counts[n] * paces.seconds[n]
            open_names.remove(n) if full else None
        if not full:
            break
    return [Step(n, counts[n], paces.seconds[n]) for n in names]


def told_counts(options: Options) -> dict[str, int]:
    """What ``--quick``, ``--epochs`` and ``--trials`` say; empty where the time does."""
    counts: dict[str, int] = {}
    if options.quick:
        counts = dict(_QUICK)
    if options.epochs is not None:
        half = max(options.epochs // 2, 1)
        counts = dict.fromkeys(("baselines", "supernet", "long"), options.epochs)
        counts |= {"search": _TRIALS, "finetune": half}
    return counts | ({"search": options.trials} if options.trials is not None else {})


def seconds_told(options: Options) -> float | None:
    """Of all of it; None where counts are told instead."""
    return None if options.quick or options.epochs is not None else 3600 * (options.hours or HOURS)


class Plan:
    """The plan of a run; it is made anew before every phase, with what the ones before took, and kept by a resume."""

    def __init__(self, job: Job, paces: Paces, names: Sequence[str]) -> None:
        self.job, self.paces, self.names = job, paces, list(names)
        self._path = job.path / _FILE
        self._decided: dict[str, int] = json.loads(self._path.read_text())["counts"] if self._path.is_file() else {}

    def steps(self) -> list[Step]:
        """What is to be done of what is not done yet."""
        names = [n for n in self.names if n not in self.job.results]
        told, seconds = told_counts(self.job.options), seconds_told(self.job.options)
        paces = self._corrected()
        if seconds is None:
            found = [Step(n, told[n], paces.seconds[n]) for n in names]
        else:
            found = steps_for(paces, seconds - sum(self.job.spent.values()), names)
        found = [replace(s, count=told.get(s.name, s.count)) for s in found]
        return [replace(s, count=self._decided.get(s.name, s.count)) for s in found]

    def decide(self, name: str) -> int:
        """The count of a phase that begins; from now on it is that."""
        if name not in self._decided:
            self._decided[name] = next(s.count for s in self.steps() if s.name == name)
            self.job.run.write_json(_FILE, {"counts": self._decided, "paces": asdict(self._corrected())})
        return self._decided[name]

    def left(self, of: str | None = None) -> float:
        """Seconds from now on, or of one phase."""
        totals = {s.name: s.total for s in self.steps()}
        if self.paces.equal and "equal" not in self.job.results:
            totals["equal"] = self.paces.equal * (
                searching_seconds(self.job) + sum(totals.get(n, 0) for n in SEARCHING)
            )
        fixed = {k: v for k, v in self.paces.fixed.items() if k not in self.job.results}
        return {**totals, **fixed}.get(of, 0.0) if of is not None else sum(totals.values()) + sum(fixed.values())

    def check(self) -> None:
        """`InputError` if not even the least there is to do fits into the time."""
        seconds = seconds_told(self.job.options)
        if seconds is None:
            return
        least = sum(self.paces.seconds[n] for n in self.names) + sum(self.paces.fixed.values())
        least += sum(self.job.spent.values())
        if least > seconds:
            hours = f"{least / 3600 * 3:.2g}"
            raise InputError(
                f"--hours {seconds / 3600:g}: an epoch of each training and one arch take {duration(least)}; right "
                f"would be --hours {hours} or more, or a smaller --imgsz"
            )

    def say(self) -> None:
        """The plan as a table."""
        steps = self.steps()
        rows = [[s.name, f"{s.count} {UNITS[s.name]}", duration(s.total)] for s in steps]
        rows += [[name, "", duration(v)] for name, v in self.paces.fixed.items()]
        if self.paces.equal:
            rows.append(["equal", f"{self.paces.equal} plain, as long each", duration(self.left("equal"))])
        seconds = seconds_told(self.job.options)
        beside = ", beside equal" if self.paces.equal else ""
        kept = (
            ""
            if seconds is None
            else f"; --hours {seconds / 3600:g} is kept to{beside}: what takes longer leaves less to the rest"
        )
        say(
            table(["phase", "", "about"], rows, "the plan", left=["phase"]),
            f"about {duration(self.left())} from now on{kept}",
        )

    def _corrected(self) -> Paces:
        """Trainings are as much slower, or faster, than measured on random images as the one of the baselines was."""
        if "baselines" not in self.job.results or not self._decided.get("baselines"):
            return self.paces
        factor = self.job.spent["baselines"] / (self._decided["baselines"] * self.paces.seconds["baselines"])
        return self.paces.slower(factor, ("supernet", "finetune", "long"))


def searching_seconds(job: Job) -> float:
    """What supernet, search, finetuning and training on took until now."""
    return sum(job.spent.get(name, 0.0) for name in SEARCHING)


def duration(seconds: float) -> str:
    """To be read by people."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{max(seconds, 0):.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def plan_of(job: Job, names: Sequence[str] | None = None) -> Plan:
    """The plan of what the phase ``measure`` found."""
    found: Any = job.results["measure"]["paces"]
    if {*found["seconds"]} != {*_SHARES}:
        raise InputError(
            f"{job.path}: was begun by an earlier version, whose phases are others; right would be a new run"
        )
    return Plan(job, Paces(**found), list(found["seconds"]) if names is None else names)
