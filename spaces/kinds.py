"""What a decision is about: the argument of the plain block that it gives, and the rows that read it."""

from __future__ import annotations

import inspect

from models.catalog import lookup
from models.grammar import Row

from .space import Space

DEPTH, RESOLUTION = "number", "resolution"


def kind_of(space: Space) -> dict[str, str]:
    """Label to what it decides on: ``number`` (depth), ``c2`` (width), ``k``, ``e``, …, or ``resolution``.

    By the names of the arguments of the row's class; the first row counts where several share a label.
    """
    kinds: dict[str, str] = {}
    for row in space.rows:
        for argument, decision in row.decisions():
            kinds.setdefault(decision.label, _name(row.row, argument))
    return {label: kinds.get(label, RESOLUTION) for label in space.decisions}


def depth_of(space: Space) -> dict[int, str]:
    """Row to the label of its depth, where that is a decision."""
    return {r.row.index: d.label for r in space.rows for argument, d in r.decisions() if argument == DEPTH}


def _name(row: Row, argument: str) -> str:
    """Name of an argument that a row may give by position."""
    if not argument.isdecimal():
        return argument
    entry = lookup(row)
    names = [name for name in inspect.signature(entry.cls).parameters if name != "c1"]  # which follows from the rows
    if entry.repeats:
        names = [name for name in names if name != "n"]
    return names[int(argument)] if int(argument) < len(names) else argument
