"""What a run's folder may run here: it may be somebody else's.

Asked at the doors, which are ``--resume`` and the options that take a run, such as ``--supernet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.plugins import load_plugin, loaded_plugins
from models.trust import is_as_noted, is_trusted

from .folder import CODE, RunFolder, code_of

_HOW = "--trust, if whoever made it may run code here"


def admit_plugins(run: RunFolder, options: Mapping[str, Any]) -> list[str]:
    """Import the plug-in files that a run names, where they may run.

    One may that was given by ``--plugin``, by its name; or that this user began the run with, and that lies where it
    lay, unchanged.

    Returns
    -------
    Their paths; from here, where they lie below.

    Raises
    ------
    InputError
        One of them may not; none of it was run.
    """
    admitted, given = [], {path.name: path for path in loaded_plugins()}
    for text in code_of(options, ["plugin"]):
        file = given.get(Path(text).name)
        if file is None:
            file = _file(run, text, f"the plug-in {text}", f"--plugin {Path(text).name}, or {_HOW}")
            load_plugin(file)
        admitted.append(text if Path(text).resolve() == file else near(file))
    return admitted


def admit(run: RunFolder, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that is gone on with, once all that they run may; see `admit_plugins`."""
    changed = {"plugin": admit_plugins(run, options)} if "plugin" in options else {}
    for name in CODE:
        for text in code_of(options, [name]) if name != "plugin" else ():
            _file(run, text, f"--{name} {text}, which runs commands", _HOW)
    return {**options, **changed}


def admit_experiment(run: RunFolder) -> None:
    """`InputError` if the database by which NNI goes on with a run's trials, commands in it, may be another's."""
    if run.note is None and not is_trusted():
        raise InputError(f"{run.path}: holds a database of NNI, whose commands would run; right would be {_HOW}")


def _file(run: RunFolder, text: str, what: str, right: str) -> Path:
    note, resolved = run.note or {}, str(Path(text).resolve())
    # Paths that were relative are absolute where a run is gone on with from elsewhere.
    file, hash = note.get(text) or next((e for e in note.values() if e[0] == resolved), [resolved, ""])
    if not is_trusted() and not (hash and is_as_noted(file, hash)):
        why = "is not what and where it was" if hash else "is of a run that may be somebody else's"
        raise InputError(f"{run.path / 'config.yaml'}: {what}, {why}; nothing of it was run; right would be {right}")
    return Path(file)


def near(file: Path) -> str:
    """As another machine takes it, to which the current folder is sent."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
