"""The grammar of a model YAML: files and rows to `Config`, without torch and without `eval`.

A row is YOLOv5's ``[from, number, module, args]``. A mapping that closes `args` holds keyword arguments.
A choice (``{choice: …}``, ``{range: …}``, ``{table: …, by: …}``) may stand wherever a scalar stands; what it means is
the business of `spaces`, here it is only carried, and refused by `Config.require_plain`.
"""

from __future__ import annotations

import ast
import copy
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import limits
from .classes import read_names
from .documents import check_plain, is_file, read_yaml
from .errors import InputError
from .scales import at_scale, split_name

MODELS = Path(__file__).resolve().parent
SECTIONS = ("backbone", "head")
# What `Detect, [nc]` is in a YAML without anchors, and what such a YAML may say of it at its top, not in its row.
ANCHOR_FREE = "DetectDFL"
HEAD_KEYS = ("reg_max", "end2end", "depthwise")
KEYS = (
    *("nc", "ch", "anchors", "depth_multiple", "width_multiple", "channel_multiple", "max_channels", "activation"),
    *("scales", "scale"),
    *SECTIONS,
    *("resolution", "names"),
    *HEAD_KEYS,
)
_LARGEST_ANCHOR = 100_000  # pixels: no image has a longer side
CHOICE_KEYS = ("choice", "range", "table")


@dataclass(frozen=True)
class Call:
    """A constructor written as a string, such as ``nn.LeakyReLU(0.1)``; literal arguments only."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"{self.name}({', '.join(parts)})"

    __repr__ = __str__


@dataclass(frozen=True)
class Row:
    """One row, `index` counted over backbone and head. `number`, `args` and `kwargs` may still hold choices.

    `written` is the row as the YAML has it: ``[from, number, module, args]``.
    """

    index: int
    section: str
    source: int | tuple[int, ...]
    number: Any
    module: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    file: str
    written: list[Any] = field(compare=False, repr=False)

    @property
    def sources(self) -> tuple[int, ...]:
        """`from` as absolute row indices; -1 is the network's input."""
        several = self.source if isinstance(self.source, tuple) else (self.source,)
        return tuple(self.index + f if f < 0 else f for f in several)

    def error(self, message: str) -> InputError:
        return InputError(f"{self.file}: row {self.index} ({self.module}): {message}")


@dataclass(frozen=True)
class Config:
    """A model YAML that has been read and checked as far as that goes without building it.

    `raw` is the mapping as written; `rows` the rows of backbone and head in order.
    """

    file: str
    raw: dict[str, Any]
    rows: tuple[Row, ...]
    num_backbone: int
    nc: int | None
    ch: int
    anchors: Any
    depth_multiple: float
    width_multiple: float
    channel_multiple: int
    activation: Call | None
    max_channels: float | None = None

    @property
    def has_head(self) -> bool:
        return len(self.rows) > self.num_backbone

    @property
    def is_classifier(self) -> bool:
        """Whether there is no head but a number of classes, so that the network is a `models.Classifier`."""
        return not self.has_head and self.nc is not None

    @property
    def num_anchors(self) -> int | None:
        """Anchors a level."""
        if isinstance(self.anchors, list):
            return len(self.anchors[0]) // 2
        return self.anchors

    def width(self, channels: Any, row: Row) -> int:
        """Output channels of a row: `channels` x `width_multiple`, rounded up to a multiple of `channel_multiple`.

        More than `max_channels` are taken for so many. Channels that equal the head's output count, anchors x (nc + 5),
        are left as they are.
        """
        fits = isinstance(channels, (int, float)) and not isinstance(channels, bool) and 0 < channels <= limits.COUNT
        if not fits:
            raise row.error(f"output channels must be a positive number, got {channels!r}")
        if self.num_anchors and self.nc and channels == self.num_anchors * (self.nc + 5):
            return int(channels)
        channels = min(channels, self.max_channels or channels)
        return int(math.ceil(channels * self.width_multiple / self.channel_multiple) * self.channel_multiple)

    def depth(self, row: Row) -> int:
        """Repeats of a row: 1 stays 1, anything else is multiplied by `depth_multiple` and rounded, at least 1."""
        number = row.number
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise row.error(f"number of repeats must be a positive integer, got {number!r}")
        repeats = max(round(number * self.depth_multiple), 1) if number > 1 else number
        if repeats > limits.REPEATS:
            raise row.error(f"{repeats:,} repeats; all rows together have {limits.REPEATS:,} at most")
        return repeats

    def first(self, num_rows: int) -> Config:
        """The same YAML with no more than its first rows."""
        rows = self.rows[:num_rows]
        sections = {name: [r.written for r in rows if r.section == name] for name in SECTIONS}
        return replace(self, rows=rows, raw={**self.raw, **sections}, num_backbone=min(num_rows, self.num_backbone))

    def backbone(self) -> Config:
        """The same YAML without its head."""
        return self.first(self.num_backbone)

    def read_row(self, row: Row, written: list[Any]) -> Row:
        """The row that is `written` in the place of `row`."""
        return _row(row.index, row.section, written, {"nc": self.nc, "anchors": self.anchors}, self.file, self.raw)

    def require_plain(self) -> Config:
        """Raise `InputError` if a choice is left; a space must be frozen before a plain network is built from it."""
        for row in self.rows:
            for where, _ in choices_in(row):
                raise row.error(
                    f"{where} is a choice, and a plain network has none: freeze the space first (spaces.freeze)"
                )
        return self


