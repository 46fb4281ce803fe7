"""Batch norm statistics of a slice, taken anew: a supernet's are those of all of its subnets together.

Called calibration by BigNAS (Yu et al. 2020, arXiv:2003.11142, section 3.2) and slimmable networks (Yu and Huang 2019,
arXiv:1903.05134, section 3.3).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import InputError

N = TypeVar("N", bound=nn.Module)


class _Pool:
    """Count, mean and sum of squared deviations of all values of a channel, whatever batches they come in.

    By the update of Chan, Golub and LeVeque (1979), which has the variance between the batches' means in it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, x: Tensor) -> None:
        """(N, C, …)"""
        count = x.numel() // x.shape[1]
        if count < 2:
            raise InputError("batch norm statistics need two values a channel in a batch: give more or larger images")
        var, mean = (s.double() for s in torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0))
        total, apart = self.count + count, mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + var * count + apart**2 * (self.count * count / total)
        self.count = total

    def write(self, norm: _BatchNorm) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(self.squares / (self.count - 1))  # unbiased, as PyTorch's own


def _forward(network: nn.Module, batch: Any) -> Any:
    return network(batch)


@torch.no_grad()
def calibrate_bn(network: N, batches: Iterable[Any], run: Callable[[N, Any], Any] = _forward) -> N:
    """A copy of `network` whose batch norms have the statistics of `batches`; in eval mode.

    Mean and variance are those of all values that reach a batch norm, as if they came in one batch. Each batch is
    normalised by its own, as in training, so that batches should be as large as there.

    Parameters
    ----------
    network
        A plain network, or what NNI's `freeze` leaves of a supernet at an arch; left as it is.
    batches
        Inputs of the network, of the side that it works at.
    run
        (The copy, a batch) -> runs it, where batches are no inputs yet, such as a training step that takes labels too.

    Raises
    ------
    InputError
        If there are no batches, or one of them holds a single value of a channel.
    """
    network = copy.deepcopy(network)
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    pools: dict[nn.Module, _Pool] = {}

    def see(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pools.setdefault(norm, _Pool()).add(inputs[0])

    handles = [norm.register_forward_pre_hook(see) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    network.eval()  # dropout is for training
    for norm in norms:
        norm.training, norm.momentum = True, 0.0
    empty = True
    for batch in batches:
        run(network, batch)
        empty = False
    if empty:
        raise InputError("batch norm statistics need images: there is no batch to take them from")
    for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
        norm.momentum = momentum
        handle.remove()
    for norm in norms:
        if norm in pools:
            pools[norm].write(norm)
    return network.eval()
