"""How modules become known to the grammar, and how a row's arguments become the module's.

`register` on a class makes it known, in a plug-in file too (`models.plugins`). What is known is in `models.catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

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


def kept(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    """(c1, c2, …) that gives as many channels as it takes, as attention does: c2 is c1.

    The row is ``[c2, …]``, where c2 is left out of account, or ``[]``; so the block follows where its input's width is
    open.
    """
    c1 = one_input(row, c_in)
    return [c1, c1, *row.args[1:]], c1


def kept_c1(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    """(c1, …) that gives as many channels as it takes; the arguments behind c1 are the row's."""
    c1 = one_input(row, c_in)
    return [c1, *row.args], c1


def unchanged(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    """Arguments as written, as many channels out as in."""
    return list(row.args), one_input(row, c_in)


def check_channels(row: Row, shape: Sequence[int], channels: int) -> None:
    """`InputError` if a row that gives a map of this shape gives other channels than its rule says."""
    if len(shape) == 4 and shape[1] != channels:
        raise row.error(
            f"gives {shape[1]} channels, but its rule says {channels}; right would be register(channels=…) with a rule "
            "that says what it gives, such as models.registry.kept, or a row with that width"
        )


def register(
    name: str | Callable[..., nn.Module] | None = None, *, channels: ChannelRule = scaled, repeats: bool = False
) -> Callable[[Any], Any]:
    """Make a class known to the grammar under `name` (default: its own name).

    Parameters
    ----------
    channels
        ``(config, row, input channels) -> (constructor arguments, output channels)``. The default is for blocks that
        are built as ``cls(c1, c2, *args)``; `kept`, `kept_c1` and `unchanged` are ready for others.
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
