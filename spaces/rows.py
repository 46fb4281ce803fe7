"""The rows of a space: what each leaves open, and the plain row that an arch means. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.grammar import Config, Row, choices_in, is_choice

from .choices import Decision, Follow, default_label, read_choice

# [from, number, module, args], as a YAML has it.
Written = list[Any]


class SpaceRow:
    """What all rows of a space are, with choices in the grammar or searchable blocks.

    Attributes
    ----------
    places
        What is chosen, by where in the row: ``number``, or an argument's position or name, and behind it the index in
        a list (``0``, ``2.1``, ``e``, ``m_e.0``).
    """

    def __init__(self, config: Config, row: Row) -> None:
        self.config, self.row = config, row
        self.places: dict[str, Decision | Follow] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the decisions that the row reads."""
        return tuple(dict.fromkeys(choice.label for choice in self.places.values()))

    def decisions(self) -> Iterator[tuple[str, Decision]]:
        """(argument, decision on it), in the row's order."""
        for where, choice in self.places.items():
            if isinstance(choice, Decision):
                yield where.split(".")[0], choice

    def freeze(self, arch: Mapping[str, Any]) -> Written:
        """The plain row that `arch` means, which has all of `labels`. It shares lists with the space's YAML."""
        raise NotImplementedError

    def at(self, arch: Mapping[str, Any]) -> Row:
        """`freeze`, read."""
        return self.config.read_row(self.row, self.freeze(arch))


class ChoiceRow(SpaceRow):
    """A row as the grammar has it, plain or with choices."""

    def __init__(self, config: Config, row: Row) -> None:
        super().__init__(config, row)
        for where, mapping in choices_in(row):
            self.places[where] = read_choice(mapping, default_label(row.index, where), row.error)

    def freeze(self, arch: Mapping[str, Any]) -> Written:
        return self.filled({where: choice.value(arch) for where, choice in self.places.items()})

    def filled(self, values: Mapping[str, Any]) -> Written:
        """The plain row with a value at every place."""

        def fill(where: str, value: Any) -> Any:
            if is_choice(value):
                return values[where]
            return [fill(f"{where}.{i}", v) for i, v in enumerate(value)] if isinstance(value, list) else value

        source, number, module, args = self.row.written
        filled: list[Any] = []
        for i, arg in enumerate(args):
            named = isinstance(arg, Mapping) and not is_choice(arg)
            filled.append({k: fill(k, v) for k, v in arg.items()} if named else fill(str(i), arg))
        return [source, fill("number", number), module, filled]
