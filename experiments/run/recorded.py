"""Paths in the options of a run: they count from where it was started, wherever it is gone on with. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.classify_sets import LANDMARKS, SETS

# Options, of any script, that are a file or a folder, or the name of something that is in neither.
PATHS = (
    *("cfg", "config", "costs", "data", "data_root", "detector", "inherit", "latency_table", "plugin", "space"),
    *("phases", "storage", "supernet", "teacher", "truth", "weights", "arch"),
)
# Names that are no paths, whatever lies there.
_WORDS = (*SETS, LANDMARKS, "elastic", "max", "min", "upstream")
_PREFIXES = ("sqlite:///", "journal:")  # of Optuna's storages


def from_recorded(options: Mapping[str, Any], folder: Any) -> dict[str, Any]:
    """The options of a run that was started in `folder`; paths that are there are so written that they are here too.

    A path that is not there stays as it is, since a run may have been moved together with what it names.
    """
    if not isinstance(folder, str) or Path(folder) == Path.cwd():
        return dict(options)

    def here(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [here(v) for v in value]
        if not isinstance(value, str) or not value or value in _WORDS:
            return value
        prefix = next((p for p in _PREFIXES if value.startswith(p)), "")
        path = value.removeprefix(prefix)
        try:
            there = Path(folder, path)
            return f"{prefix}{there}" if not Path(path).is_absolute() and there.exists() else value
        except (OSError, ValueError):  # no path at all
            return value

    return {name: here(value) if name in PATHS else value for name, value in options.items()}
