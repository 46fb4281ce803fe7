"""MAE-DET's entropy of a backbone at several scales (Sun et al. 2022, arXiv:2111.13336)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.network import Network

from .base import RECTIFIERS, Loss, replace
from .gaussian import gaussian

# Of the five stages of a backbone, C1 to C5 (section 4.3); where there are fewer or more, of the last ones.
_WEIGHTS = (0, 0, 1, 1, 6)
_IMAGES = 4  # a standard deviation is over channels and cells as well


@torch.no_grad()
def mae_det(network: Network, images: Tensor, loss: Loss) -> float:
    """Weighted sum over stages of the entropy of their last map, ``log c + log std``, for noise and weights of N(0, 1).

    A stage is the rows of the backbone with maps of one size, the channels' logarithm is the authors' code's. Without
    batch norms and shortcuts, as there; rectifiers are ReLU, so that the scale does not matter. What the paper rescales
    layer by layer is in double precision here, which has room for some 180 layers.
    """
    network = gaussian(network).double()
    replace(network, (_BatchNorm,), nn.Identity)
    replace(network, RECTIFIERS, nn.ReLU)
    stages: dict[int, float] = {}

    def look(_: object, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            std = float(output.std())
            stages[output.shape[-1]] = math.log(output.shape[1]) + (math.log(std) if std > 0 else -math.inf)

    for layer in network.model[: network.config.num_backbone]:
        layer.register_forward_hook(look)
    network.run_rows(torch.randn_like(images[:_IMAGES], dtype=torch.float64))
    entropies = [h for side, h in sorted(stages.items(), reverse=True) if side < images.shape[-1]]
    return sum(w * h for w, h in zip(reversed(_WEIGHTS), reversed(entropies), strict=False) if w)
