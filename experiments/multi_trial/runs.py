"""Runs of multi-trial searches by their folders or the ids of their experiments. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path

from models.errors import InputError

from ..run.folder import RunFolder


def run_of(name: str, project: str) -> str:
    """A run's folder, given that, or the id of its experiment.

    Raises
    ------
    InputError
        If no run below `project` has this experiment.
    """
    if Path(name).exists():  # or a file in it
        return name
    for path in Path(project).glob("*/experiment.json"):
        if json.loads(path.read_text(encoding="utf-8"))["id"] == name:
            return str(path.parent)
    raise InputError(f"{name}: neither the folder of a run nor the id of an experiment below {project}")


def experiment_id(run: RunFolder) -> str:
    """The id of the experiment of a run."""
    path = run.path / "experiment.json"
    if not path.is_file():
        raise InputError(f"{run.path}: not the folder of a multi-trial run (it has no experiment.json)")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])
