"""What BigNAS does about residual blocks and overfitting (Yu et al. 2020, arXiv:2003.11142, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from models.errors import InputError

# Where a block keeps what is added to its residual branch.
_SHORTCUTS = ("shortcut", "downsample")


def residual_blocks(network: nn.Module) -> list[nn.Module]:
    """Blocks that know drop-path and have a shortcut, an identity or a layer, in the order of the network."""
    known = (m for m in network.modules() if "drop_prob" in vars(m))
    return [m for m in known if getattr(m, "add", False) or any(name in m._modules for name in _SHORTCUTS)]


@torch.no_grad()
def zero_last_gamma(network: nn.Module) -> int:
    """Set the scale of the last batch norm of every residual branch to 0, so that a block begins as the identity.

    Not where an activation follows it that has no slope at 0, such as ReLU: such a branch would never learn.

    Returns
    -------
    How many were set.
    """
    count = 0
    for block in residual_blocks(network):
        norms = {
            name: m
            for name, m in block.named_modules()
            if isinstance(m, _BatchNorm) and name.split(".")[0] not in _SHORTCUTS
        }
        if not norms:
            continue
        name, norm = list(norms.items())[-1]
        if norm.affine and _has_slope_at_zero(getattr(block.get_submodule(name.rpartition(".")[0]), "act", None)):
            norm.weight.zero_()
            count += 1
    return count


def _has_slope_at_zero(act: nn.Module | None) -> bool:
    if act is None:
        return True
    with torch.enable_grad():
        x = torch.zeros(1, requires_grad=True, device=next((p.device for p in act.parameters()), None))
        return bool(torch.autograd.grad(act(x), x)[0].item())


class Regularization:
    """Dropout and drop-path of a network, which are for the largest subnet only: the smaller ones underfit.

    Dropout layers that the network has of itself are for the largest one only as well.

    Parameters
    ----------
    dropout
        Probability before a classifier's linear layer.
    drop_path
        Probability of the last residual block; it rises from block to block (Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, network: nn.Module, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        for name, p in (("dropout", dropout), ("drop-path", drop_path)):
            if not 0 <= p < 1:
                raise InputError(f"--{name} {p:g}: right would be a probability from 0 to below 1")
        self._linear, self._dropout = getattr(network, "linear", None), dropout
        if dropout and self._linear is None:
            raise InputError("--dropout is for classifiers, before their linear layer; detectors take --drop-path")
        blocks = residual_blocks(network)
        self._rates: list[tuple[Any, str, float]] = [
            (block, "drop_prob", drop_path * (i + 1) / len(blocks)) for i, block in enumerate(blocks)
        ]
        self._rates += [(m, "p", m.p) for m in network.modules() if isinstance(m, _DropoutNd)]
        self._off()

    def _off(self) -> None:
        for module, name, _ in self._rates:
            setattr(module, name, 0.0)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Forwards inside are regularised."""
        for module, name, rate in self._rates:
            setattr(module, name, rate)
        handle = self._linear.register_forward_pre_hook(self._drop) if self._dropout and self._linear else None
        try:
            yield
        finally:
            self._off()
            if handle is not None:
                handle.remove()

    def _drop(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return nn.functional.dropout(inputs[0], self._dropout)
