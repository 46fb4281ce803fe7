"""Mixtures for less than the sum of their paths, and equal to it.

Convolutions that share centre and stride are mixed by mixing their kernels. Batch normalisation and the activations
after it keep nothing but their input for the backward pass, which computes the rest again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .active import Mixture

# On maps of fewer pixels PyTorch's CPU convolutions are slower on channels last than on planes, on all others faster.
_FEW_PIXELS = 16
# A kernel that weighs less has its gradient computed directly, because the other way divides by the weight.
_LEAST_WEIGHT = 0.02

aten = torch.ops.aten


def fast_layout(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) in the memory layout in which convolutions on its device are fastest."""
    if x.device.type != "cpu":
        return x
    channels_last = x.shape[2] * x.shape[3] > _FEW_PIXELS
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """What is computed inside has no gradient for the parameters of `net`, which saves time and memory."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def weights_of(mixture: Mixture) -> Tensor:
    """(len(paths),), the weights of the paths that are computed."""
    if len(mixture.paths) == len(mixture.weights):
        return mixture.weights
    return mixture.weights[list(mixture.paths)]


def mixed_conv(x: Tensor, convs: Sequence[nn.Conv2d], chosen: int | Mixture) -> Tensor:
    """Convolutions without bias whose padding grows with the kernel; a mixture of them is one, with the mixed kernel.

    Where only the mixture's weights want a gradient, the largest kernel's is what the output has beyond the smaller
    ones, so that no gradient of a kernel is computed.
    """
    if isinstance(chosen, int):
        return cast(Tensor, convs[chosen](x))
    # The largest kernel first.
    pairs = zip(weights_of(chosen).unbind(), [convs[i] for i in chosen.paths], strict=True)
    weights, mixed = zip(*sorted(pairs, key=lambda pair: -pair[1].kernel_size[0]), strict=True)
    kernels = [conv.weight for conv in mixed]
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, kernels = x.to(dtype), [kernel.to(dtype) for kernel in kernels]
    return cast(Tensor, _MixedConv.apply(x, mixed[0].stride, mixed[0].padding, *weights, *kernels))


class _MixedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: Sequence[int], padding: Sequence[int], *mixture: Tensor) -> Tensor:
        num = len(mixture) // 2
        weights, kernels = mixture[:num], mixture[num:]
        mixed = kernels[0] * weights[0]
        for w, kernel in zip(weights[1:], kernels[1:], strict=True):
            _centre(mixed, kernel).addcmul_(kernel, w)
        y = nn.functional.conv2d(x, mixed, None, stride, padding)
        ctx.wants = (
            ctx.needs_input_grad[0],
            any(ctx.needs_input_grad[3 : 3 + num]),
            any(ctx.needs_input_grad[3 + num :]),
        )
        ctx.num, ctx.stride, ctx.padding = num, stride, padding
        ctx.save_for_backward(x, mixed, y if ctx.wants == (ctx.wants[0], True, False) else None, *mixture)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, mixed, y, *mixture = ctx.saved_tensors
        weights, kernels = mixture[: ctx.num], mixture[ctx.num :]
        wants_x, wants_weights, wants_kernels = ctx.wants
        beyond = y is not None and float(weights[0]) >= _LEAST_WEIGHT
        wants_mixed = wants_kernels or (wants_weights and not beyond)
        grad_x, grad_mixed, _ = aten.convolution_backward(
            grad, x, mixed, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (wants_x, wants_mixed, False)
        )
        grads: list[Any] = [None] * len(mixture)
        if wants_mixed:
            parts = [_centre(grad_mixed, kernel) for kernel in kernels]
            if wants_weights:
                grads[: ctx.num] = [(part * kernel).sum() for part, kernel in zip(parts, kernels, strict=True)]
            if wants_kernels:
                grads[ctx.num :] = [part * w for part, w in zip(parts, weights, strict=True)]
        elif beyond:
            rest = _dot(grad, y)
            for i, (w, kernel) in enumerate(zip(weights[1:], kernels[1:], strict=True), start=1):
                smaller = [p - _border(mixed, kernel) for p in ctx.padding]
                grads[i] = _dot(grad, nn.functional.conv2d(x, kernel, None, ctx.stride, smaller))
                rest = rest - w * grads[i]
            grads[0] = rest / weights[0]
        return grad_x, None, None, *grads


def _border(mixed: Tensor, kernel: Tensor) -> int:
    return (mixed.shape[-1] - kernel.shape[-1]) // 2


def _centre(mixed: Tensor, kernel: Tensor) -> Tensor:
    border, size = _border(mixed, kernel), kernel.shape[-1]
    return mixed[:, :, border : border + size, border : border + size]


def norm_act(
    x: Tensor, bn: nn.BatchNorm2d, acts: Iterable[nn.Module], weights: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Batch normalisation, and the weighed sum of activations.

    Parameters
    ----------
    x
        (N, C, H, W).
    bn
        (C,), or wider: its first channels.
    acts
        Memory is saved if all are SiLU, Identity or ReLU.
    weights
        (number of activations,); not needed for one.
    mask
        (C,), what the channels of the result are multiplied by.
    """
    momentum = bn.momentum
    if bn.training:
        cast(Tensor, bn.num_batches_tracked).add_(1)
        if momentum is None:
            momentum = 1 / float(cast(Tensor, bn.num_batches_tracked))
    state = [cast(Tensor, s) for s in (bn.weight, bn.bias, bn.running_mean, bn.running_var)]
    if x.shape[1] < bn.num_features:
        state = [s[: x.shape[1]] for s in state]
    mask = None if mask is None else mask.to(x.dtype)
    acts = list(acts)
    kinds = [type(act) for act in acts]
    if all(kind in _KINDS for kind in kinds):
        return cast(Tensor, _NormAct.apply(x, weights, mask, kinds, bn.training, momentum, bn.eps, *state))
    gamma, beta, mean, var = state
    z = nn.functional.batch_norm(x, mean, var, gamma, beta, bn.training, cast(float, momentum), bn.eps)
    parts = [act(z) for act in acts]
    y = parts[0] if weights is None else cast(Tensor, sum(w * part for w, part in zip(weights, parts, strict=True)))
    return y if mask is None else y * mask.view(1, -1, 1, 1)


