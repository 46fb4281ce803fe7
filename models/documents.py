"""Reading what anybody may have written: text, YAML and JSON, with an end to size, nesting and aliases. Loads no torch.

Whatever the bytes are, there is a result or one `InputError`, in seconds and little memory; `limits` says how much is
too much. Aliases of YAML and what a pickle names twice are counted as often as they stand for something: nine lines of
``&b [*a, *a, *a]`` are a billion values to whoever walks over them.
"""

from __future__ import annotations

import codecs
import datetime
import json
import numbers
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import limits
from .errors import InputError
from .respelled import INTEGER, RESPELLED, Respelled, mark_respelled

# The longest first: UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What YAML and JSON have beside lists and mappings, and Python's and NumPy's like of it.
_SCALARS = (str, bytes, numbers.Number, datetime.date, type(None))


def is_file(path: str | Path) -> bool:
    """Whether this is a file; False for names that no file system takes, where `Path.is_file` raises."""
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether this is a folder; as `is_file`."""
    return os.path.isdir(path)


def exists(path: str | Path) -> bool:
    """Whether there is anything; as `is_file`."""
    return os.path.exists(path)


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """The content of a file.

    Parameters
    ----------
    most
        Bytes that such a file has at most.

    Raises
    ------
    FileNotFoundError
        There is none.
    InputError
        It is none: a pipe or a device, which may never end; it is larger; or it cannot be read.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise InputError(f"{path}: cannot be read: {kind}; right would be a file")
        if most is not None and found.st_size > most:
            raise InputError(f"{path}: cannot be read: {found.st_size:,} bytes; such a file has {most:,} at most")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None


def read_text(path: str | Path, most: int | None = limits.TEXT_BYTES) -> str:
    """The text of a file, UTF-8 or what a mark at its beginning says; as `read_bytes`."""
    raw, encoding = by_mark(read_bytes(path, most))
    try:
        return raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: cannot be read: no UTF-8 text ({e.reason} at byte {e.start})") from None


def by_mark(raw: bytes) -> tuple[bytes, str | None]:
    """Text without its byte order mark, and the encoding that this says; None where there is none."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :], encoding
    return raw, None


def read_yaml(path: str | Path) -> Any:
    """The one document of a YAML file; `InputError` names file and line."""
    try:
        return parse_yaml(read_text(path), path)
    except FileNotFoundError:
        raise InputError(f"{path}: cannot be read: no such file") from None


def parse_yaml(text: str, what: str | Path) -> Any:
    """The one document of a YAML text; `what` it is called in messages."""
    if len(text) > limits.TEXT_BYTES:
        raise InputError(f"{what}: {len(text):,} characters; a YAML has {limits.TEXT_BYTES:,} at most")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise InputError(f"{what}{where}: not valid YAML: {problem}") from None
    # Of a date that is none, a number of too many digits, an escape beyond Unicode, a tag on the wrong thing.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as e:
        raise InputError(f"{what}: not valid YAML: {type(e).__name__}: {_first_line(e)}") from None


def read_json(path: str | Path, most: int | None = limits.JSON_BYTES) -> Any:
    """The value in a JSON file; `InputError` names it."""
    try:
        return parse_json(read_text(path, most), path)
    except FileNotFoundError:
        raise InputError(f"{path}: cannot be read: no such file") from None


def parse_json(text: str | bytes, what: str | Path) -> Any:
    """The value that a JSON text is; `what` it is called in messages."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{what}: not JSON: nested too deep") from None
    except ValueError as e:  # UnicodeDecodeError is one
        raise InputError(f"{what}: not JSON: {_first_line(e)}") from None


def check_plain(value: Any, what: str | Path, most: int = limits.NODES, only_plain: bool = False) -> None:
    """`InputError` if a value of lists, mappings and scalars is more than a document of `limits` can be.

    For what did not come through `parse_yaml`: out of a pickle, or from a script.

    Parameters
    ----------
    only_plain
        Whether anything else in it is refused too, such as a tensor.
    """
    known: dict[int, tuple[int, int]] = {}  # containers that were walked over: values and levels in them
    walk = [_Level(None, iter((value,)))]
    within: set[int] = set()
    while True:
        level = walk[-1]
        try:
            one = next(level.rest)
        except StopIteration:
            walk.pop()
            if level.of is None:
                return
            within.discard(level.of)
            found = known[level.of] = level.values, level.levels
        else:
            if isinstance(one, int) and not -limits.INTEGER <= one <= limits.INTEGER:
                raise InputError(f"{what}: holds a whole number of {one.bit_length()} bits; right would be 63 at most")
            is_container = isinstance(one, (list, tuple, set, frozenset, Mapping))
            if only_plain and not is_container and not isinstance(one, _SCALARS):
                raise InputError(f"{what}: holds a {type(one).__name__} where there is text or a number")
            if is_container and id(one) not in known:
                if id(one) in within or len(walk) > limits.DEPTH:
                    raise InputError(f"{what}: nested more than {limits.DEPTH} levels deep, or in itself")
                within.add(id(one))
                walk.append(_Level(id(one), iter([*one.keys(), *one.values()] if isinstance(one, Mapping) else [*one])))
                continue
            found = known[id(one)] if is_container else (0, 0)
        walk[-1].add(*found)
        if walk[-1].values > most:
            raise InputError(f"{what}: more than {most:,} values; what is named again and again counts as often")
        if len(walk) + walk[-1].levels > limits.DEPTH + 2:
            raise InputError(f"{what}: nested more than {limits.DEPTH} levels deep, or in itself")


@dataclass
class _Level:
    """A container on the way."""

    of: int | None
    rest: Iterator[Any]
    values: int = 0
    levels: int = 0

    def add(self, values: int, levels: int) -> None:
        self.values += 1 + values
        self.levels = max(self.levels, 1 + levels)


class _Loader(yaml.SafeLoader):
    """YAML's plain types, with an end to nesting and to what aliases stand for, found while composing."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._nodes = self._level = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise self._error(f"*{event.anchor} stands within what it names", event)
            self._count(self._sizes[id(node)], event)
            return node
        self._level += 1
        if self._level > limits.DEPTH:
            raise self._error(f"nested more than {limits.DEPTH} levels deep", event)
        before = self._nodes
        self._count(1, event)
        node = super().compose_node(parent, index)
        self._level -= 1
        if event.anchor is not None:
            self._sizes[id(node)] = self._nodes - before
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        mark_respelled(node)
        return node

    def _count(self, number: int, event: Any) -> None:
        self._nodes += number
        if self._nodes > limits.NODES:
            raise self._error(f"more than {limits.NODES:,} values; aliases are counted as often as they stand", event)

    @staticmethod
    def _error(problem: str, event: Any) -> yaml.MarkedYAMLError:
        return yaml.composer.ComposerError(None, None, problem, event.start_mark)

    def _number(self, node: Any) -> Any:
        # Before it is made: 5,000 digits are no number to Python, and a thousand of base 60 take minutes.
        if len(node.value) > limits.DIGITS:
            raise self._error(f"a number of {len(node.value):,} characters", node)
        integer = node.tag.endswith(":int")
        value = self.construct_yaml_int(node) if integer else self.construct_yaml_float(node)
        if integer and not -limits.INTEGER <= value <= limits.INTEGER:
            raise self._error(f"{node.value} is beyond any whole number that is counted with", node)
        return value

    def _respelled(self, node: Any) -> Respelled:
        node.tag = INTEGER
        found = Respelled(self._number(node))
        found.written = node.value
        return found


_Loader.add_constructor(RESPELLED, _Loader._respelled)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader._number)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
