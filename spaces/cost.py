"""The cost model: what every arch of a space costs, from the YAML alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError

from .cost_block import Block
from .cost_rows import Group, Labels, Rows, RowTables, Table, maximal, signed_terms
from .space import Arch, Space

_COUNTED = ("params", "flops", "activations")
# Up to so many combinations of a row's own decisions are all built; beyond, it is cut into terms. To measure a latency
# takes longer than to count.
_DENSE, _DENSE_LATENCY = 64, 9


class BlockLatency(Protocol):
    """What tells the latency of a block, such as `experiments.costs.latency_table.LatencyTable`."""

    def parts(self, block: Block) -> Mapping[str, float]:
        """Milliseconds for one image by submodule, each without those within it; their sum is the block's latency."""

    @property
    def offset(self) -> float:
        """Milliseconds of a network beside its blocks."""


class CostModel:
    """Costs of the plain network that `space.freeze(arch)` means, over all of its rows, for one image.

    They are sums of tables over few decisions each, and equal what is counted on the built network: the blocks that an
    arch can contain are built on the meta device and counted. A row with more than 64 combinations of decisions is cut
    into terms that do not interact; the cut is found by looking at its submodules and checked on random archs (see
    `spaces.cost_rows`).

    Parameters
    ----------
    imgsz
        Side of the images; where the YAML has a `resolution`, that is meant.
    latency
        Gives the latency of blocks. That of a network is their sum (FBNet, Wu et al. 2019, arXiv:1812.03443, section
        3.2) and `offset`. Of a row with more than 9 combinations of decisions not all blocks are measured: a submodule
        is taken to last as long in any of them that it has the same operations in.
    classifier
        Whether `models.Classifier` is meant, with a linear layer behind the rows. Its latency is not counted.

    Attributes
    ----------
    labels, values
        The space's decisions in its order: labels, and label to values.
    names
        ``params``, ``flops`` (2 x MACs, as `models.count_flops` counts them), ``activations`` (elements that
        convolutions and linear layers put out; Radosavovic et al. 2020, arXiv:2003.13678, section 3), and with
        `latency` also ``latency`` (ms).

    Raises
    ------
    InputError
        If a network cannot be built, or takes no images of that size; names the row.
    """

    def __init__(self, space: Space, imgsz: int, latency: BlockLatency | None = None, classifier: bool = False) -> None:
        self.space, self.imgsz = space, imgsz
        self.labels = tuple(space.decisions)
        self.values: dict[str, tuple[Any, ...]] = {label: d.values for label, d in space.decisions.items()}
        self.names: tuple[str, ...] = (*_COUNTED, "latency") if latency else _COUNTED
        self._index = {label: {v: i for i, v in enumerate(values)} for label, values in self.values.items()}
        rows = Rows(space, imgsz)
        counted: list[Table] = []
        measured: list[Table] = []
        for row in space.config.rows:
            tables = RowTables(rows, row)
            counted += _count(rows, tables)
            if latency:
                measured += _measure(tables, latency)
        if latency:
            measured.append(Table((), np.array([latency.offset], np.float64)))
        if classifier:
            counted.append(_linear(rows))
        # Counts are integers and latencies are not, so they stand in tables apart.
        self._kinds = [_fold(counted, self.labels)] + ([_fold(measured, self.labels)] if latency else [])
        self._tensors: dict[torch.device, list[list[Tensor]]] = {}

    def of(self, arch: Mapping[str, Any]) -> dict[str, int | float]:
        """Costs of one arch; labels may be absent where `Space.complete` knows what that means."""
        return {name: values.item() for name, values in self.batch(self.indices([arch])).items()}

    def indices(self, archs: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """(B, L), the index of each arch's value in `values` by label."""
        found = [self._indices(arch) for arch in archs]
        return np.array(found, np.int64).reshape(len(found), len(self.labels))

    def _indices(self, arch: Mapping[str, Any]) -> list[int]:
        try:
            if len(arch) == len(self.labels):
                return [self._index[label][arch[label]] for label in self.labels]
        except (KeyError, TypeError):
            pass  # what is wrong with it, or another way to write it, `complete` knows
        full = self.space.complete(arch)
        return [self._index[label][full[label]] for label in self.labels]

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Costs of many archs.

        Parameters
        ----------
        indices
            (B, L), as `indices` gives them.

        Returns
        -------
        Name to (B,): int64, the latency float64.
        """
        columns = dict(zip(self.labels, np.ascontiguousarray(indices.T), strict=True))
        costs: list[np.ndarray] = []
        for tables in self._kinds:
            total = np.zeros((len(indices), len(tables[0].values)), tables[0].values.dtype)
            for labels, values in tables:
                which = np.zeros(len(indices), np.int64)
                for label in labels:
                    which = which * len(self.values[label]) + columns[label]
                total += values.reshape(len(values), -1).T[which]
            costs += list(total.T)
        return dict(zip(self.names, costs, strict=True))

    def expected(self, probs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Expected costs under independent decisions: exact, and differentiable by the probabilities.

        Parameters
        ----------
        probs
            Label to (n,), the probabilities of the decision's values. Labels may be absent as in an arch.

        Returns
        -------
        Name to a scalar, float64.
        """
        given = self._given(probs)
        device = next((p.device for p in given.values()), torch.device("cpu"))
        if device not in self._tensors:
            self._tensors[device] = [
                [torch.as_tensor(t.values, dtype=torch.float64, device=device) for t in tables]
                for tables in self._kinds
            ]
        costs: list[Tensor] = []
        for tables, tensors in zip(self._kinds, self._tensors[device], strict=True):
            terms = []
            for (labels, _), term in zip(tables, tensors, strict=True):
                for label in reversed(labels):
                    term = term @ given[label]
                terms.append(term)
            costs += torch.stack(terms).sum(0).unbind()
        return dict(zip(self.names, costs, strict=True))

    def _given(self, probs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sizes = {label: len(values) for label, values in self.values.items()}
        for label, p in probs.items():
            if sizes.get(label) != p.numel() or p.ndim != 1:
                raise InputError(
                    f"{self.space.config.file}: probabilities of '{label}' are {tuple(p.shape)}, but the space has "
                    + (f"{sizes[label]} values" if label in sizes else "no such label")
                )
        absent = {k: d for k, d in self.space.decisions.items() if k not in probs}
        if missing := [k for k, d in absent.items() if not d.has_default]:
            raise InputError(f"{self.space.config.file}: probabilities of '{missing[0]}' are missing")
        given = {k: p.double() for k, p in probs.items()}
        device = next((p.device for p in given.values()), None)
        for label, decision in absent.items():
            values = [float(v == decision.default) for v in decision.values]
            given[label] = torch.tensor(values, dtype=torch.float64, device=device)
        return given

    def least(self, weights: Mapping[str, float]) -> Arch:
        """An arch of which the weighted sum of costs is least of all, exactly; what makes no difference is upstream's.

        By eliminating one decision after another (Dechter 1999, doi:10.1016/S0004-3702(99)00059-4).

        Parameters
        ----------
        weights
            Name to weight; others are left aside.
        """
        left: list[Table] = []
        for tables, names in zip(self._kinds, (_COUNTED, ("latency",)), strict=False):
            w = np.array([weights.get(name, 0.0) for name in names])
            left += [Table(t.labels, np.tensordot(w, t.values, 1)[None]) for t in tables if w.any()]
        eliminated: list[tuple[str, Labels, np.ndarray]] = []
        while open_labels := {label for t in left for label in t.labels}:
            label = min(open_labels, key=lambda k: (math.prod(self._sizes(self._beside(left, k))), k))
            labels = self._beside(left, label)
            (table,) = _fold(
                [t for t in left if label in t.labels] + [Table(labels, np.zeros((1, *self._sizes(labels))))],
                self.labels,
            )
            axis = 1 + labels.index(label)
            others = tuple(k for k in labels if k != label)
            eliminated.append((label, others, table.values.argmin(axis)[0]))
            left = [t for t in left if label not in t.labels] + [Table(others, table.values.min(axis))]
        best: dict[str, int] = {}
        for label, others, argmin in reversed(eliminated):
            best[label] = int(argmin[tuple(best[k] for k in others)])
        chosen = {label: self.values[label][index] for label, index in best.items()}
        return {**self.space.upstream(), **chosen}

    def _beside(self, tables: Sequence[Table], label: str) -> Labels:
        """Labels of the tables that `label` is in."""
        found = {k for t in tables if label in t.labels for k in t.labels}
        return tuple(k for k in self.labels if k in found)

    def _sizes(self, labels: Labels) -> list[int]:
        return [len(self.values[k]) for k in labels]


def _count(rows: Rows, tables: RowTables) -> list[Table]:
    """Terms of a row's counted costs; what it gives to other rows goes into `rows`."""
    found, outputs = [], []
    depends = tables.dependencies(Block.parts, _DENSE, exact=True)
    for labels, factor in signed_terms(depends.values()).items():
        table = tables.tabulate(labels, lambda b: (*tables.cost(b)[:3], tables.output(b)), np.int64)
        found.append(Table(table.labels, table.values[:3] * factor).squeeze())
        outputs.append(Table(table.labels, table.values[3:]).squeeze())
    # All decisions that change the output stand in one of the groups.
    rows.outputs[tables.row.index] = max(outputs, key=lambda t: len(t.labels))
    return found


def _linear(rows: Rows) -> Table:
    """Of the linear layer of `models.Classifier`."""
    config = rows.space.config
    labels, ids = rows.outputs[config.rows[-1].index]
    widths, nc = np.array([fed.channels for fed in rows.fed], np.int64)[ids], config.nc
    assert nc is not None
    return Table(labels, np.concatenate(((widths + 1) * nc, 2 * widths * nc, np.full_like(widths, nc))))


def _measure(tables: RowTables, latency: BlockLatency) -> list[Table]:
    """Terms of a row's latency: every submodule's is in the first group that has all that it depends on."""
    depends = tables.dependencies(Block.operations, _DENSE_LATENCY, exact=False)
    groups = maximal(depends.values())

    def home(name: str) -> Group:
        return next(g for g in groups if depends.get(name, frozenset()) <= g)

    def within(group: Group) -> Callable[[Block], list[float]]:
        return lambda block: [sum(ms for name, ms in latency.parts(block).items() if home(name) == group)]

    return [tables.tabulate(group, within(group), np.float64) for group in groups]


def _fold(tables: Iterable[Table], order: Labels) -> list[Table]:
    """The same sum in fewer tables: each is added to one that has all of its labels, if there is one."""
    folded: dict[Labels, np.ndarray] = {}
    for labels, values in sorted(tables, key=lambda t: -len(t.labels)):
        home = next((known for known in folded if set(labels) <= set(known)), None)
        if home is None:
            folded[labels] = values.copy()
        else:
            sizes = iter(values.shape[1:])
            folded[home] += values.reshape(len(values), *(next(sizes) if k in labels else 1 for k in home))
    return [Table(labels, values) for labels, values in folded.items()]
