"""Commands that are printed to be copied. Loads no torch."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from models.plugins import loaded_plugins

ROOT = Path(__file__).resolve().parents[2]


def command(script: str, *words: Any) -> str:
    """``python SCRIPT WORDS… --plugin FILES``, as a shell takes it, from the folder that this process is in.

    Parameters
    ----------
    script
        A file of the project's folder.
    words
        Of the command line; what needs quotes has them.
    """
    plugins = [_from_here(path) for path in loaded_plugins()]
    line = ["python", _from_here(ROOT / script), *map(str, words), *(["--plugin", *plugins] if plugins else [])]
    return shlex.join(line)


def resume_command(run: str | Path) -> str:
    """What goes on with a run of the script that runs."""
    script = Path(sys.argv[0]).name
    if (ROOT / script).is_file():
        return command(script, "--resume", run)
    return shlex.join(["--resume", str(run)])


def _from_here(path: Path) -> str:
    """The path, relative where it is below this folder."""
    here = os.path.realpath(os.getcwd())
    resolved = os.path.realpath(path)
    return os.path.relpath(resolved, here) if Path(here) in Path(resolved).parents else str(path)
