"""Which rows YOLOv5 itself builds (v7.0): modules that its parser knows, arguments by position."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from inspect import Parameter

from .registry import Entry, scaled

MODULES = frozenset({
    *("Conv", "DWConv", "GhostConv", "CrossConv", "MixConv2d", "Focus", "DWConvTranspose2d", "nn.ConvTranspose2d"),
    *("Bottleneck", "BottleneckCSP", "GhostBottleneck", "C3", "C3x", "C3TR", "C3SPP", "C3Ghost", "SPP", "SPPF"),
    *("Concat", "Contract", "Expand", "nn.Upsample", "nn.MaxPool2d", "nn.ZeroPad2d", "nn.BatchNorm2d", "Detect"),
})  # fmt: skip


def by_position(entry: Entry) -> Sequence[Parameter]:
    """What a row of one of these modules may say, in order; the first is the width, where it has any.

    What follows from other rows (input channels) or from the number of repeats is left out, as is what is ours alone:
    a C3's keyword arguments, and a bottleneck's `hidden`.
    """
    parameters = [p for p in inspect.signature(entry.cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if entry.channels is scaled:
        follows = (0, 2) if entry.repeats else (0,)  # c1, n
        parameters = [p for i, p in enumerate(parameters) if i not in follows]
    return [p for p in parameters if p.name != "hidden"]
