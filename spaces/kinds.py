"""What a decision is about: the argument of the plain block that it gives, and the rows that read it."""

from __future__ import annotations

import inspect
import re

from models.grammar import Row, choices_in
from models.registry import lookup

from .choices import Follow, read_choice
from .space import Space

DEPTH, RESOLUTION = "number", "resolution"
# Of the searchable blocks' labels, after their row's number: the argument of Conv or C3.
_NAS_KINDS = ((r"nasconv_.*_act", "act"), (r"nasconv_.*", "k"), (r"c3_\d+", "e"), (r"c3_\d+_m\d+", "m_e"))


def kind_of(space: Space) -> dict[str, str]:
    """Label to what it decides on: ``number`` (depth), ``c2`` (width), ``k``, ``e``, …, or ``resolution``.

    By the names of the arguments of the row's class; the first row counts where several share a label.
    """
    kinds: dict[str, str] = {}
    for row in space.config.rows:
        if row.index in space.rows:
            for label in space.labels_of_row(row):
                kinds.setdefault(label, next(kind for pattern, kind in _NAS_KINDS if re.fullmatch(pattern, label)))
            continue
        for where, mapping in choices_in(row):
            choice = read_choice(mapping, f"row{row.index}.{where}")
            if not isinstance(choice, Follow):
                kinds.setdefault(choice.label, _argument(row, where.split(".")[0]))
    kinds.update({label: RESOLUTION for label in space.decisions if label not in kinds})
    return {label: kinds[label] for label in space.decisions}


def depth_of(space: Space) -> dict[int, str]:
    """Row to the label of its depth, where that is a decision."""
    found = {}
    for row in space.config.rows:
        if row.index not in space.rows:
            for where, mapping in choices_in(row):
                choice = read_choice(mapping, f"row{row.index}.{where}")
                if where == DEPTH and not isinstance(choice, Follow):
                    found[row.index] = choice.label
    return found


def _argument(row: Row, where: str) -> str:
    """Name of the argument at a place in a row."""
    if not where.isdecimal():
        return where
    entry = lookup(row)
    names = [name for name in inspect.signature(entry.cls).parameters if name != "c1"]  # which follows from the rows
    if entry.repeats:
        names = [name for name in names if name != "n"]
    return names[int(where)] if int(where) < len(names) else where
