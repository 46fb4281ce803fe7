"""The phases of a run, one after another; one that is done is not done again, whatever ended the run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from models.documents import read_json
from models.files import FORMAT, check_format

from ..run.folder import RunFolder
from .options import Options

_SPENT = "spent.json"


@dataclass
class Job:
    """A run as its phases see it.

    Attributes
    ----------
    results
        Of the phases that are done, by name.
    spent
        Seconds of every phase that was begun, those before a resume included.
    """

    options: Options
    run: RunFolder
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run's folder, wherever a resume is called from."""
        return self.run.path.resolve()

    @property
    def data(self) -> str:
        """The set that all phases but the first look at."""
        return str(self.path / "data" / "data.yaml")

    def folder(self, *names: str) -> RunFolder:
        """The folder of a run within this one."""
        path = self.path.joinpath(*names)
        return RunFolder(path.parent, path.name, exist_ok=True)

    def note(self, line: str) -> None:
        """A line on the screen."""
        print(line, flush=True)


class Phase(NamedTuple):
    """A part of a run.

    Attributes
    ----------
    work
        Gives what later phases, and the report, need of it, as JSON has it. Where it was interrupted it is called
        again, and goes on with what it finds in the folder.
    """

    name: str
    title: str
    work: Callable[[Job], dict[str, Any]]


def run_phases(
    job: Job, phases: Sequence[Phase], headline: Callable[[Job, str], str] = lambda job, title: title
) -> None:
    """Do what is not done.

    Parameters
    ----------
    headline
        What is printed as a phase begins, of its number and title.
    """
    job.spent |= _read(job.path / _SPENT) or {}
    for number, (name, title, work) in enumerate(phases, start=1):
        file = job.path / "phases" / f"{name}.json"
        done = _read(file)
        if done is not None:
            check_format(done, file)
            job.results[name] = done["result"]
            continue
        job.note(f"\n{headline(job, f'[{number}/{len(phases)}] {title}')}")
        try:
            # As a resume reads it.
            job.results[name] = json.loads(json.dumps(_timed(job, name, work)))
            content = {"format": FORMAT, "seconds": job.spent[name], "result": job.results[name]}
            job.run.write_json(f"phases/{name}.json", content)
        finally:
            job.run.write_json(_SPENT, job.spent)


def _timed(job: Job, name: str, work: Callable[[Job], dict[str, Any]]) -> dict[str, Any]:
    before, started = job.spent.get(name, 0.0), time.monotonic()
    try:
        return work(job)
    finally:
        job.spent[name] = round(before + time.monotonic() - started, 2)


def _read(file: Path) -> Any:
    return read_json(file) if file.is_file() else None
