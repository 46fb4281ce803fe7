"""A small detector that finds things without having been trained."""

from typing import Any

import torch
from torch import Tensor, nn

from models import Model

TINY = {
    "anchors": [[10, 13, 33, 23], [60, 60, 116, 90]],
    "backbone": [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3", [16]],
                 [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "SPPF", [32, 5]]],
    "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 3], 1, "Concat", [1]], [-1, 1, "C3", [32, False]],
             [[8, 5], 1, "Detect", ["nc", "anchors"]]],
}  # fmt: skip


@torch.no_grad()
def lively(images: Tensor, names: list[str], cfg: Any = TINY, seed: int = 0) -> Model:
    """A random detector whose confidences are spread from 0 to 1 over these images, float (N, 3, H, W) from 0 to 1.

    A fresh one says nearly the same everywhere: what two of its implementations agree on shows little.
    """
    torch.manual_seed(seed)
    model = Model(cfg, nc=len(names))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    logits = model.train()(images)
    for level, conv in zip(logits, model.head.m, strict=False):
        spread = level.std(dim=(0, 2, 3)).view(-1)
        middle = level.mean(dim=(0, 2, 3)).view(-1)
        conv.bias -= middle
        scale = 1.5 / spread
        conv.weight *= scale.view(-1, 1, 1, 1)
        conv.bias *= scale
    model.names = dict(enumerate(names))
    return model.eval()
