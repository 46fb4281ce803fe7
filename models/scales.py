"""Sizes of one YAML: ``scales: {n: [depth, width, most channels], s: …}``, and the letter that says which is meant.

With them is resolved what such YAMLs, as the families publish them, leave unsaid.
"""

from __future__ import annotations

import math
import re
from typing import Any

from .errors import InputError

# What the numbers of a scale are called by themselves.
MULTIPLES = ("depth_multiple", "width_multiple", "max_channels")
# YOLO11's and YOLO26's tables of models: at these sizes every C3k2 has the argument `c3k`, whatever the rows say.
_C3K_SCALES = ("m", "l", "x")
# YOLO12's section 3.3: at these sizes attention has a scaled residual, and its multilayer perceptron is narrower.
_RESIDUAL_SCALES, _RESIDUAL = ("l", "x"), {"residual": True, "mlp_ratio": 1.2}
# With these rows, class branches are depth-wise (the families' tables of layers).
_DEPTHWISE = ("C3k2", "A2C2f")
_NAMED = re.compile(r"(.*\d)([a-z])((?:u|-.*)?\.ya?ml)")


def split_name(name: str) -> tuple[str | None, str | None]:
    """(the letter in a file's name, the name without it): ``yolov8s.yaml`` -> s, ``yolov8.yaml``; else None, None."""
    found = _NAMED.fullmatch(name)
    return (found[2], found[1] + found[3]) if found else (None, None)


def at_scale(raw: dict[str, Any], scale: str | None, letter: str | None, file: str) -> None:
    """Write one of ``scales`` as ``depth_multiple``, ``width_multiple`` and ``max_channels`` into `raw`, in its place.

    Parameters
    ----------
    scale
        Which is meant; without it the YAML's key ``scale``, then `letter`, then the first.
    letter
        Of the file's name, which may mean something else.
    """
    scales, written = raw.pop("scales", None), raw.pop("scale", None)
    scale = scale or written
    if scales is None:
        if scale is not None:
            raise InputError(f"{file}: scale {scale!r} is asked for, but the YAML has no 'scales'")
        return
    if not isinstance(scales, dict) or not scales or not all(map(_is_scale, scales.values())):
        raise InputError(f"{file}: scales must be like {{n: [0.33, 0.25, 1024]}}: depth, width, most channels")
    known = ", ".join(map(str, scales))
    if scale is None:
        scale = letter if letter in scales else next(iter(scales))
    if scale not in scales:
        raise InputError(f"{file}: there is no scale {scale!r}; right would be one of {known}")
    if doubled := [key for key in MULTIPLES if raw.get(key) is not None]:
        raise InputError(f"{file}: '{doubled[0]}' and 'scales' say the same; right would be one of both")
    # In the place of `scales`, before the rows.
    rest = {key: raw.pop(key) for key in list(raw) if key not in ("nc", "ch", "names")}
    raw.update(zip(MULTIPLES, scales[scale], strict=True))
    raw.update(rest)
    sections = [raw.get(name) for name in ("backbone", "head")]  # which may be anything: they are read later
    rows = [row for section in sections if isinstance(section, list) for row in section if isinstance(row, list)]
    if scale in _C3K_SCALES:
        for row in rows:
            _force_c3k(row)
    if scale in _RESIDUAL_SCALES:
        for row in rows:
            _add_residual(row)
    if raw.get("depthwise") is None and raw.get("anchors") is None and any(_module(row) in _DEPTHWISE for row in rows):
        raw["depthwise"] = True
    if rows and _module(rows[-1]) == "v10Detect":
        rows[-1][2] = "Detect"
        raw.update(end2end=True, depthwise=True)


def _is_scale(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(type(v) in (int, float) and 0 < v < math.inf for v in values)
    )


def _module(row: list[Any]) -> Any:
    return row[2] if len(row) == 4 else None


def _force_c3k(row: list[Any]) -> None:
    if _module(row) != "C3k2" or not isinstance(row[3], list):
        return  # another row, or one that is refused when it is read
    args = row[3]
    named = args[-1] if args and isinstance(args[-1], dict) and "choice" not in args[-1] else None
    if len(args) - (named is not None) > 1:
        args[1] = True
    elif named is not None:
        named["c3k"] = True
    else:
        args.append(True)


def _add_residual(row: list[Any]) -> None:
    if _module(row) == "A2C2f" and isinstance(row[3], list) and len(row[3]) == 3 and row[3][1] in (True, "True"):
        row[3].append(dict(_RESIDUAL))
