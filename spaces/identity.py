"""Blocks that begin as the identity: what is deeper than a trained network then computes what that does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.blocks import Conv

# SiLU twice on its own output, with what makes it nearest to the identity between: the (b, g, c) that minimise
# E (SiLU(g SiLU(x + b) + c) - x)^2 for x = SiLU(z), z standard normal. 3 % of the variance of x are left.
_SILU_SHIFT, _SILU_GAIN, _SILU_SHIFT_BACK = 2.83, 1.132, -3.03
# Of what a block makes of x, as a part of the variance of x: float32's rounding, and what is worse than fresh weights.
_EXACT, _USEFUL = 1e-10, 0.5


@torch.no_grad()
def make_identity(block: nn.Module, c_in: int) -> float:
    """Make a block with weights the identity, in place, in eval and in training mode, if that can be.

    A residual block has the scale of its branch's last batch norm set to zero (Goyal et al. 2017, arXiv:1706.02677,
    section 5.1). Others get Dirac convolutions, which with an activation behind that is not its own square root, such
    as SiLU, come near the identity only, and in eval mode only. Where nothing helps the block stays as it is.

    Returns
    -------
    Mean square of what the output differs from the input by, as a part of the input's variance; 0 is the identity.
    """
    acts = [m for name, m in block.named_modules() if name.endswith("act") and not isinstance(m, nn.Identity)]
    x = torch.randn(2, c_in, 8, 8, generator=torch.Generator().manual_seed(0))
    x = acts[-1](x) if acts else x
    before = {k: v.clone() for k, v in block.state_dict().items()}
    ways: list[Callable[[nn.Module], None]] = [lambda b: _silence(b, 1), lambda b: _silence(b, 2), _dirac]
    found = []
    for way in ways:
        block.load_state_dict(before)
        way(block)
        found.append(_error(block, x))
        if found[-1] < _EXACT:
            return 0.0
    block.load_state_dict(before)
    if (best := min(found)) < _USEFUL:
        ways[found.index(best)](block)
    return best


def _error(block: nn.Module, x: Tensor) -> float:
    was_training = block.training
    try:
        y = block.eval()(x)
    except (RuntimeError, TypeError):  # it takes or gives another shape
        return float("inf")
    finally:
        block.train(was_training)
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return float("inf")
    return float((y - x).square().mean() / x.var())


def _silence(block: nn.Module, num: int) -> None:
    """Zero what the last batch norms give; a ghost convolution has two side by side."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms[-num:]:
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)


def _dirac(block: nn.Module) -> None:
    convs = [m for m in block.modules() if isinstance(m, Conv) and m.conv.groups == 1]
    silu = len(convs) == 2 and all(isinstance(conv.act, nn.SiLU) for conv in convs)
    affine = [(1.0, _SILU_SHIFT), (_SILU_GAIN, _SILU_SHIFT_BACK)] if silu else [(1.0, 0.0)] * len(convs)
    for conv, (gain, shift) in zip(convs, affine, strict=True):
        weight, norm = conv.conv.weight, conv.bn
        same = min(weight.shape[:2])
        weight[:same] = 0  # more hidden channels than there are to be kept stay fresh, and are not read
        for i in range(same):
            weight[i, i, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.weight[:same] = gain * (1 + norm.eps) ** 0.5
            norm.bias[:same] = shift
