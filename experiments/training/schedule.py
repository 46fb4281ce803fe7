"""Learning rates, momentum and gradient accumulation of a training, as functions of the iteration.

Nothing here has a state: a resumed training computes the numbers of the uninterrupted one.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NOMINAL_BATCH = 64
WARMUP_EPOCHS, MIN_WARMUP = 3, 100  # epochs, iterations
_START_MOMENTUM = 0.8


class Rates(NamedTuple):
    """What holds at one iteration."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int  # batches to a step of the optimizer


@dataclass(frozen=True)
class Schedule:
    """Warm-up by iteration, then decay by epoch.

    Of a training in phases (`cycles`) each begins with a learning rate of its own, which decays to its end.

    Within the warm-up everything changes linearly: the learning rate from 0 (that of biases from `warmup_bias_lr`),
    momentum from 0.8, batches to a step from 1. After it the learning rate is ``lr0 x decay(epoch)``.

    Parameters
    ----------
    epochs, batches
        Epochs of the training and batches (iterations) in one.
    lr0, lrf
        Learning rate at first, and at the end as a share of it.
    warmup
        Iterations of the warm-up.
    accumulate
        Batches to a step of the optimizer after the warm-up; it need not be whole.
    cosine
        The decay is half a cosine instead of a line.
    cycles
        Of every phase its first iteration, 0 at first, and the share of `lr0` that it begins with; none: one phase.
    """

    epochs: int
    batches: int
    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    warmup: int = MIN_WARMUP
    accumulate: float = 1.0
    cosine: bool = False
    warmup_bias_lr: float = 0.1
    cycles: tuple[tuple[int, float], ...] = ()

    def decay(self, epoch: int) -> float:
        """Share of `lr0` in an epoch, from 1 towards `lrf`."""
        return self._fallen(epoch / self.epochs)

    def _fallen(self, done: float) -> float:
        share = (1 - math.cos(math.pi * done)) / 2 if self.cosine else done
        return 1 + share * (self.lrf - 1)

    def _share(self, iteration: int) -> float:
        """Of `lr0`, after the warm-up."""
        if not self.cycles:
            return self.decay(iteration // self.batches)
        starts = [start for start, _ in self.cycles]
        i = bisect.bisect_right(starts, iteration) - 1
        end = starts[i + 1] if i + 1 < len(starts) else self.epochs * self.batches
        return self.cycles[i][1] * self._fallen((iteration - starts[i]) / max(end - starts[i], 1))

    def at(self, iteration: int) -> Rates:
        """Values at an iteration, counted from 0 over all epochs."""
        lr = self.lr0 * self._share(iteration)

        def warm(start: float, end: float) -> float:
            return float(np.interp(iteration, [0, self.warmup], [start, end])) if self.warmup else end

        return Rates(
            lr=warm(0.0, lr),
            bias_lr=warm(self.warmup_bias_lr, lr),
            momentum=warm(_START_MOMENTUM, self.momentum),
            accumulate=max(round(warm(1.0, self.accumulate)), 1),
        )


def yolov5_accumulate(batch: int) -> float:
    """Batches to YOLOv5's nominal batch of 64."""
    return max(NOMINAL_BATCH / batch, 1.0)


def yolov5_warmup(batches: int) -> int:
    """Iterations of YOLOv5's warm-up: 3 epochs, at least 100."""
    return max(WARMUP_EPOCHS * batches, MIN_WARMUP)


def starts_of(shares: Sequence[float], iterations: int) -> list[int]:
    """First iteration of every phase of a training, given their shares of it; each has one, if there are enough."""
    total, ends = sum(shares), itertools.accumulate(shares)
    starts = [0, *(round(iterations * end / total) for end in ends)][: len(shares)]
    for i in range(1, len(starts)):
        starts[i] = max(starts[i], starts[i - 1] + 1)
    for i in reversed(range(len(starts))):  # the last ones too
        starts[i] = max(min(starts[i], iterations - len(starts) + i), 0)
    return starts
