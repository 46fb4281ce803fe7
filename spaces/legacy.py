"""Arch files of the first YOLOv5 search on NNI.

They are ours but for the bottleneck widths, which NNI numbered ``model_1``, ``model_2``, … in the order in which its
`ValueChoice`s were made: in each C3 row of n repeats n for the width ratio 1.0, n for 1.5, n for 2.0, then n that
nothing used. Of those only the chosen ratio's have a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from models.errors import InputError

from .choices import Decision
from .nas_rows import BOTTLENECK_RATIOS, C3_RATIOS, NASC3Row
from .rows import SpaceRow

_NUMBERED = re.compile(r"model_(\d+)$")


def translate(arch: Mapping[str, Any], rows: Sequence[SpaceRow]) -> dict[str, Any]:
    """`arch` with ``model_k`` keys turned into bottleneck labels; as it is where there are none."""
    numbered = {int(m[1]): v for k, v in arch.items() if (m := _NUMBERED.match(str(k)))}
    if not numbered:
        return dict(arch)
    result = {k: v for k, v in arch.items() if not _NUMBERED.match(str(k))}
    start, groups = 1, len(C3_RATIOS) + 1
    for row in (row for row in rows if isinstance(row, NASC3Row)):
        chosen = Decision(row.label, tuple(range(len(C3_RATIOS)))).match(arch.get(row.label, 0))
        for j, label in enumerate(row.bottleneck_labels):
            key = start + chosen * row.n + j
            if key in numbered:
                result[label] = Decision(f"model_{key}", BOTTLENECK_RATIOS).match(numbered[key])
        start += groups * row.n
    if beyond := [k for k in numbered if not 1 <= k < start]:
        raise InputError(f"arch label 'model_{beyond[0]}' does not fit: this space has model_1 to model_{start - 1}")
    return result
