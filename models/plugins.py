"""Plug-in files: Python files of other people that register what is theirs. Loads no torch by itself."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from .documents import is_file
from .errors import InputError

# Called with every file before it is imported.
before: list[Callable[[Path], None]] = []


def load_plugin(path: str | Path) -> ModuleType:
    """Import a Python file, once, for the sake of what it registers; files are told apart by their resolved paths."""
    if not is_file(path):
        raise InputError(f"--plugin {path}: no such plug-in file")
    path = Path(path).resolve()
    name = _name_of(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--plugin {path}: not a Python file, by its name; right would be {path.stem}.py")
    module = importlib.util.module_from_spec(spec)
    for call in before:
        call(path)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as e:
        del sys.modules[name]
        raise InputError(
            f"{path}: the plug-in file ends the program (sys.exit({e.code!r})); right would be to do so only below "
            "if __name__ == '__main__'"
        ) from None
    except Exception as e:
        del sys.modules[name]
        first = (str(e).splitlines() or [""])[0]
        raise InputError(f"--plugin {path}: the plug-in file cannot be imported: {type(e).__name__}: {first}") from e
    return module


def plugin_of(path: Path) -> ModuleType:
    """What was imported of a plug-in file."""
    return sys.modules[_name_of(path.resolve())]


def _name_of(path: Path) -> str:
    """The same in all processes, so that what one of them pickles the others know."""
    return f"plugin_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"


def loaded_plugins() -> list[Path]:
    """The plug-in files that were imported so far, in order."""
    return [Path(m.__file__) for name, m in sys.modules.items() if name.startswith("plugin_") and m.__file__]


def load_plugins_of_run(paths: Iterable[str]) -> None:
    """The plug-in files of a run's options. One that has moved may have been loaded from its new place."""
    loaded = {path.name for path in loaded_plugins()}
    for path in paths:
        if Path(path).is_file() or Path(path).name not in loaded:
            load_plugin(path)
