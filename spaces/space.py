"""A search space: a YAML with decisions, and `freeze`, which turns an arch into a plain YAML again. Pure Python."""

from __future__ import annotations

import copy
import difflib
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models import limits
from models.documents import exists, read_json
from models.errors import InputError
from models.grammar import SECTIONS, Config, Row, is_choice, read_config

from . import legacy
from .choices import Decision, Follow, read_choice
from .nas_rows import NAS_ROWS
from .rows import ChoiceRow

Arch = dict[str, Any]


class Space:
    """The decisions of a YAML, in the order of its rows.

    Attributes
    ----------
    config
        The YAML.
    decisions
        Label to `Decision`.
    row_of
        Label to the index of the first row that it decides on; `resolution` has none.
    rows
        By index; each knows the places of its choices.
    resolution
        The decision on the input's size, if that is open.
    """

    def __init__(self, cfg: str | Path | Mapping[str, Any] | Config, nc: int | None = None) -> None:
        self.config = cfg if isinstance(cfg, Config) and nc is None else read_config(cfg, nc)
        self.decisions: dict[str, Decision] = {}
        self.row_of: dict[str, int] = {}
        self.rows = tuple(NAS_ROWS.get(r.module, ChoiceRow)(self.config, r) for r in self.config.rows)
        for row in self.rows:
            for _, decision in row.decisions():
                self._add(decision, row.row.error)
                self.row_of.setdefault(decision.label, row.row.index)
        self.resolution = self._read_resolution()
        for row in self.rows:
            for follow in (choice for choice in row.places.values() if isinstance(choice, Follow)):
                if follow.label not in self.decisions:
                    raise row.row.error(f"'by: {follow.label}' names no decision of this YAML")
                if missing := [v for v in self.decisions[follow.label].values if v not in follow.table]:
                    raise row.row.error(f"the table by '{follow.label}' lacks {missing}")

    def _read_resolution(self) -> Decision | None:
        written: Any = self.config.raw.get("resolution")
        if not is_choice(written):
            return None

        def error(message: str) -> InputError:
            return InputError(f"{self.config.file}: resolution: {message}")

        choice = read_choice(written, "resolution", error)
        if isinstance(choice, Follow) or "label" in written:
            raise error("right would be a choice or a range without a label: it is the decision 'resolution'")
        for value in choice.values:
            if type(value) is not int or value < 1:
                raise error(f"must be positive integers, got {value!r}")
        self._add(choice, error)
        return choice

    def _add(self, decision: Decision, error: Callable[[str], InputError]) -> None:
        if len(self.decisions) >= limits.DECISIONS:
            raise error(f"with it there are more than {limits.DECISIONS:,} decisions, which no space has")
        known = self.decisions.setdefault(decision.label, decision)
        if known.values != decision.values:
            raise error(
                f"label '{decision.label}' has the values {list(decision.values)}, "
                f"but elsewhere {list(known.values)}: equal labels are one decision"
            )
        if known.upstream != decision.upstream:
            raise error(
                f"label '{decision.label}' has the plain value {decision.upstream!r}, "
                f"but elsewhere {known.upstream!r}: equal labels are one decision"
            )

    def size(self) -> int:
        """Number of archs."""
        return math.prod(len(d.values) for d in self.decisions.values())

    def upstream(self) -> Arch:
        """The arch of the plain network; where a choice does not say which of its values that has, its first."""
        return {k: d.upstream for k, d in self.decisions.items()}

    def sample(self, rng: random.Random) -> Arch:
        """An arch drawn uniformly."""
        return {label: rng.choice(d.values) for label, d in self.decisions.items()}

    def complete(self, arch: Mapping[str, Any]) -> Arch:
        """`arch` with every label, and every value the space's own.

        Values may be written as strings, labels of searchable blocks may be absent (they mean the block as upstream
        builds it), and archs of the first YOLOv5/NNI search are translated.

        Raises
        ------
        InputError
            Names the label that does not fit and lists what would.
        """
        if not isinstance(arch, Mapping):
            raise InputError(f"an arch is a mapping of labels to values, got {type(arch).__name__}")
        arch = legacy.translate(arch, self.rows)
        for label in arch:
            if label not in self.decisions:
                close = difflib.get_close_matches(str(label), self.decisions, n=3) or list(self.decisions)[:3]
                raise InputError(
                    f"arch label '{label}' is not of the space {self.config.file}; "
                    f"it has {len(self.decisions)} labels, the nearest: {', '.join(close) or 'none'}"
                )
        result = {}
        for label, decision in self.decisions.items():
            if label in arch:
                result[label] = decision.match(arch[label])
            elif decision.has_default:
                result[label] = decision.default
            else:
                raise InputError(f"arch label '{label}' is missing; valid are {', '.join(map(str, decision.values))}")
        return result

    def canonical(self, arch: Mapping[str, Any]) -> Arch:
        """The arch that stands for all those that are the same network as `arch`; see `spaces.twins`.

        An identity and the block behind it may have changed places, or a decision may be on a block that is left out.
        """
        from .twins import twins_of

        return twins_of(self)(self.complete(arch))

    def freeze(self, arch: Mapping[str, Any]) -> dict[str, Any]:
        """The plain YAML that `arch` means; see `spaces.freeze`."""
        full = self.complete(arch)
        sections: dict[str, list[Any]] = {name: [] for name in SECTIONS}
        for row in self.rows:
            sections[row.row.section].append(row.freeze(full))
        if not sections["head"]:
            del sections["head"]
        raw = {k: v for k, v in self.config.raw.items() if k not in SECTIONS}
        if self.resolution is not None:
            raw["resolution"] = self.freeze_resolution(full)
        return copy.deepcopy({**raw, **sections})

    def row_at(self, row: Row, arch: Arch) -> Row:
        """The plain row that `arch` means; it has all labels that the row reads."""
        return self.rows[row.index].at(arch)

    def freeze_resolution(self, arch: Arch) -> Any:
        """The YAML's `resolution` at `arch`, None where it says nothing of it."""
        return self.config.raw.get("resolution") if self.resolution is None else self.resolution.value(arch)


def space_of(cfg: str | Path | Mapping[str, Any] | Config | Space) -> Space:
    """The space of a path, a mapping, a `Config`, or itself."""
    return cfg if isinstance(cfg, Space) else Space(cfg)


def freeze(cfg: str | Path | Mapping[str, Any] | Config | Space, arch: Mapping[str, Any]) -> dict[str, Any]:
    """The plain YAML that `arch` means in the space `cfg`.

    Where the arch needs nothing beyond upstream's positional arguments a row is written in exactly upstream's form.
    A plain YAML with an empty arch freezes to itself.

    Raises
    ------
    InputError
        Names the label that does not fit and lists the valid values.
    """
    return space_of(cfg).freeze(arch)


def read_arch(path: str | Path) -> dict[str, Any]:
    """Read an arch JSON: a mapping of labels to values."""
    if not exists(path):
        raise InputError(f"{path}: no such arch file")
    try:
        arch = read_json(path)
    except InputError as e:
        raise InputError(f"{path}: not an arch JSON: {str(e).removeprefix(f'{path}: ')}") from None
    if not isinstance(arch, dict):
        raise InputError(f"{path}: an arch is a JSON object {{label: value}}, got {type(arch).__name__}")
    return arch
