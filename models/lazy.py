"""Public names that are imported when they are first used (PEP 562), so that a script's ``--help`` loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of `package`: public name to the submodule that holds it, or that it is (``=submodule``)."""

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = import_module(f".{home.removeprefix('=')}", package)
        return module if home.startswith("=") else getattr(module, name)

    return getattr_
