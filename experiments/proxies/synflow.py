"""SynFlow: synaptic flow (Tanaka et al. 2020, arXiv:2006.05467), summed over a network as Abdelfattah et al. 2021
(arXiv:2101.08134, section 3.2) do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.network import Network

from .base import RECTIFIERS, Loss, copied, replace, tensors, weights


def synflow(network: Network, images: Tensor, loss: Loss) -> float:
    """Logarithm of the sum of ``|w dR/dw|``, R being the output's sum for an image of ones and weights without signs.

    Without batch norms, as there. All that flows is positive, where a rectifier is an identity; it is one here, since
    ReLU6 would cut the flow off. In double precision: R grows with every layer.
    """
    network = copied(network).double()
    replace(network, (_BatchNorm,), nn.Identity)
    replace(network, RECTIFIERS, nn.Identity)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    total = torch.stack([y.sum() for y in tensors(network(ones))]).sum()
    found = weights(network)
    gradients = torch.autograd.grad(total, found, allow_unused=True)
    flow = sum(float((w.detach() * g).abs().sum()) for w, g in zip(found, gradients, strict=True) if g is not None)
    return math.log(flow) if flow > 0 else -math.inf
