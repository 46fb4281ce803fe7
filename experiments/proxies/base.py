"""What all proxies are: a score of an untrained network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor, nn

from models.network import Network

Loss = Callable[[Network], Tensor]
"""A network's loss on the labels of the images, by a forward of its own."""

# Activations that let through one side of zero and little of the other; those of gates are not among them.
RECTIFIERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Softplus),
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class Proxy(Protocol):
    """A score of a network with fresh weights; the larger, the better the network is expected to become.

    It follows from the network, the images and the state of torch's random numbers, and leaves the network as it was.
    """

    def __call__(self, network: Network, images: Tensor, loss: Loss) -> float:
        """The score.

        Parameters
        ----------
        network
            Plain, of any rows: a `models.Classifier` or a `models.Model`.
        images
            (N, C, H, W) of a task's training images, as the network takes them.
        loss
            For proxies that look at labels.
        """


def copied(network: Network) -> Network:
    """A copy to be altered, in training mode: batch norms take the statistics of the batch, and nothing is dropped."""
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if isinstance(module, _DROPOUTS):
            module.eval()
    return network


def weights(network: nn.Module) -> list[nn.Parameter]:
    """Of convolutions and linear layers, without biases and batch norms."""
    return [p for p in network.parameters() if p.ndim > 1]


def tensors(output: object) -> Iterator[Tensor]:
    """The tensors of a network's output: logits, or a list of them a level of the head."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from tensors(part)


def replace(network: nn.Module, kinds: tuple[type[nn.Module], ...], make: Callable[[], nn.Module]) -> None:
    """Put another module in the place of each of some kinds."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, kinds):
                setattr(module, name, make())
