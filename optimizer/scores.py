"""How important the channels of a network are, by the weights that make them or by what the loss says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from models.errors import InputError
from spaces.channel_groups import DENSE, Segments, is_dense

METHODS = ("l1", "l2", "fpgm", "taylor", "random")

# Segment to the scores of its channels.
Scores = dict[int, Tensor]


def channel_scores(
    network: nn.Module, segments: Segments, method: str, losses: Iterable[Tensor] = (), seed: int = 0
) -> Scores:
    """Scores of all channels, the more important the higher.

    ``l1``, ``l2``: norms of the filters that make a channel (Li et al. 2017, arXiv:1608.08710), added up where several
    do. ``fpgm``: distances of a filter from all others of its layer, added up: the one nearest to their geometric
    median can be spared best (He et al. 2019, arXiv:1811.00250). ``taylor``: the square of what the loss changes by, to
    first order, without the channel, behind its batch norm where there is one (Molchanov et al. 2019, arXiv:1906.10771,
    section 3). ``random``. All but ``taylor``, which compares across layers as it is, have a mean of 1 in each segment.

    Parameters
    ----------
    segments
        Of the network's channels.
    losses
        For ``taylor``, of a batch each, with their graph.

    Raises
    ------
    InputError
        There is no such method, or no loss for ``taylor``.
    """
    if method not in METHODS:
        raise InputError(f"--method {method}: right would be one of {', '.join(METHODS)}")
    if method == "random":
        generator = torch.Generator().manual_seed(seed)
        return {s: torch.rand(n, generator=generator, dtype=torch.float64) for s, n in segments.lengths.items()}
    found = {s: torch.zeros(n, dtype=torch.float64) for s, n in segments.lengths.items()}
    if method == "taylor":
        _add_taylor(found, network, segments, losses)
        return found
    for name in segments.given:
        layer = network.get_submodule(name)
        if is_dense(layer):
            _add(found, segments, name, _of_filters(_filters(layer), method))
    return {s: score / score.mean() if score.any() else score for s, score in found.items()}


def _filters(layer: nn.Module) -> Tensor:
    """(filters, weights of each), float64."""
    weight = cast(Tensor, layer.weight).detach().cpu().double()
    return (weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight).flatten(1)


def _of_filters(filters: Tensor, method: str) -> Tensor:
    if method == "fpgm":
        return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
    return filters.norm(1 if method == "l1" else 2, dim=1)


def _add(found: Scores, segments: Segments, name: str, scores: Tensor) -> None:
    """Add the scores of what a layer gives to those of the same channels."""
    given = segments.given[name]
    for segment, part in zip(given, scores.split([segments.lengths[s] for s in given]), strict=True):
        found[segment] += part


def _add_taylor(found: Scores, network: nn.Module, segments: Segments, losses: Iterable[Tensor]) -> None:
    norms = {s for name, given in segments.given.items() if isinstance(segments.layers[name], _NormBase) for s in given}
    names = [
        name
        for name, given in segments.given.items()
        if isinstance(segments.layers[name], _NormBase)
        or (isinstance(segments.layers[name], DENSE) and not norms & set(given))
    ]
    batches = 0
    for loss in losses:
        tensors = {name: list(_own(network.get_submodule(name))) for name in names}
        flat = [t for own in tensors.values() for t in own]
        gradients: Any = iter(torch.autograd.grad(loss, flat, allow_unused=True))
        for name, own in tensors.items():
            layer = network.get_submodule(name)
            change: Tensor | float = 0.0
            for tensor in own:
                if (gradient := next(gradients)) is None:
                    continue
                product = (tensor * gradient).detach().cpu().double()
                if getattr(layer, "transposed", False) and product.ndim > 1:
                    product = product.transpose(0, 1)
                change = change + product.flatten(1).sum(1) if product.ndim > 1 else change + product
            if isinstance(change, Tensor):
                _add(found, segments, name, change**2)
        batches += 1
    if not batches:
        raise InputError("--method taylor: needs images; right would be --data")
    for score in found.values():
        score /= batches


def _own(layer: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in layer.parameters(recurse=False) if p.requires_grad)
