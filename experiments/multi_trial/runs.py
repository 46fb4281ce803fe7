"""Runs of multi-trial searches by their folders or the ids of their experiments. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from models.documents import is_file, is_folder, read_json
from models.errors import InputError
from models.schemas import Experiment

from ..run.folder import RunFolder


def run_of(name: str, project: str) -> str:
    """A run's folder, given that, or the id of its experiment.

    Raises
    ------
    InputError
        If no run below `project` has this experiment.
    """
    if is_folder(name) or is_file(name):  # or a file in it
        return name
    for path in Path(project).glob("*/experiment.json"):
        if _id(path) == name:
            return str(path.parent)
    raise InputError(f"{name}: neither the folder of a run nor the id of an experiment below {project}")


def experiment_id(run: RunFolder) -> str:
    """The id of the experiment of a run."""
    path = run.path / "experiment.json"
    if not is_file(path):
        raise InputError(f"{run.path}: not the folder of a multi-trial run (it has no experiment.json)")
    return _id(path)


def _id(path: Path) -> str:
    return Experiment.of(read_json(path), path).id
