"""Which channels of a plain network are the same, and the segments that they come in.

Channels that are added up, or that a depth-wise convolution, a batch norm or a gate treats one by one, are the same
channel: what takes one away takes all of them away. `elastic_trace` says which; here it becomes segments, runs of
channels that are next to one another wherever they occur, so that two networks that differ in widths alone have the
same segments, of other lengths.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.network import Network

from .elastic_trace import layers, trace_network

DENSE = (nn.modules.conv._ConvNd, nn.Linear)
# Each channel by itself, whatever the others are.
_EACH = (nn.modules.batchnorm._NormBase, nn.PReLU)


def united(pairs: Tensor, count: int) -> Tensor:
    """(count,): number of a channel to the smallest number of those that are the same, from pairs (2, n) that are."""
    a, b = pairs
    root = torch.arange(count)
    while True:
        least = torch.minimum(root[a], root[b])
        new = root.scatter_reduce(0, a, least, "amin").scatter_reduce(0, b, least, "amin")
        new = new[new]
        if torch.equal(new, root):
            return root
        root = new


def is_dense(layer: nn.Module) -> bool:
    """Whether a layer's every output reads every input."""
    return isinstance(layer, DENSE) and getattr(layer, "groups", 1) == 1


class Segments:
    """The channels of a network without weights, in segments.

    Parameters
    ----------
    network
        On the meta device, so that parameters carry no numbers.
    size
        Pixels a side of the images that it is traced with.

    Attributes
    ----------
    layers
        Those with tensors of their own, by name.
    taken, given
        Layer to the segments of what it takes and gives, in order; a segment is called by its first channel.
    lengths
        Segment to its number of channels.
    fixed
        Segments that have to stay as they are: the image's, those that no dense layer reads, such as the logits, and
        what a grouped convolution, an attention or a normalisation over channels mixes.
    unseen
        Layers whose channels are not followed.
    """

    def __init__(self, network: Network, size: int) -> None:
        self.layers = layers(network)
        _, channels = trace_network(network, size)
        sequences = [*channels.taken.values(), *channels.given.values(), channels.inputs]
        count = max(int(t.max()) for t in sequences if t.numel()) + 1
        root = united(channels.joined[:, (channels.joined > 0).all(0)], count)
        taken, given = ({name: root[t] for name, t in found.items()} for found in (channels.taken, channels.given))
        inputs = root[channels.inputs]
        cuts = _cuts([*taken.values(), *given.values(), inputs])
        self.lengths: dict[int, int] = {}
        self.taken = {name: self._split(ids, cuts) for name, ids in taken.items()}
        self.given = {name: self._split(ids, cuts) for name, ids in given.items()}
        self.fixed = set(self._split(inputs, cuts)) | self._mixed()
        inner = {id(p) for m in network.modules() if isinstance(m, nn.MultiheadAttention) for p in m.children()}
        self.unseen = {name for name, m in self.layers.items() if name not in self.given and id(m) not in inner}

    def _split(self, ids: Tensor, cuts: Tensor) -> tuple[int, ...]:
        starts = _begins(ids)
        starts |= torch.isin(ids, cuts)
        at = starts.nonzero()[:, 0].tolist()
        for a, b in zip(at, [*at[1:], len(ids)], strict=True):
            self.lengths[int(ids[a])] = b - a
        return tuple(int(ids[a]) for a in at)

    def _mixed(self) -> set[int]:
        found: set[int] = set()
        read: set[int] = set()
        for name, given in self.given.items():
            layer, taken = self.layers[name], self.taken[name]
            if is_dense(layer):
                read.update(taken)
            elif not isinstance(layer, _EACH) and not (isinstance(layer, DENSE) and given == taken):
                found.update((*given, *taken))
        return found | (set(self.lengths) - read)

    def pair(self, other: Segments) -> dict[int, int]:
        """Segment to its length in another network of the same layers.

        Raises
        ------
        InputError
            Names the layer whose channels come in other segments there, or in longer ones.
        """
        found: dict[int, int] = {}
        for ours, theirs in ((self.taken, other.taken), (self.given, other.given)):
            for name, segments in ours.items():
                if len(segments) != len(theirs.get(name, ())):
                    raise InputError(f"the channels of {name} come from elsewhere at other widths")
                for a, b in zip(segments, theirs[name], strict=True):
                    length = other.lengths[b]
                    if found.setdefault(a, length) != length or length > self.lengths[a]:
                        raise InputError(f"the channels of {name} do not fit those of the layers beside it")
        return found


def indices(segments: Iterable[int], lengths: dict[int, int], kept: dict[int, Tensor]) -> Tensor:
    """Places, among the channels of `segments`, of those that are kept of each."""
    parts, start = [], 0
    for segment in segments:
        parts.append(kept[segment] + start)
        start += lengths[segment]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)


def _begins(ids: Tensor) -> Tensor:
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[1:] = ids[1:] != ids[:-1] + 1
    return begins


def _cuts(sequences: list[Tensor]) -> Tensor:
    """Channels at which a segment begins: where a run does anywhere, or where one ends and the next would go on."""
    found = []
    for ids in sequences:
        begins = _begins(ids)
        ends = torch.roll(begins, -1)
        found += [ids[begins], ids[ends] + 1]
    return torch.cat(found).unique()