def is_choice(value: Any) -> bool:
    """Whether a YAML value is a choice mapping."""
    return isinstance(value, Mapping) and any(key in value for key in CHOICE_KEYS)


def choices_in(row: Row) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (name of the argument, choice mapping) for every choice in a row, `number` first."""

    def walk(where: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if is_choice(value):
            yield where, value
        elif isinstance(value, (list, tuple)):
            for i, v in enumerate(value):
                yield from walk(f"{where}.{i}", v)

    yield from walk("number", row.number)
    for i, arg in enumerate(row.args):
        yield from walk(str(i), arg)
    for name, arg in row.kwargs.items():
        yield from walk(name, arg)


def find_file(cfg: str | Path) -> Path:
    """Find a YAML as written, below the project's folder, or by its name in `models/` and `models/hub/`.

    Where there is none, ``yolov8s.yaml`` is ``yolov8.yaml``, of which `read_config` takes the scale s.
    """
    path = Path(cfg)
    if (found := _found(path)) is not None:
        return found
    _, name = split_name(path.name)
    if name is not None and (found := _found(path.with_name(name))) is not None:
        return found
    tried = ", ".join(dict.fromkeys(map(str, _candidates(path))))
    raise InputError(f"{cfg}: no such file; tried {tried}")


def _candidates(path: Path) -> tuple[Path, ...]:
    # A path with a folder in it is that file or none: another of the same name would be a silent surprise.
    hub = (MODELS / "hub" / path,) if path.name == str(path) else ()
    return path, MODELS.parent / path, MODELS / path, *hub


def _found(path: Path) -> Path | None:
    return next((candidate for candidate in _candidates(path) if is_file(candidate)), None)


def load_yaml(path: Path) -> Any:
    """Read one YAML document; what cannot be read is an `InputError` with the line."""
    return read_yaml(path)


def read_config(
    cfg: str | Path | Mapping[str, Any] | Config,
    nc: int | None = None,
    ch: int | None = None,
    anchors: Any = None,
    file: str = "model dict",
    scale: str | None = None,
) -> Config:
    """Read a model YAML.

    Parameters
    ----------
    cfg
        Path, or the mapping that such a file holds.
    nc, ch, anchors
        Number of classes, input channels and anchors in place of the YAML's own.
    file
        What messages call a mapping.
    scale
        Which of the YAML's ``scales`` is meant, in place of the letter in the file's name. What is read has no
        ``scales`` any more, but what they say.

    Raises
    ------
    InputError
        Names file, row and what would be right.
    """
    letter = None
    if isinstance(cfg, Config):
        file, raw = cfg.file, copy.deepcopy(cfg.raw)
    elif isinstance(cfg, Mapping):
        check_plain(cfg, file, only_plain=True)
        raw = copy.deepcopy(dict(cfg))
    else:
        path = find_file(cfg)
        file, raw = str(path), load_yaml(path)
        letter = split_name(Path(cfg).name)[0]
        if path.name != Path(cfg).name:  # of no such file, so that it means a scale
            scale = scale or letter
    if not isinstance(raw, dict) or "backbone" not in raw:
        raise InputError(f"{file}: not a model YAML: a mapping with the key 'backbone' is needed")
    for key in raw:
        if key not in KEYS:
            meant = (
                "activation" if key == "act" else next(iter(difflib.get_close_matches(str(key), KEYS, 1, 0.8)), None)
            )
            hint = f"did you mean '{meant}'?" if meant else f"known are {', '.join(KEYS)}"
            raise InputError(f"{file}: unknown key '{key}', {hint}")
    at_scale(raw, scale, letter, file)
    if raw.get("names") is not None:
        read_names(raw["names"], file)
    raw.update({k: v for k, v in (("nc", nc), ("ch", ch), ("anchors", anchors)) if v is not None})

    def positive(key: str, default: Any, kind: Any = (int, float), most: int = limits.COUNT) -> Any:
        value = default if raw.get(key) is None else raw[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= most):
            number = "integer" if kind is int else "number"
            number = f"{number}, {most} at most" if isinstance(value, (int, float)) and value > most else number
            raise InputError(f"{file}: {key} must be a positive {number}, got {value!r}")
        return value

    try:
        activation = parse_value(raw.get("activation"))
    except InputError as e:
        raise InputError(f"{file}: activation: {e}") from None
    if activation is not None and not isinstance(activation, Call):
        raise InputError(f"{file}: activation must be written like nn.SiLU(), got {raw['activation']!r}")
    names = {"nc": positive("nc", None, int, limits.CLASSES), "anchors": _anchors(raw.get("anchors"), file)}
    rows: list[Row] = []
    for section in SECTIONS:
        if not isinstance(raw.setdefault(section, []), list):
            raise InputError(f"{file}: '{section}' must be a list of rows [from, number, module, args]")
        if len(rows) + len(raw[section]) > limits.ROWS:
            raise InputError(f"{file}: {len(rows) + len(raw[section]):,} rows; a network has {limits.ROWS:,} at most")
        for written in raw[section]:
            rows.append(_row(len(rows), section, written, names, file, raw))
    if not raw["backbone"]:
        raise InputError(f"{file}: 'backbone' has no rows")
    _check_resolution(raw.get("resolution"), file)
    return Config(
        file=file,
        raw=raw,
        rows=tuple(rows),
        num_backbone=len(raw["backbone"]),
        nc=names["nc"],
        ch=positive("ch", 3, int, limits.CHANNELS_IN),
        anchors=names["anchors"],
        depth_multiple=positive("depth_multiple", 1.0),
        width_multiple=positive("width_multiple", 1.0),
        channel_multiple=positive("channel_multiple", 8, int),
        activation=activation,
        max_channels=positive("max_channels", None),
    )


def _check_resolution(resolution: Any, file: str) -> None:
    """`InputError` unless it is a side of images in pixels; what a choice holds is read where its values are."""
    if resolution is None or is_choice(resolution):
        return
    if type(resolution) is not int or resolution < 1:
        raise InputError(f"{file}: resolution must be a positive integer, got {resolution!r}")


def _anchors(anchors: Any, file: str) -> Any:
    whole = isinstance(anchors, int) and not isinstance(anchors, bool)
    if anchors is None or (whole and 0 < anchors <= limits.VALUES):
        return anchors
    if isinstance(anchors, list) and anchors:
        lengths = {len(level) if isinstance(level, list) else 0 for level in anchors}
        sides = [v for level in anchors if isinstance(level, list) for v in level]
        numbers = all(type(v) in (int, float) and 0 < v < _LARGEST_ANCHOR for v in sides)
        if len(lengths) == 1 and (n := lengths.pop()) > 0 and n % 2 == 0 and numbers:
            return anchors
    raise InputError(
        f"{file}: anchors must be a number a level, or a list of levels of equally many w,h pairs in pixels, each more "
        f"than 0 and less than {_LARGEST_ANCHOR:,}; got {anchors!r}"
    )


def _row(index: int, section: str, written: Any, names: Mapping[str, Any], file: str, raw: Mapping[str, Any]) -> Row:
    def error(message: str) -> InputError:
        return InputError(f"{file}: row {index}{message}")

    if not isinstance(written, list) or len(written) != 4:
        raise error(f": a row is [from, number, module, args], got {written!r}")
    source, number, module, args = written
    if not isinstance(module, str):
        raise error(f": module must be a name, got {module!r}")
    several = source if isinstance(source, list) else [source]
    for f in several:
        if isinstance(f, bool) or not isinstance(f, int):
            raise error(f" ({module}): from must be a row index or a list of them, got {source!r}")
        target = index + f if f < 0 else f
        lowest = -1 if index == 0 else 0
        if not lowest <= target < index:
            right = "-1" if index == 0 else f"-1 to -{index}, or 0 to {index - 1}"
            raise error(f" ({module}): from {f} points at no earlier row; right would be {right}")
    if not several:
        raise error(f" ({module}): from is an empty list")
    if not isinstance(args, list):
        raise error(f" ({module}): args must be a list, got {args!r}")
    try:
        values = [parse_value(a, names) for a in args]
        kwargs: Mapping[str, Any] = {}
        if values and isinstance(values[-1], Mapping) and not is_choice(values[-1]):
            kwargs = values.pop()
        if stray := [v for v in values if isinstance(v, Mapping) and not is_choice(v)]:
            raise InputError(f"keyword arguments close args, but {stray[0]} does not")
        number = parse_value(number, names)
    except InputError as e:
        raise error(f" ({module}): {e}") from None
    if (place := _BEFORE_DILATION.get(module)) == len(values) - 1 and _is_activation(values[-1]):
        values.insert(place, 1)
    if module == "Detect" and len(values) == 1 and names["anchors"] is None:
        module = ANCHOR_FREE
    if module == ANCHOR_FREE:
        kwargs = {**{k: parse_value(raw[k]) for k in HEAD_KEYS if raw.get(k) is not None}, **kwargs}
    source = tuple(source) if isinstance(source, list) else source
    return Row(index, section, source, number, module, tuple(values), kwargs, file, written)


# YAMLs of before YOLOv5 v7.0 have the activation where the dilation is now; by module, its place.
_BEFORE_DILATION = {"Conv": 5, "DWConv": 3}


def _is_activation(value: Any) -> bool:
    return value is None or isinstance(value, (bool, Call))


_DOTTED = re.compile(r"\w+(\.\w+)*")
_WORDS = {"None": None, "True": True, "False": False}


def parse_value(value: Any, names: Mapping[str, Any] | None = None) -> Any:
    """A YAML value as a Python value: upstream's string forms, lists and mappings of them.

    ``None``, ``True``, ``'nearest'`` (quotes within the string), the names in `names` (``nc``, ``anchors``), and
    constructors such as ``nn.LeakyReLU(0.1)``, which become `Call`. Any other string stays a string.
    """
    names = names or {}
    if isinstance(value, list):
        return [parse_value(v, names) for v in value]
    if isinstance(value, dict):
        if is_choice(value):
            return value
        return {k: parse_value(v, names) for k, v in value.items()}
    if not isinstance(value, str):
        return value
    if value in _WORDS:
        return _WORDS[value]
    if value in names:
        if names[value] is None:
            raise InputError(f"'{value}' is used, but the YAML does not say what it is")
        return names[value]
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    if "(" in value:
        return _parse_call(value)
    return value


def _parse_call(text: str) -> Call:
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and _DOTTED.fullmatch(name) and all(k.arg for k in node.keywords):
            args = tuple(ast.literal_eval(a) for a in node.args)
            return Call(name, args, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords})
    except (SyntaxError, ValueError):
        pass
    raise InputError(f"cannot read {text!r}: a constructor with literal arguments is meant, such as nn.LeakyReLU(0.1)")
