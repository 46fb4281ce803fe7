"""Blocks that begin as the identity: what is deeper than a trained network then computes what that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.blocks import Conv

# A convolution's (gain, shift): what is given to its activation is gain times what is given to the convolution, plus
# the shift; of no shift, the lowest value of each channel becomes _HIGH. There SiLU, GELU, Mish and Hardswish are the
# identity: SiLU(12) = 12 - 7e-5.
Affine = tuple[float, float | None]
_HIGH = 12.0
_AS_IT_IS: Affine = (1.0, 0.0)
_SHIFTED: Affine = (1.0, None)
# SiLU twice on its own output, with what makes it nearest to the identity between: the (b, g, c) that minimise
# E (SiLU(g SiLU(x + b) + c) - x)^2 for x = SiLU(z), z standard normal. 3 % of the variance of x are left.
_SILU: tuple[Affine, ...] = ((1.0, 2.83), (1.132, -3.03))
# Of what a block makes of x, as a part of the variance of x: float32's rounding, that at _HIGH, and what is worse than
# fresh weights.
_EXACT, _EXACT_SHIFTED, _USEFUL = 1e-10, 1e-7, 0.5


@torch.no_grad()
def make_identity(block: nn.Module, x: Tensor, shifts: bool = False) -> float:
    """Make a block with weights the identity, in place, if that can be.

    A residual block has the scale of its branch's last batch norm set to zero (Goyal et al. 2017, arXiv:1706.02677,
    section 5.1). Others get Dirac convolutions, and batch norms that take away what they add, by the statistics of `x`
    (so Net2DeeperNet, arXiv:1511.05641, section 2.3): with an activation behind that is not its own square root, such
    as SiLU, they come near the identity only. Where nothing helps the block stays as it is.

    Parameters
    ----------
    x
        (N, C, H, W), such as what the block is given.
    shifts
        Whether the output may be the input plus a constant a channel, which a batch norm behind takes away. Then the
        activation works where it is straight, and the rest is exact.

    Returns
    -------
    Mean square of what the output differs from the input by (and the constant), as a part of the input's variance; 0 is
    the identity, and 0 with a constant is too.
    """
    before = {k: v.clone() for k, v in block.state_dict().items()}
    ways: list[Callable[[nn.Module, Tensor], None]] = [_silence, _silence_two, _dirac]
    ways += [_dirac_shifted] if shifts else [_dirac_silu]
    found = []
    for way in ways:
        block.load_state_dict(before)
        way(block, x)
        found.append(_error(block, x, way is _dirac_shifted))
        if found[-1] < (_EXACT_SHIFTED if way is _dirac_shifted else _EXACT):
            return 0.0
    block.load_state_dict(before)
    if (best := min(found)) < _USEFUL:
        ways[found.index(best)](block, x)
    return best


@contextmanager
def statistics_of_batches(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms normalise by each batch's own statistics, as in training, and do not keep them."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.momentum = True, 0.0
        yield
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum


@contextmanager
def _eval(module: nn.Module) -> Iterator[None]:
    before = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for m, training in before:
            m.training = training


def _error(block: nn.Module, x: Tensor, but_constants: bool) -> float:
    try:
        with _eval(block):
            y = block(x)
    except (RuntimeError, TypeError):  # it takes or gives another shape
        return float("inf")
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return float("inf")
    apart = y - x
    if but_constants:
        apart = apart - apart.mean((0, 2, 3), keepdim=True)
    return float(apart.square().mean() / x.var())


def _silence(block: nn.Module, x: Tensor, num: int = 1) -> None:
    """Zero what the last batch norms give."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms[-num:]:
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)


def _silence_two(block: nn.Module, x: Tensor) -> None:
    """Of a ghost convolution, which has two side by side."""
    _silence(block, x, 2)


def _dirac(block: nn.Module, x: Tensor) -> None:
    _dirac_at(block, x, lambda i: _AS_IT_IS)


def _dirac_shifted(block: nn.Module, x: Tensor) -> None:
    _dirac_at(block, x, lambda i: _SHIFTED)


def _dirac_silu(block: nn.Module, x: Tensor) -> None:
    acts = [type(m.act) for m in block.modules() if isinstance(m, Conv)]
    _dirac_at(block, x, _SILU.__getitem__ if acts == [nn.SiLU] * 2 else lambda i: _AS_IT_IS)


def _dirac_at(block: nn.Module, x: Tensor, affine: Callable[[int], Affine]) -> None:
    """Make convolutions that follow one another Dirac ones, with a gain and a shift each."""
    convs = [m for m in block.modules() if isinstance(m, Conv) and m.conv.groups == 1]
    for i, conv in enumerate(convs):
        weight, norm, (gain, shift) = conv.conv.weight, conv.bn, affine(i)
        same = min(weight.shape[:2])
        weight[:same] = 0  # more hidden channels than there are to be kept stay fresh, and are not read
        for j in range(same):
            weight[j, j, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        if x.shape[1] != weight.shape[1] or not isinstance(norm, nn.BatchNorm2d):
            return
        y = conv.conv(x)
        var, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        norm.reset_running_stats()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        add = _HIGH - gain * y.amin((0, 2, 3)) if shift is None else torch.full_like(mean, shift)
        norm.weight[:same] = (gain * (var + norm.eps).sqrt())[:same]
        norm.bias[:same] = (gain * mean + add)[:same]
        with _eval(conv):
            x = conv(x)
