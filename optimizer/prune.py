"""Pruning: a plain network with its less important channels taken away, as a plain YAML and weights again.

Which channels go together is read off the network (`spaces.channel_groups`), which widths its YAML can say is too
(`optimizer.widths`), so that residuals, concatenations, depth-wise convolutions and what feeds the head are right by
construction. The result computes what the network does with those channels at zero, `masked`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.catalog import is_head
from models.classifier import Classifier
from models.detector import Model
from models.errors import InputError
from models.files import dump_model_yaml
from models.grammar import Config
from models.network import Network
from spaces.channel_groups import DENSE, Segments, indices, is_dense

from .scores import Scores
from .widths import Unit, Widths

MULTIPLE = 8
# Of a unit's channels, what a threshold over all layers leaves in any case.
LEAST = 0.1
_STEPS = 256  # of the sparsity, where that is searched
# Of the masked network's outputs, as a part of the largest of them: sums in another order, through some hundred layers.
_ROUNDING = 1e-3


class UnreachableError(InputError):
    """A cost that no sparsity comes to; `least` is what the narrowest network has."""

    def __init__(self, limit: float, least: float) -> None:
        super().__init__(f"cannot be pruned to {limit:g}: at its narrowest it has {least:g}; right would be more")
        self.least = least


@dataclass(frozen=True)
class Pruned:
    """What `prune` made.

    Attributes
    ----------
    network
        The narrower network, of the class of the one that was pruned, in eval mode.
    segments
        Of the channels of the network that was pruned.
    kept
        Segment to which of its channels are left, in their order.
    sparsity
        Share of the channels that could be taken away which are.
    widths
        Of every unit, what it is (``row 2 (C3) c2``), and its channels before and after.
    """

    network: Any
    segments: Segments
    kept: Mapping[int, Tensor]
    sparsity: float
    widths: list[tuple[str, int, int]]


def prune(
    network: Model | Classifier,
    scores: Callable[[Segments], Scores],
    sparsity: float | None = None,
    *,
    cost: Callable[[Network], float] | None = None,
    limit: float | None = None,
    scope: str = "global",
    multiple: int = MULTIPLE,
) -> Pruned:
    """Take channels away.

    Parameters
    ----------
    network
        Plain; left as it is.
    scores
        Gives the importance of all channels, see `optimizer.scores.channel_scores`.
    sparsity
        Share of the channels that are to go; widths are rounded to multiples.
    cost, limit
        Without a sparsity: the smallest one at which a network without weights costs no more than `limit`.
    scope
        ``global``: the least important of all layers, which leaves every one a tenth; ``layer``: of each its share.
    multiple
        Widths are multiples of it, where they can be and are not what they were.

    Raises
    ------
    InputError
        There is nothing that could be pruned, or not so much (`UnreachableError`); or the network does with its
        channels what cannot be followed.
    """
    if scope not in ("global", "layer"):
        raise InputError(f"--scope {scope}: right would be global or layer")
    _check(network.config)
    widths = Widths(network.config, _size(network))
    if not widths.units:
        raise InputError(
            f"{network.config.file}: nothing of it can be pruned: every width is held by a grouped convolution, an "
            "attention or a row that only its own code says the width of"
        )
    given = scores(widths.segments)
    plan = _Plan(widths, given, scope, multiple)
    if sparsity is not None:
        if not 0 < sparsity < 1:
            raise InputError(f"--sparsity {sparsity}: right would be more than 0 and less than 1")
        wanted = plan.at(sparsity)
    elif cost is not None and limit is not None:
        wanted = plan.within(cost, limit)
    else:
        raise InputError("say how much is to go: --sparsity, --to-flops, --to-params or --to-latency")
    config = widths.at(wanted)
    lengths = widths.lengths(config)
    kept = {s: given[s].topk(n).indices.sort().values for s, n in lengths.items()}
    narrow = _cut(network, config, widths.segments, kept)
    names = _described(widths, lengths)
    free = {s for unit in widths.units for s in unit.segments}
    before, after = (sum(of[s] for s in free) for of in (widths.segments.lengths, lengths))
    pruned = Pruned(narrow, widths.segments, kept, 1 - after / before, names)
    _compare(network, pruned)
    return pruned


def masked(network: Any, segments: Segments, kept: Mapping[int, Tensor]) -> Any:
    """A copy of a network in which the channels that are not `kept` are zero, and nothing reads them."""
    network = copy.deepcopy(network).eval()
    gone: dict[int, Tensor] = {}
    for segment, length in segments.lengths.items():
        mask = torch.ones(length, dtype=torch.bool)
        mask[kept[segment]] = False
        gone[segment] = mask
    with torch.no_grad():
        for name, given in segments.given.items():
            layer = network.get_submodule(name)
            out, into = (torch.cat([gone[s] for s in of]) for of in (given, segments.taken[name]))
            if not bool(out.any() or into.any()):
                continue
            for key, tensor in layer._parameters.items():
                if tensor is None or not tensor.ndim:
                    continue
                dim = 1 if getattr(layer, "transposed", False) and tensor.ndim > 1 and is_dense(layer) else 0
                tensor.transpose(0, dim)[out.to(tensor.device)] = 0
                if is_dense(layer) and key == "weight":
                    tensor.transpose(0, 1 - dim)[into.to(tensor.device)] = 0
    return network


def _size(network: Any) -> int:
    """Pixels a side of images that leave two cells a side of the coarsest map."""
    return max(64, 2 * int(network.imgsz_multiple))


def _check(config: Config) -> None:
    if not is_head(config.rows[-1]) and not config.is_classifier:
        raise InputError(f"{config.file}: right would be a detector or a classifier")


class _Plan:
    """How wide every unit is to be."""

    def __init__(self, widths: Widths, scores: Scores, scope: str, multiple: int) -> None:
        self.widths, self.scope, self.multiple = widths, scope, multiple
        self._of = {unit: torch.cat([scores[s] for s in unit.segments]) for unit in widths.units}
        self._every = torch.cat([*self._of.values()]).sort().values

    def at(self, sparsity: float) -> dict[Unit, int]:
        """Unit to its channels."""
        threshold = self._every[min(math.floor(sparsity * len(self._every)), len(self._every) - 1)]
        found = {}
        for unit, scores in self._of.items():
            share = 1 - sparsity
            if self.scope == "global":
                share = max(float((scores >= threshold).double().mean()), LEAST)
            # The nearest multiple.
            width = math.floor(unit.width * share / self.multiple + 0.5) * self.multiple
            found[unit] = min(max(width, self.multiple), unit.width)
        return found

    def within(self, cost: Callable[[Network], float], limit: float) -> dict[Unit, int]:
        """At the smallest sparsity at which the cost is within its limit, where more costs less."""
        costs: dict[str, float] = {}

        def fits(step: int) -> bool:
            config = self.widths.at(self.at(step / _STEPS))
            key = dump_model_yaml(config.raw)
            if key not in costs:
                costs[key] = cost(self.widths.skeleton(config))
            return costs[key] <= limit

        low, high = 0, _STEPS - 1
        if fits(low):
            return self.at(0.0)
        if not fits(high):
            raise UnreachableError(limit, min(costs.values()))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return self.at(high / _STEPS)


def _cut(network: Any, config: Config, segments: Segments, kept: Mapping[int, Tensor]) -> Any:
    """The network of `config` with the channels that are kept."""
    with torch.random.fork_rng(devices=()):
        narrow = type(network)(config)
    own, state = narrow.state_dict(), dict(network.state_dict())
    for name, given in segments.given.items():
        layer = network.get_submodule(name)
        out, into = (indices(of, segments.lengths, dict(kept)) for of in (given, segments.taken[name]))
        for key in (*layer._parameters, *layer._buffers):
            tensor = state.get(f"{name}.{key}")
            if tensor is None or not tensor.ndim:
                continue
            dim = 1 if getattr(layer, "transposed", False) and tensor.ndim > 1 and is_dense(layer) else 0
            expected = own[f"{name}.{key}"].shape
            if tensor.shape == expected:
                continue
            tensor = tensor.index_select(dim, out.to(tensor.device))
            if isinstance(layer, DENSE) and is_dense(layer) and key == "weight":
                tensor = tensor.index_select(1 - dim, into.to(tensor.device))
            state[f"{name}.{key}"] = tensor
    for key, tensor in own.items():
        if state[key].shape != tensor.shape:
            raise InputError(f"{network.config.file}: cannot be pruned: {key} would be of another shape")
    narrow.load_state_dict({key: state[key].to("cpu") for key in own})
    narrow.names = dict(getattr(network, "names", {}))
    for tensor, source in zip(narrow.parameters(), network.parameters(), strict=True):
        tensor.requires_grad_(source.requires_grad)
    return narrow.to(next(iter(network.state_dict().values())).dtype).eval()


@torch.no_grad()
def _compare(network: Any, pruned: Pruned) -> None:
    """`InputError` unless the result computes what the masked network does."""
    size = _size(network)
    x = torch.rand(1, network.config.ch, size, size, generator=torch.Generator().manual_seed(0))
    first = next(network.parameters())
    mask = masked(network, pruned.segments, pruned.kept)
    expected, found = (_flat(n.to(first.device)(x.to(first))) for n in (mask, pruned.network))
    if float((found - expected).abs().max()) > _ROUNDING * max(float(expected.abs().max()), 1.0):
        raise InputError(
            f"{network.config.file}: cannot be pruned: a block does more with its channels than convolutions, sums, "
            "concatenations and batch norms do"
        )


def _flat(output: Any) -> Tensor:
    logits = output[1] if isinstance(output, tuple) else [output]
    return torch.cat([level.flatten() for level in logits])


def _described(widths: Widths, lengths: Mapping[int, int]) -> list[tuple[str, int, int]]:
    """Of every unit, its arguments, and its channels before and after."""
    found = []
    for unit in widths.units:
        longest = max(unit.segments, key=lambda s: widths.segments.lengths[s])
        parts = []
        for knob in unit.knobs:
            place = "" if knob.place is None else f".{knob.place}"
            parts.append(f"row {knob.row} ({widths.config.rows[knob.row].module}) {knob.name}{place}")
        found.append((", ".join(parts), unit.width, lengths[longest]))
    return found
