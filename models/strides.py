"""Strides of a plain YAML's rows by its grammar alone: what image sizes must be multiples of. Loads no torch."""

from __future__ import annotations

import math
from typing import Any

from .errors import InputError
from .grammar import Config, Row

# "Stride" of a map that is one cell however large the image is: the output of a pool over everything.
POOLED = 4096
# Place of the stride among the arguments, the kernel's is the one before; all pad such that the stride alone counts.
_STRIDED = {
    **dict.fromkeys(("Conv", "DWConv", "CrossConv", "MixConv2d", "GhostConv", "GhostBottleneck", "SCDown"), 2),
    **dict.fromkeys(("MBConv", "FBNet", "ResBasic", "ResBottleneck"), 2),
    "RegBottleneck": 3,
}
_ONCE = ("MBConv", "ResBasic", "ResBottleneck", "RegBottleneck")  # the first of several blocks alone has the stride
_AS_INPUT = (
    *("Bottleneck", "BottleneckCSP", "C3", "C3x", "C3TR", "C3SPP", "C3Ghost", "SPP", "SPPF", "Pointwise"),
    *("C2f", "C2fCIB", "C3k", "C3k2", "C2PSA", "PSA", "A2C2f", "ELAN1", "RepNCSPELAN4", "SPPELAN"),
    *("Add", "Concat", "nn.BatchNorm2d", "Encoder", "ChannelNorm"),
)


def check_imgsz(imgsz: int, stride: int) -> int:
    """`imgsz` if it is a positive multiple of `stride`, else `InputError` with the nearest sizes that are."""
    if imgsz < stride or imgsz % stride:
        below = max(imgsz // stride, 1) * stride
        right = f"{below} or {below + stride}"
        raise InputError(f"--imgsz {imgsz} is no multiple of the stride {stride}; right would be {right}")
    return imgsz


def strides(config: Config, size: int = 256) -> list[float] | None:
    """As `Network.reductions`, without building anything; None where a row's module is none of those known here."""
    sizes: list[float] = []
    for row in config.rows:
        into = [size if j < 0 else sizes[j] for j in row.sources]
        if (out := _size(row, into[0])) is None:
            return None
        sizes.append(out)
    found = [size / s for s in sizes]
    return found if size not in found or size >= POOLED else strides(config, size * 4)


def _size(row: Row, side: float) -> float | None:
    """Side of a row's output; NaN where it is no map, None where that is not known."""
    if row.module in _AS_INPUT:
        return side
    if row.module == "nn.Upsample":
        scale = _argument(row, 1, "scale_factor", None)
        return side * scale if isinstance(scale, int) else None
    if row.module in ("AConv", "ADown"):
        return side // 2  # a pool of 2 x 2 that takes a line away, then a stride of 2
    if row.module == "PatchEmbed":
        patch = _argument(row, 1, "patch", 16)
        return side // patch if isinstance(patch, int) else None
    if row.module not in _STRIDED:
        return {"GlobalPool": 1, **dict.fromkeys(("Detect", "DetectDFL", "Segment", "Semantic"), math.nan)}.get(
            row.module
        )
    place = _STRIDED[row.module]
    k, s = _argument(row, place - 1, "k", 1), _argument(row, place, "s", 1)
    if not isinstance(s, int) or (row.number != 1 and s != 1 and row.module not in _ONCE):
        return None
    p = _argument(row, 3, "p", None) if row.module == "Conv" else None
    if p is None:
        return math.ceil(side / s) if not isinstance(k, int) or k % 2 else None
    known = isinstance(k, int) and isinstance(p, int) and row.number == 1 and _argument(row, 5, "d", 1) == 1
    return (side + 2 * p - k) // s + 1 if known else None


def _argument(row: Row, place: int, name: str, default: Any) -> Any:
    return row.args[place] if place < len(row.args) else row.kwargs.get(name, default)
