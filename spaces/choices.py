"""Choices in the grammar: what a YAML leaves open, as decisions with labels and values. Pure Python.

| notation | meaning |
|---|---|
| ``{choice: [a, b, c]}`` | one of these |
| ``{range: [min, max, step]}`` | min, min + step … max, inclusive |
| ``{table: {1: 4, 2: 6}, by: LABEL}`` | follows another choice, no freedom of its own (CompOFA's coupling) |
| ``plain: a`` | which of them the plain network has that the space was made of; else it is the first |
| ``label: NAME`` | names the decision; equal labels are one decision. Default ``row{i}.{arg}`` |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models import limits
from models.errors import InputError

_MISSING = object()


@dataclass(frozen=True)
class Decision:
    """One labelled decision and its values.

    Attributes
    ----------
    default
        What an arch without the label means, if it may lack it.
    plain
        What the plain network has that the space was made of.
    names
        What people read in place of each value, where it does not say enough by itself.
    """

    label: str
    values: tuple[Any, ...]
    default: Any = _MISSING
    names: tuple[str, ...] = ()
    plain: Any = _MISSING

    def name(self, value: Any) -> str:
        """What people read in place of `value`."""
        return self.names[self.values.index(value)] if self.names else str(value)

    @property
    def has_default(self) -> bool:
        return self.default is not _MISSING

    @property
    def upstream(self) -> Any:
        """`plain`, where it is known; else the default, else the first value."""
        if self.plain is not _MISSING:
            return self.plain
        return self.default if self.has_default else self.values[0]

    def value(self, arch: Mapping[str, Any]) -> Any:
        """What `arch` has chosen."""
        return arch[self.label]

    def match(self, value: Any) -> Any:
        """The decision's own value that `value` stands for (``"1"`` is 1); `InputError` if there is none."""
        for own in self.values:
            if own == value or str(own) == str(value) or _as_number(own) == _as_number(value) is not None:
                return own
        valid = ", ".join(map(str, self.values))
        raise InputError(f"arch label '{self.label}': {value!r} does not fit; valid are {valid}")


@dataclass(frozen=True)
class Follow:
    """A value that is read off a table by another decision."""

    label: str
    table: Mapping[Any, Any]

    def value(self, arch: Mapping[str, Any]) -> Any:
        """What stands in the table for what `arch` has chosen."""
        return self.table[arch[self.label]]


def _as_number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def default_label(index: int, where: str) -> str:
    """Label of a choice that has none of its own, by its row and its place there."""
    return f"row{index}.{where}"


def read_choice(
    mapping: Mapping[str, Any], label: str, error: Callable[[str], InputError] = InputError
) -> Decision | Follow:
    """Read a choice mapping, which has `label` unless it says another; `error` adds the place to what is wrong."""
    kinds = [k for k in ("choice", "range", "table") if k in mapping]
    allowed = {"table": {"table", "by"}}.get(kinds[0], {kinds[0], "label"})
    if len(kinds) != 1 or set(mapping) - allowed - ({"plain"} if "label" in allowed else set()):
        raise error(f"a choice has the keys {' and '.join(sorted(allowed))}, got {', '.join(map(str, mapping))}")
    if kinds[0] == "table":
        table, by = mapping["table"], mapping.get("by")
        if not isinstance(table, Mapping) or not table or not isinstance(by, str):
            raise error("a table is written {table: {value: result, …}, by: LABEL}")
        return Follow(by, table)
    label = mapping.get("label", label)
    if not isinstance(label, str) or not label or "/" in label:  # which NNI keeps for itself
        raise error(f"a label is a name without '/', got {label!r}")
    values = mapping["choice"] if kinds[0] == "choice" else _steps(mapping["range"], error)
    if isinstance(values, list) and len(values) > limits.VALUES:
        raise error(f"a choice of {len(values):,} values; right would be {limits.VALUES:,} at most")
    if not isinstance(values, list) or not values or any(isinstance(v, (dict, list)) for v in values):
        raise error(f"a choice is a list of one or more values, got {values!r}")
    if len(set(map(str, values))) != len(values) or len(set(values)) != len(values):
        raise error(f"a choice names a value twice: {values!r}")
    if "plain" not in mapping:
        return Decision(label, tuple(values))
    if mapping["plain"] not in values:
        raise error(f"plain is {mapping['plain']!r}, which is none of {values!r}")
    return Decision(label, tuple(values), plain=mapping["plain"])


def _steps(bounds: Any, error: Callable[[str], InputError]) -> list[Any]:
    numbers = isinstance(bounds, list) and len(bounds) == 3 and all(type(b) in (int, float) for b in bounds)
    numbers = numbers and all(map(math.isfinite, bounds))
    if not numbers or bounds[2] <= 0 or bounds[1] < bounds[0]:
        raise error(f"a range is [min, max, step] with min <= max and step > 0, got {bounds!r}")
    low, high, step = bounds
    # Steps are counted, not added up, and rounded: 0.1 + 0.2 is to be written 0.3.
    ratio = (high - low) / step
    if ratio > limits.VALUES:
        raise error(f"range {bounds} has more than {limits.VALUES:,} values; right would be a larger step")
    count = int(ratio + 1e-9) + 1
    steps = [low + i * step for i in range(count)]
    return steps if isinstance(low, int) and isinstance(step, int) else [round(v, 10) for v in steps]