# In the order in which they are computed: ReLU overwrites what it is given.
_KINDS = (nn.SiLU, nn.Identity, nn.ReLU)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor | None,
        mask: Tensor | None,
        kinds: Sequence[type],
        training: bool,
        momentum: float,
        eps: float,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        var: Tensor,
    ) -> Tensor:
        z, batch_mean, inverse_deviation = torch.native_batch_norm(x, gamma, beta, mean, var, training, momentum, eps)
        if training:
            mean, var = batch_mean, inverse_deviation.pow(-2) - eps
        ctx.save_for_backward(x, weights, mask, gamma, beta, mean, var)
        ctx.kinds, ctx.training, ctx.eps = kinds, training, eps
        y = _activate_(z, kinds, weights)
        return y if mask is None else y.mul_(mask.view(1, -1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weights, mask, gamma, beta, mean, var = ctx.saved_tensors
        wants_x, wants_weights, wants_mask, *_ = ctx.needs_input_grad
        z = torch.batch_norm(x, gamma, beta, mean, var, False, 0.0, ctx.eps, False)
        grad = grad.contiguous(memory_format=_layout(z))
        grad_mask = None
        if mask is not None:
            if wants_mask:
                grad_mask = (grad * _activate_(z.clone(), ctx.kinds, weights)).sum((0, 2, 3))
            grad = grad * mask.view(1, -1, 1, 1)
        grad_weights, grad_z = _activation_backward(grad, z, ctx.kinds, weights, wants_weights)
        wants = wants_x, *ctx.needs_input_grad[7:9]
        grad_x, grad_gamma, grad_beta = aten.native_batch_norm_backward(
            grad_z, x, gamma, mean, var, mean, (var + ctx.eps).rsqrt(), ctx.training, ctx.eps, wants
        )
        return grad_x, grad_weights, grad_mask, None, None, None, None, grad_gamma, grad_beta, None, None


def _activate_(z: Tensor, kinds: Sequence[type], weights: Tensor | None) -> Tensor:
    """Weighed sum of the activations of `z`, which is overwritten."""
    if weights is None:
        return {nn.SiLU: _silu_, nn.Identity: lambda z: z, nn.ReLU: torch.relu_}[kinds[0]](z)
    total: Tensor | None = None
    for w, kind in sorted(zip(weights.unbind(), kinds, strict=True), key=lambda pair: _KINDS.index(pair[1])):
        part = nn.functional.silu(z) if kind is nn.SiLU else z.relu_() if kind is nn.ReLU else z
        if total is None:
            total = part * w if part is z else part.mul_(w)
        else:
            total.addcmul_(part, w)
    return cast(Tensor, total)


def _silu_(z: Tensor) -> Tensor:
    return nn.functional.silu(z, inplace=True)


def _activation_backward(
    grad: Tensor, z: Tensor, kinds: Sequence[type], weights: Tensor | None, wants_weights: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients of weights and of `z`."""
    dots: list[Tensor] = []
    total: Tensor | None = None
    for i, kind in enumerate(kinds):
        part = grad
        if kind is nn.SiLU:
            part = aten.silu_backward(grad, z)
        elif kind is nn.ReLU:
            part = aten.threshold_backward(grad, z, 0)
        if weights is None:
            return None, part
        if wants_weights:
            # relu(z) grad = z relu'(z) grad
            dots.append(_dot(grad, nn.functional.silu(z)) if kind is nn.SiLU else _dot(part, z))
        if total is None:
            total = part * weights[i] if part is grad else part.mul_(weights[i])
        else:
            total.addcmul_(part, weights[i])
    return torch.stack(dots) if wants_weights else None, cast(Tensor, total)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a b, both (N, C, H, W)."""
    layout = _layout(a)
    a, b = a.contiguous(memory_format=layout), b.contiguous(memory_format=layout)
    if layout is torch.channels_last:
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))
