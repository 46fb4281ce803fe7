"""Zen-score: expressivity of a network of Gaussian weights (Lin et al. 2021, arXiv:2102.01063)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.head import Head
from models.network import Network

from .base import Loss
from .gaussian import gaussian

_ALPHA = 0.01  # of the noise; section 4.1
_IMAGES = 16  # a batch of the authors' code


@torch.no_grad()
def zen(network: Network, images: Tensor, loss: Loss) -> float:
    """``log E |f(x) - f(x + alpha e)| + sum log sigma`` for x and e from N(0, 1) of the images' shape (algorithm 1).

    f is the last row's output before the pooling; of a detector, the maps that its head is given, together. The sigma
    of a batch norm is the square root of the mean of its variances on x: what it divides by, the score multiplies by.
    """
    network = gaussian(network)
    scales: list[float] = []

    def scale(_: object, inputs: tuple[Tensor, ...]) -> None:
        scales.append(0.5 * math.log(float(inputs[0].var((0, 2, 3), correction=0).mean())))

    x = torch.randn_like(images[:_IMAGES])
    hooks = [m.register_forward_pre_hook(scale) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    clean = _maps(network, x)
    for hook in hooks:
        hook.remove()
    noisy = _maps(network, x + _ALPHA * torch.randn_like(x))
    squares = sum((a - b).double().square().flatten(1).sum(1) for a, b in zip(clean, noisy, strict=True))
    assert isinstance(squares, Tensor)
    return math.log(float(squares.sqrt().mean())) + sum(scales)


def _maps(network: Network, x: Tensor) -> list[Tensor]:
    head, seen = network.model[-1], []
    if not isinstance(head, Head):
        return [network.run_rows(x)]
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    network.run_rows(x)
    hook.remove()
    return seen
