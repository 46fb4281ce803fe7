"""A search space: a YAML with decisions, and `freeze`, which turns an arch into a plain YAML again. Pure Python."""

from __future__ import annotations

import copy
import difflib
import functools
import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.grammar import Config, Row, choices_in, is_choice, read_config

from . import legacy
from .choices import Decision, Follow, read_choice
from .nas_rows import NAS_ROWS, NASC3Row

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
    """

    def __init__(self, cfg: str | Path | Mapping[str, Any] | Config, nc: int | None = None) -> None:
        self.config = cfg if isinstance(cfg, Config) and nc is None else read_config(cfg, nc)
        self.decisions: dict[str, Decision] = {}
        self.row_of: dict[str, int] = {}
        self.rows = {r.index: NAS_ROWS[r.module](self.config, r) for r in self.config.rows if r.module in NAS_ROWS}
        self._follows: list[tuple[str, Follow]] = []
        for row in self.config.rows:
            if row.index in self.rows:
                for decision in self.rows[row.index].decisions():
                    self._add(decision, f"row {row.index} ({row.module})")
            for where, mapping in choices_in(row):
                if row.index in self.rows:
                    raise row.error(f"{where} is a choice, but a searchable block has its own")
                self._read(mapping, f"row{row.index}.{where}", f"row {row.index} ({row.module})")
            for label in self.decisions:
                self.row_of.setdefault(label, row.index)
        resolution = self.config.raw.get("resolution")
        if resolution is not None and is_choice(resolution):
            if "table" in resolution or "label" in resolution:
                raise InputError(
                    f"{self.config.file}: resolution: right would be a choice or a range without a label: it is the "
                    "decision 'resolution'"
                )
            self._read(resolution, "resolution", "resolution")
        for where, follow in self._follows:
            if follow.label not in self.decisions:
                raise InputError(f"{self.config.file}: {where}: 'by: {follow.label}' names no decision of this YAML")
            if missing := [v for v in self.decisions[follow.label].values if v not in follow.table]:
                raise InputError(f"{self.config.file}: {where}: the table by '{follow.label}' lacks {missing}")

    def _read(self, mapping: Mapping[str, Any], label: str, where: str) -> None:
        try:
            choice = read_choice(mapping, label)
        except InputError as e:
            raise InputError(f"{self.config.file}: {where}: {e}") from None
        if isinstance(choice, Follow):
            self._follows.append((where, choice))
        else:
            self._add(choice, where)

    def _add(self, decision: Decision, where: str) -> None:
        known = self.decisions.setdefault(decision.label, decision)
        if known.values != decision.values:
            raise InputError(
                f"{self.config.file}: {where}: label '{decision.label}' has the values {list(decision.values)}, "
                f"but elsewhere {list(known.values)}: equal labels are one decision"
            )
        if known.upstream != decision.upstream:
            raise InputError(
                f"{self.config.file}: {where}: label '{decision.label}' has the plain value {decision.upstream!r}, "
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
        arch = legacy.translate(arch, [r for r in self.rows.values() if isinstance(r, NASC3Row)])
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

    def freeze(self, arch: Mapping[str, Any]) -> dict[str, Any]:
        """The plain YAML that `arch` means; see `spaces.freeze`."""
        full = self.complete(arch)
        raw = {k: v for k, v in self.config.raw.items() if k not in ("backbone", "head")}
        raw = {**raw, "backbone": list(self.config.raw["backbone"]), "head": list(self.config.raw["head"])}
        if not raw["head"]:
            del raw["head"]
        if "resolution" in raw:
            raw["resolution"] = self._substitute(raw["resolution"], "resolution", full)
        for row in self.config.rows:
            i = row.index if row.section == "backbone" else row.index - self.config.num_backbone
            raw[row.section][i] = self.freeze_row(row, full)
        return copy.deepcopy(raw)

    def freeze_row(self, row: Row, arch: Arch) -> list[Any]:
        """One plain row as written; `arch` has all of the row's labels. It shares lists with the space's YAML."""
        i = row.index if row.section == "backbone" else row.index - self.config.num_backbone
        written = self.config.raw[row.section][i]
        if row.index in self.rows:
            return list(self.rows[row.index].freeze(written, arch))
        source, number, module, args = written
        number = self._substitute(number, f"row{row.index}.number", arch)
        return [source, number, module, list(self._walk(args, f"row{row.index}", arch))]

    def freeze_resolution(self, arch: Arch) -> Any:
        """The YAML's `resolution` at `arch`, None where it says nothing of it."""
        return self._substitute(self.config.raw.get("resolution"), "resolution", arch)

    def labels_of_row(self, row: Row) -> list[str]:
        """Labels of the decisions that a row reads."""
        if row.index in self.rows:
            return [d.label for d in self.rows[row.index].decisions()]
        return [read_choice(mapping, f"row{row.index}.{where}").label for where, mapping in choices_in(row)]

    def _walk(self, args: list[Any], prefix: str, arch: Arch) -> Iterator[Any]:
        for i, arg in enumerate(args):
            if isinstance(arg, Mapping) and not is_choice(arg):
                yield {k: self._substitute(v, f"{prefix}.{k}", arch) for k, v in arg.items()}
            else:
                yield self._substitute(arg, f"{prefix}.{i}", arch)

    def _substitute(self, value: Any, label: str, arch: Arch) -> Any:
        if isinstance(value, list):
            return [self._substitute(v, f"{label}.{i}", arch) for i, v in enumerate(value)]
        if not is_choice(value):
            return value
        choice = read_choice(value, label)
        return choice.value(arch) if isinstance(choice, Follow) else arch[choice.label]


@functools.lru_cache(maxsize=32)
def _space_of_file(path: str, mtime: float) -> Space:
    return Space(path)


def space_of(cfg: str | Path | Mapping[str, Any] | Config | Space) -> Space:
    """The space of a path, a mapping, a `Config`, or itself; files are read once."""
    if isinstance(cfg, Space):
        return cfg
    if isinstance(cfg, (str, Path)):
        from models.grammar import find_file

        path = find_file(cfg)
        return _space_of_file(str(path), path.stat().st_mtime)
    return Space(cfg)


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
    try:
        arch = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such arch file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise InputError(f"{path}: not an arch JSON: {e}") from None
    if not isinstance(arch, dict):
        raise InputError(f"{path}: an arch is a JSON object {{label: value}}, got {type(arch).__name__}")
    return arch
