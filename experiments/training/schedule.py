"""Learning rates, momentum and gradient accumulation of a training, as functions of the iteration.

Nothing here has a state: a resumed training computes the numbers of the uninterrupted one.
"""

from __future__ import annotations

import math
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

    def decay(self, epoch: int) -> float:
        """Share of `lr0` in an epoch, from 1 towards `lrf`."""
        done = epoch / self.epochs
        share = (1 - math.cos(math.pi * done)) / 2 if self.cosine else done
        return 1 + share * (self.lrf - 1)

    def at(self, iteration: int) -> Rates:
        """Values at an iteration, counted from 0 over all epochs."""
        lr = self.lr0 * self.decay(iteration // self.batches)

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
