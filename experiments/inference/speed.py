"""How fast exported files are beside each other."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..costs.timing import times_ms
from .detectors import OnnxDetector

# Turns of the files, and at least so many runs and seconds of each.
_TURNS, _REPEATS = 7, (5, 0.15)


def milliseconds(files: Sequence[Path]) -> list[tuple[float, float]]:
    """Median latency of a batch, and what nine of ten runs keep, on as many threads as PyTorch has.

    See `in_turns`.
    """
    runs = []
    for file in files:
        detector = OnnxDetector(file)
        shape = (detector.batch or 1, 3, detector.imgsz, detector.imgsz)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).numpy()
        runs.append(functools.partial(detector.predict, x))
    return in_turns(runs)


def in_turns(runs: Sequence[Callable[[], Any]]) -> list[tuple[float, float]]:
    """Median milliseconds of each, and what nine of ten runs keep.

    They take turns, that a busy machine slows all of them; the median is of the turns' medians.
    """
    turns = [[times_ms(run, repeats=_REPEATS) for run in runs] for _ in range(_TURNS)]
    return [
        (
            statistics.median(statistics.median(times) for times in found),
            float(np.quantile([*itertools.chain(*found)], 0.9)),
        )
        for found in zip(*turns, strict=True)
    ]
