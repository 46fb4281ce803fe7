"""How modules become known to the grammar, and how a row's arguments become the module's.

`register` on a class makes it known; a plug-in file that uses it is read by `load_plugin`. What is known is in
`models.catalog`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .errors import InputError
from .grammar import Config, Row

ChannelRule = Callable[[Config, Row, Sequence[int]], tuple[list[Any], int]]


@dataclass(frozen=True)
class Entry:
    """A registered module: its class, its channel rule, and whether it takes the repeat count itself."""

    cls: Callable[..., nn.Module]
    channels: ChannelRule
    repeats: bool


_REGISTRY: dict[str, Entry] = {}


def one_input(row: Row, c_in: Sequence[int]) -> int:
    """Channels of a row's only input."""
    if isinstance(row.source, tuple):
        raise row.error(f"takes one input: from must be one row index, got {list(row.source)}")
    return c_in[0]


def all_inputs(row: Row, c_in: Sequence[int]) -> list[int]:
    """Channels of the inputs of a row that takes a list of them."""
    if not isinstance(row.source, tuple):
        raise row.error(f"takes a list of inputs: from must be a list of row indices, got {row.source}")
    return list(c_in)


def scaled(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    """(c1, c2, …): c1 follows from the rows, c2 is the first argument, scaled by the width multiple."""
    if not row.args:
        raise row.error("output channels are missing: args must begin with them")
    c2 = config.width(row.args[0], row)
    return [one_input(row, c_in), c2, *row.args[1:]], c2


def unchanged(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    """Arguments as written, as many channels out as in."""
    return list(row.args), one_input(row, c_in)


def register(
    name: str | Callable[..., nn.Module] | None = None, *, channels: ChannelRule = scaled, repeats: bool = False
) -> Callable[[Any], Any]:
    """Make a class known to the grammar under `name` (default: its own name).

    Parameters
    ----------
    channels
        ``(config, row, input channels) -> (constructor arguments, output channels)``. The default is for blocks that
        are built as ``cls(c1, c2, *args)``.
    repeats
        The block takes the repeat count as its third argument instead of being repeated.

    ``@register`` without parentheses is `register` with the defaults.
    """
    if callable(name):
        return register()(name)

    def decorate(cls: Any) -> Any:
        _REGISTRY[name or cls.__name__] = Entry(cls, channels, repeats)
        return cls

    return decorate


def load_plugin(path: str | Path) -> None:
    """Import a Python file, once, for the sake of the modules that it registers."""
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such plug-in file")
    if getattr(sys.modules.get(f"plugin_{path.stem}"), "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(f"plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file, by its name; right would be {path.stem}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[spec.name]
        first = (str(e).splitlines() or [""])[0]
        raise InputError(f"{path}: the plug-in file cannot be imported: {type(e).__name__}: {first}") from e
