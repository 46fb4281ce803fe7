"""NASWOT: how differently images are seen at initialisation (Mellor et al. 2021, arXiv:2006.04647)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.network import Network

from .base import RECTIFIERS, Loss, copied


@torch.no_grad()
def naswot(network: Network, images: Tensor, loss: Loss) -> float:
    """Log-determinant of the kernel of binary codes (section 3, equation 2).

    An image's code says of every rectifier whether its input is positive; the kernel counts where the codes of two
    images agree. For activations with a smooth knee, such as SiLU, it is the input's sign as well. -inf where two
    images have one code.
    """
    network = copied(network)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(_: object, inputs: tuple[Tensor, ...]) -> None:
        code = (inputs[0].flatten(1) > 0).float()
        kernel.add_(code @ code.T).add_((1 - code) @ (1 - code).T)

    for module in network.modules():
        if isinstance(module, RECTIFIERS):
            module.register_forward_pre_hook(count)
    network(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)
