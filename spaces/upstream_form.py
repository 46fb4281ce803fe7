"""The part of a space that YOLOv5's own modules and positional arguments suffice for: its archs train there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.grammar import SECTIONS, Config, Row, is_choice, read_config
from models.yolov5_rows import MODULES, by_position

from .choices import default_label
from .nas_rows import UPSTREAM


def in_upstream_form(cfg: str | Path | Mapping[str, Any] | Config) -> dict[str, Any]:
    """The mapping of that part: a `NASC3` has only its width to choose, and keyword arguments stand by position.

    Labels stay what they are, and labels that are gone are decisions that an arch may lack, so that an arch of the part
    is one of the space, and there the same network.

    Raises
    ------
    InputError
        Names the row that is never in that form, and why.
    """
    from models.catalog import lookup  # loads torch

    config = read_config(cfg)
    sections: dict[str, list[Any]] = {name: [] for name in SECTIONS}
    for row in config.rows:
        source, number, module, args = copy.deepcopy(row.written)
        if module == "NASC3":
            args = [a for a in args if not isinstance(a, Mapping)] + [dict(UPSTREAM)]
        elif module != "NASConv" and row.module not in MODULES:
            raise row.error("YOLOv5 has no such module: no arch of this space is in its form")
        elif row.kwargs:
            args = _moved(row, args, [(p.name, p.default) for p in by_position(lookup(row))])
        sections[row.section].append([source, number, module, args])
    return {**config.raw, **sections}


def _moved(row: Row, args: list[Any], parameters: list[tuple[str, Any]]) -> list[Any]:
    """The arguments of a row by position alone."""
    *args, more = args
    names = [name for name, _ in parameters]
    if beyond := [name for name in more if name not in names]:
        raise row.error(f"YOLOv5's takes no {', '.join(beyond)}; right would be {', '.join(names)}")
    count = 1 + max(map(names.index, more))
    moved = [_labelled(more[k], row.index, k) if k in more else default for k, default in parameters[:count]]
    return args + moved[len(args) :]


def _labelled(value: Any, index: int, where: str) -> Any:
    """A value whose choices keep the labels that they have by their name."""
    if isinstance(value, list):
        return [_labelled(v, index, f"{where}.{i}") for i, v in enumerate(value)]
    if is_choice(value) and "table" not in value:
        return {"label": default_label(index, where), **value}
    return value
