"""How large a request may be: looked at before anything is built, since whoever reaches the port may have sent it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from models import limits
from models.documents import check_plain, parse_json, parse_yaml
from models.errors import InputError
from spaces.choices import Decision, Follow
from spaces.rows import SpaceRow
from spaces.space import Space

# A side of images: boards that count take no larger ones. Archs of one request: clients send 64 unless told otherwise.
SIDE, ARCHS = 8192, 10_000
# What a provider is told: a few names and numbers.
TOLD_BYTES = 10_000


def read_request(body: bytes) -> dict[str, Any]:
    """A message as the JSON object that it has to be."""
    request = parse_json(body, "request")
    if not isinstance(request, dict):
        raise InputError("a request is a JSON object")
    return request


def read_space(text: str) -> Space:
    """The space that a request is about; none whose networks nobody would mean."""
    raw = parse_yaml(text, "space")
    if not isinstance(raw, Mapping):  # a path would be read here
        raise InputError("space: right would be the text of a YAML")
    space = Space(raw)
    if (repeats := sum(_repeats(space, row) for row in space.rows)) > limits.REPEATS:
        raise InputError(f"space: {repeats:,} repeats in all rows; {limits.REPEATS:,} are the most")
    return space


def read_imgsz(value: Any) -> int:
    """The side of the images."""
    if type(value) is not int or not 1 <= value <= SIDE:
        raise InputError(f"imgsz: {value!r:.40}: right would be a positive integer, {SIDE} at most")
    return value


def read_told(value: Any) -> dict[str, Any]:
    """What the provider is told: names, and plain values."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError("hw_config: right would be a mapping")
    check_plain(value, "hw_config")
    if len(json.dumps(value)) > TOLD_BYTES:
        raise InputError(f"hw_config: more than {TOLD_BYTES:,} characters")
    threads = value.get("threads")
    if isinstance(threads, (int, float)) and threads > limits.THREADS:
        raise InputError(f"hw_config: threads: {threads:,}; {limits.THREADS} are the most")
    return value


def read_archs(value: Any) -> list[Any]:
    """Archs, each a mapping."""
    if not isinstance(value, list):
        raise InputError("archs: right would be a list of {label: value}")
    if len(value) > ARCHS:
        raise InputError(f"archs: {len(value):,} in one request; {ARCHS:,} are the most")
    return value


def _repeats(space: Space, row: SpaceRow) -> int:
    """Of a row, at most."""
    number = row.places.get("number")
    if isinstance(number, Decision):
        written = list(number.values)
    else:
        written = [*number.table.values()] if isinstance(number, Follow) else [row.row.number]
    # What is no number, the grammar says when the row is built.
    numbers = [n for n in written if isinstance(n, (int, float)) and not isinstance(n, bool)]
    return round(min(max(numbers, default=1), limits.COUNT) * space.config.depth_multiple)
