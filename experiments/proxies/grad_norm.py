"""The gradient's norm at initialisation (Abdelfattah et al. 2021, arXiv:2101.08134, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.network import Network

from .base import Loss, copied, weights


def grad_norm(network: Network, images: Tensor, loss: Loss) -> float:
    """Sum of the Euclidean norms of the loss' gradients, a norm a layer's weights."""
    network = copied(network)
    gradients = torch.autograd.grad(loss(network), weights(network), allow_unused=True)
    return sum(float(g.norm()) for g in gradients if g is not None)
