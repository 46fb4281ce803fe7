"""Channels of a supernet in the order of their importance, so that narrow subnets have the most important ones.

So before widths are made elastic in Once-for-All (Cai et al. 2020, arXiv:1908.09791, section 3.3): the importance of a
channel is the sum of the absolute values of the weights that read it. Channels that are added up, or that a depth-wise
convolution or a batch norm treats one by one, are the same channel, read by all that read any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.errors import InputError

from .channel_groups import DENSE, united
from .elastic_plan import greatest
from .elastic_trace import Channels, layers, trace_network
from .elements import Elements
from .space import Arch
from .warm_start import Supernet, WarmStart, covering, image_size, subnet_at

_EACH = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.PReLU)
# Of the largest subnet's outputs, as a part of the largest of them: sums in another order, through some hundred layers.
_ROUNDING = 1e-4
# Of each subnet: where its elements are, and where those are that come there.
Moves = list[tuple[dict[str, Tensor], dict[str, Tensor]]]


@torch.no_grad()
def order_channels(
    supernet: Supernet, start: WarmStart | None = None, also: Iterable[Mapping[str, Tensor]] = ()
) -> None:
    """Order the channels of a supernet by importance, in place. What its largest subnet computes stays the same.

    Channels of the image, of classes, and those that a grouped convolution or an attention mixes keep their places.

    Parameters
    ----------
    start
        What the supernet's weights are from: the channels of that network come before those that were grown, and only
        its weights say what is important, so that the subnet that is the network goes on computing the same.
    also
        More tensors by the names of the supernet's, such as an average of the weights or an optimizer's momentum, whose
        channels are moved as the supernet's are. They need not be complete.

    Raises
    ------
    InputError
        A block does something with its channels that cannot be followed. The supernet is as before.
    """
    with torch.random.fork_rng(devices=()):  # what is built for it draws no random numbers of the caller's
        _order_channels(supernet, start, also)


def _order_channels(supernet: Supernet, start: WarmStart | None, also: Iterable[Mapping[str, Tensor]]) -> None:
    elements = Elements(supernet)
    if start is not None and start.largest is not None:
        largest: Arch = dict(start.largest)
    else:
        start = None
        largest = {label: greatest(d.values) for label, d in supernet.space.decisions.items()}
    parts = list(_parts(elements, largest, None if start is None else start.known))
    order = _Order(parts)
    before = _outputs(elements, largest, parts[0].where)
    kept = {name: t.detach().clone() for name, t in elements.tensors.items()}
    moves = [(part.where, order.of(part, part.where)) for part in parts]
    _move(elements, moves, elements.tensors)
    after = _outputs(elements, largest, parts[0].where)
    if float((after - before).abs().max()) > _ROUNDING * float(before.abs().max()):
        for name, t in elements.tensors.items():
            t.copy_(kept[name])
        raise InputError(
            f"{supernet.space.config.file}: its channels cannot be ordered: a block does more with them than "
            "convolutions, sums, concatenations and batch norms do"
        )
    for tensors in also:
        _move(elements, moves, tensors)


def _move(elements: Elements, moves: Moves, tensors: Mapping[str, Tensor]) -> None:
    """Put elements where others of the same tensors were; all are read before any is written."""
    for where, state in [(where, elements.read(source, tensors)) for where, source in moves]:
        elements.write(where, state, tensors)


def _outputs(elements: Elements, arch: Arch, where: Mapping[str, Tensor]) -> Tensor:
    subnet = subnet_at(elements, arch, where).eval()
    size = image_size(subnet)
    x = torch.rand(1, subnet.config.ch, size, size, generator=torch.Generator().manual_seed(0))
    y = subnet(x.to(next(subnet.parameters()).device))
    return torch.cat([level.flatten() for level in y[1]]) if isinstance(y, tuple) else y.flatten()


class _Part(NamedTuple):
    """One of the subnets that together have all of a supernet's weights."""

    where: dict[str, Tensor]
    state: dict[str, Tensor]
    layers: dict[str, nn.Module]
    known: dict[str, Tensor]  # tensor to which of its elements count
    channels: Channels  # numbered on, from subnet to subnet


def _parts(elements: Elements, largest: Arch, known: Tensor | None) -> Iterator[_Part]:
    first = 0
    for arch, where in covering(elements, largest):
        subnet = subnet_at(elements, arch, where)
        found = trace_network(subnet, image_size(subnet))[1]
        moved = Channels(
            {name: t + first for name, t in found.taken.items()},
            {name: t + first for name, t in found.given.items()},
            found.joined[:, (found.joined > 0).all(0)] + first,
            [t + first for t in found.rows],
            found.inputs + first,
        )
        counts = {
            key: torch.ones(w.shape, dtype=torch.bool) if known is None else known[w.cpu()] for key, w in where.items()
        }
        yield _Part(where, subnet.state_dict(), layers(subnet), counts, moved)
        numbers = [*moved.taken.values(), *moved.given.values()]
        first = max(int(t.max()) for t in numbers if t.numel()) + 1


