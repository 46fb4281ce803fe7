"""How a training is paced: YOLOv5's defaults, and what they become on a small data set."""

from __future__ import annotations

from typing import NamedTuple

from models.blocks.conv import BN_MOMENTUM
from models.errors import InputError

from .schedule import NOMINAL_BATCH, yolov5_accumulate, yolov5_warmup

RECIPES = ("auto", "yolov5")
_ENOUGH_STEPS = 2000
_WARMUP_SHARE = 0.1
_MAX_LOSS_SCALE = 4.0
_BN_MOMENTUM = 0.1  # PyTorch's


class Recipe(NamedTuple):
    """What differs between recipes."""

    accumulate: float  # batches to a step of the optimizer
    warmup: int  # iterations
    loss_scale: float  # factor of the loss, a batch's sum
    decay_scale: float  # factor of the weight decay
    bn_momentum: float  # of the moving averages of batch norms


def recipe_of(name: str, epochs: int, batches: int, batch: int) -> Recipe:
    """The pace of a training of `epochs` times `batches` batches.

    ``yolov5`` is upstream's: gradients are summed over a nominal batch of 64, however few steps that leaves, and the
    warm-up takes 3 epochs, at least 100 iterations, however few iterations there are.

    ``auto`` takes a tenth of the iterations at most for the warm-up, and is else the same where that leaves 2000 steps
    of the optimizer. Where it does not:

    - Steps are made of as few batches as are needed for 2000, down to one, and weigh what a step of the nominal batch
      weighs: the loss is scaled up by as much as the batch is smaller, by 4 at most, since a few images say little.
    - The moving averages of batch norms follow faster, by 0.1 an iteration instead of 0.03. At 0.03 they lag 33
      iterations behind the weights, and the network that is validated is not the one that was trained: of two equal
      trainings of 120 iterations, one reached mAP50 0.14 with 0.03 and the other 0.66 with 0.1.

    Raises
    ------
    InputError
        There is no recipe of that name.
    """
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: right would be one of {', '.join(RECIPES)}")
    accumulate, warmup = yolov5_accumulate(batch), yolov5_warmup(batches)
    decay_scale = batch * round(accumulate) / NOMINAL_BATCH
    if name == "yolov5":
        return Recipe(accumulate, warmup, 1.0, decay_scale, BN_MOMENTUM)
    iterations = epochs * batches
    fewer = min(max(round(iterations / _ENOUGH_STEPS), 1), accumulate)
    short = iterations < _ENOUGH_STEPS * accumulate
    return Recipe(
        accumulate=fewer,
        warmup=min(warmup, round(_WARMUP_SHARE * iterations)),
        loss_scale=min(accumulate / fewer, _MAX_LOSS_SCALE),
        decay_scale=decay_scale,
        bn_momentum=_BN_MOMENTUM if short else BN_MOMENTUM,
    )
