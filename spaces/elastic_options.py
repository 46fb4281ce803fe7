"""The choices of one row, and the plain rows that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.grammar import Row, choices_in, is_choice, parse_value

from .choices import Follow, read_choice
from .space import Space

# Indices of values, in the order of a row's labels.
Setting = tuple[int, ...]


class Options:
    """The choices of a row.

    Attributes
    ----------
    labels
        Of the decisions that the row reads.
    """

    def __init__(self, space: Space, row: Row) -> None:
        self._row, self._names = row, {"nc": space.config.nc, "anchors": space.config.anchors}
        # Place of a choice in the row: its label, and a value for every one of the decision's.
        self.places: dict[str, tuple[str, tuple[Any, ...]]] = {}
        for where, mapping in choices_in(row):
            choice = read_choice(mapping, f"row{row.index}.{where}")
            values = space.decisions[choice.label].values
            if isinstance(choice, Follow):
                values = tuple(choice.table[v] for v in values)
            self.places[where] = choice.label, values
        self.labels = tuple(dict.fromkeys(label for label, _ in self.places.values()))
        self.decided = {label: space.decisions[label].values for label in self.labels}

    def at(self, setting: Setting) -> Row:
        """The plain row of a setting, indices of values in the order of `labels`."""
        index = dict(zip(self.labels, setting, strict=True))
        return self.row({where: values[index[label]] for where, (label, values) in self.places.items()})

    def row(self, values: Mapping[str, Any]) -> Row:
        """The plain row with a value at every place."""

        def walk(where: str, value: Any) -> Any:
            if is_choice(value):
                return parse_value(values[where], self._names)
            return [walk(f"{where}.{i}", v) for i, v in enumerate(value)] if isinstance(value, list) else value

        row = self._row
        args = tuple(walk(str(i), arg) for i, arg in enumerate(row.args))
        return replace(
            row, number=walk("number", row.number), args=args, kwargs={k: walk(k, v) for k, v in row.kwargs.items()}
        )


def greatest(values: Sequence[Any]) -> Any:
    return max(values) if all(isinstance(v, (int, float)) for v in values) else values[0]