class _Order:
    """Where every channel goes.

    Channels that are the same have one number, their root. Roots that follow one another wherever they occur are a
    block, within which they are ordered.
    """

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        every = [t for p in parts for t in (*p.channels.taken.values(), *p.channels.given.values())]
        self.count = max(int(t.max()) for t in every if t.numel()) + 1
        self.root = self._united()
        fixed, score = self._importance()
        follows = self._follows([self.root[t] for t in every if t.numel()])
        # Of every root: its place in its block, and the place that what comes here comes from.
        self.place, self.source = torch.zeros(2, self.count).long()
        heads = [r for r in range(self.count) if follows[0][r] < 0]
        for head in heads:
            block = [head]
            while (nxt := int(follows[1][block[-1]])) >= 0:
                block.append(nxt)
            members = torch.tensor(block)
            self.place[members] = torch.arange(len(block))
            free = not bool(fixed[members].any())
            by_score = score[members].sort(descending=True, stable=True).indices
            self.source[members] = by_score if free else self.place[members]

    def of(self, part: _Part, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a subnet's tensors `given`, those that have channels, in the new order."""
        state = {}
        for name, layer in part.layers.items():
            if name not in part.channels.given:
                continue
            out, into = self._moved(part.channels.given[name]), self._moved(part.channels.taken[name])
            for key in (*layer._parameters, *layer._buffers):
                if (value := given.get(f"{name}.{key}")) is None or not value.ndim:
                    continue
                dim = 1 if getattr(layer, "transposed", False) and value.ndim > 1 else 0
                if value.shape[dim] == len(out):
                    value = value.index_select(dim, out.to(value.device))
                if isinstance(layer, DENSE) and value.ndim > 1 and value.shape[1 - dim] == len(into):
                    value = value.index_select(1 - dim, into.to(value.device))
                state[f"{name}.{key}"] = value
        return state

    def _moved(self, numbers: Tensor) -> Tensor:
        """Index of what comes to the place of each of a layer's channels."""
        root = self.root[numbers]
        return torch.arange(len(root)) - self.place[root] + self.source[root]

    def _united(self) -> Tensor:
        """Number of a channel to the smallest number of those that are the same."""
        pairs = [p.channels.joined for p in self.parts]
        writer: dict[tuple[int, int], Tensor] = {}
        for part in self.parts:
            for name, layer in part.layers.items():
                if (numbers := part.channels.given.get(name)) is None or "weight" not in layer._parameters:
                    continue
                where = part.where[f"{name}.weight"]
                where = where.transpose(0, 1) if getattr(layer, "transposed", False) else where
                where = where.flatten(1)[:, 0] if where.ndim > 1 else where
                if len(where) == len(numbers):  # the same weights in two subnets make the same channels
                    same = writer.setdefault((int(where[0]), len(where)), numbers)
                    pairs.append(torch.stack([same, numbers]))
        for rows in zip(*(p.channels.rows for p in self.parts), strict=True):
            # So do candidates that take one another's place.
            pairs += [torch.stack([rows[0], row]) for row in rows[1:] if len(row) == len(rows[0])]
        return united(torch.cat(pairs, 1), self.count)

    def _importance(self) -> tuple[Tensor, Tensor]:
        """(which roots keep their place, importance of the others, -1 of what does not count)."""
        fixed = torch.zeros(self.count, dtype=torch.bool)
        read, known = torch.zeros_like(fixed), torch.zeros_like(fixed)
        score = torch.zeros(self.count, dtype=torch.float64)
        seen: set[tuple[int, int]] = set()
        for part in self.parts:
            fixed[self.root[part.channels.inputs]] = True
            for name, numbers in part.channels.given.items():
                layer, taken = part.layers[name], self.root[part.channels.taken[name]]
                given, weight = self.root[numbers], part.state.get(f"{name}.weight")
                groups = getattr(layer, "groups", 1)
                if isinstance(layer, _EACH) or (groups > 1 and torch.equal(given, taken)):
                    continue
                if weight is None or not isinstance(layer, DENSE) or groups > 1:
                    fixed[given], fixed[taken] = True, True
                    continue
                transposed = getattr(layer, "transposed", False)
                counts = part.known[f"{name}.weight"]
                read[taken] = True
                known[given] |= counts.transpose(0, int(transposed)).flatten(1).any(1)
                where = part.where[f"{name}.weight"]
                if (key := (int(where.reshape(-1)[0]), where.numel())) in seen:
                    continue
                seen.add(key)
                size = (weight.cpu().double().abs() * counts).transpose(0, 1 - int(transposed)).flatten(1).sum(1)
                score.index_add_(0, taken, size)
        return fixed | ~read, torch.where(known, score, -1.0)

    def _follows(self, runs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(root before, root behind) each, -1 where that is not the same wherever it occurs."""
        end = torch.tensor([-1])
        pairs = torch.cat([torch.stack([torch.cat([end, run]), torch.cat([run, end])]) for run in runs], 1)
        pairs = pairs.unique(dim=1)
        before, behind = (self._only(pairs[i], pairs[1 - i]) for i in (1, 0))
        # A link counts if both ends know no other.
        linked = (behind >= 0) & (before[behind.clamp(min=0)] == torch.arange(self.count))
        behind = torch.where(linked, behind, -1)
        before = torch.full((self.count,), -1).scatter(0, behind[linked], torch.arange(self.count)[linked])
        return before, behind

    def _only(self, of: Tensor, neighbours: Tensor) -> Tensor:
        real = of >= 0
        of, neighbours = of[real], neighbours[real]
        count = torch.bincount(of, minlength=self.count)
        return torch.full((self.count,), -1).scatter(0, of, neighbours).where(count == 1, torch.tensor(-1))
