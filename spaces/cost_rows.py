"""The rows of a space as tables: what every row costs, by the few decisions that matter to it.

What a row is fed with follows from the rows before it, as a table over the decisions that it depends on, so that only
what can occur is ever built.

A row of many decisions is not tabled over all of their combinations. Its submodules are looked at one by one: on which
decisions does each of them depend? Decisions that meet in no submodule do not interact, and the cost of the row is a
sum of terms over those that do (`signed_terms`).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from models.catalog import is_head
from models.errors import InputError
from models.grammar import Row

from .cost_block import Block, Cost, Remembered, Shapes
from .space import Arch, Space

Labels = tuple[str, ...]
Group = frozenset[str]
# Label to index of a value.
Point = Mapping[str, int]

# Combinations in one table, and blocks built for it.
_COMBINATIONS, _BLOCKS = 5_000_000, 50_000
# Random archs around which a cut is found, and on which it is checked.
_AROUND, _CHECKED = 1, 16


class Table(NamedTuple):
    """Values over combinations of decisions: `values` is (m, n1, n2, …), an axis a label behind the first."""

    labels: Labels
    values: np.ndarray

    def squeeze(self) -> Table:
        """Without the decisions that make no difference."""
        labels, values = list(self.labels), self.values
        for label in self.labels:
            axis = 1 + labels.index(label)
            first = values.take([0], axis)
            if (values == first).all():
                values = first.squeeze(axis)
                labels.remove(label)
        return Table(tuple(labels), values)


class Fed(NamedTuple):
    """What a row gives to others: channels by the rows' rules, and shapes; and the side of the image they come from."""

    channels: int
    shapes: Shapes
    imgsz: int


class Rows:
    """What the rows of a space have in common.

    Attributes
    ----------
    sizes
        Label to number of values, in the space's order.
    outputs
        Row to the table (1, …) of what it gives to others, as indices of `fed`; -1 is the image. `CostModel` fills it.
    """

    def __init__(self, space: Space, imgsz: int) -> None:
        self.space = space
        self.sizes = {label: len(d.values) for label, d in space.decisions.items()}
        self.upstream = space.upstream()
        self.fed: list[Fed] = []
        self.costs: dict[str, Cost] = {}
        self.remembered: Remembered = {}
        self._ids: dict[Fed, int] = {}
        self.outputs = {-1: self._image(imgsz)}

    def ordered(self, labels: Iterable[str]) -> Labels:
        """Each label once, in the space's order."""
        wanted = set(labels)
        return tuple(label for label in self.sizes if label in wanted)

    def id_of(self, fed: Fed) -> int:
        """Index in `fed`."""
        if fed not in self._ids:
            self._ids[fed] = len(self.fed)
            self.fed.append(fed)
        return self._ids[fed]

    def _image(self, imgsz: int) -> Table:
        decision = self.space.resolution
        labels = () if decision is None else (decision.label,)
        archs: list[Arch] = [{}] if decision is None else [{decision.label: v} for v in decision.values]
        ids = []
        for arch in archs:
            size = self.space.freeze_resolution(arch) or imgsz
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{self.space.config.file}: resolution must be a positive integer, got {size!r}")
            ch = self.space.config.ch
            ids.append(self.id_of(Fed(ch, torch.Size((1, ch, size, size)), size)))
        return Table(labels, np.array(ids).reshape([1, *(self.sizes[label] for label in labels)]))


class RowTables:
    """One row: its blocks by the decisions that it depends on, and how its cost is cut into terms.

    Attributes
    ----------
    own
        Labels of the row's own decisions.
    given
        Labels that what it is fed with depends on.
    """

    def __init__(self, rows: Rows, row: Row) -> None:
        self.rows, self.row = rows, row
        self.own = rows.ordered(rows.space.rows[row.index].labels)
        self.sources = [rows.outputs[j] for j in row.sources]
        self.given = rows.ordered(label for table in self.sources for label in table.labels)
        self._upstream = {k: rows.space.decisions[k].values.index(rows.upstream[k]) for k in self.own}
        self._frozen: dict[tuple[int, ...], Row] = {}
        self._modules: dict[str, Any] = {}

    def block(self, own: tuple[int, ...], fed: Sequence[int]) -> Block:
        """The block at indices of the own decisions' values, fed with `fed` (indices of `Rows.fed`)."""
        space = self.rows.space
        if own not in self._frozen:
            arch = {k: space.decisions[k].values[i] for k, i in zip(self.own, own, strict=True)}
            self._frozen[own] = space.row_at(self.row, arch)
        channels, shapes, (imgsz, *_) = zip(*(self.rows.fed[i] for i in fed), strict=True)
        if is_head(self._frozen[own]) and (odd := [s for s in shapes if imgsz % s[-1]]):
            raise self.row.error(
                f"images of {imgsz} pixels are no multiple of the stride: a level has {odd[0][-1]} cells"
            )
        return Block(space.config, self._frozen[own], channels, shapes, imgsz, self.rows.remembered)

    def at(self, point: Point) -> Block:
        """The block at `point`, which has the labels of `own` and `given`."""
        fed = [int(t.values[(0, *(point[k] for k in t.labels))]) for t in self.sources]
        return self.block(tuple(point[k] for k in self.own), fed)

    def cost(self, block: Block) -> Cost:
        """The block's cost; equal blocks are counted once."""
        costs, key = self.rows.costs, block.key
        if key not in costs:
            if block.built_from not in self._modules:
                self._modules[block.built_from] = block.build_meta()
            costs[key] = block.cost(self._modules[block.built_from])
        return costs[key]

    def output(self, block: Block) -> int:
        """What the block gives to other rows, as an index of `Rows.fed`."""
        return self.rows.id_of(Fed(block.channels, self.cost(block).output, block.imgsz))

    def tabulate(self, varied: Iterable[str], measure: Callable[[Block], Sequence[float]], dtype: Any) -> Table:
        """`measure` over the values of `varied` and all that the row is fed with; else it is as upstream builds it."""
        labels = self.rows.ordered((*varied, *self.given))
        shape = [self.rows.sizes[label] for label in labels]
        size = math.prod(shape)
        if size > _COMBINATIONS:
            raise self._too_many(size, labels)
        grid = dict(zip(labels, np.indices(shape).reshape(len(labels), size), strict=True))
        columns = [grid.get(k, np.full(size, self._upstream[k])) for k in self.own]
        columns += [np.broadcast_to(t.values[(0, *(grid[k] for k in t.labels))], size) for t in self.sources]
        different, which = _distinct(columns)
        if len(different) > _BLOCKS:
            raise self._too_many(len(different), labels)
        n = len(self.own)
        measured = np.array([measure(self.block(c[:n], c[n:])) for c in different], dtype)
        return Table(labels, measured[which].T.reshape(-1, *shape))

    def _too_many(self, count: int, labels: Labels) -> InputError:
        return self.row.error(
            f"its cost depends on {count:,} combinations of {', '.join(labels)}: too many; fewer values are needed, "
            "or equal labels"
        )

    def dependencies(self, look: Callable[[Block], Mapping[str, Any]], dense: int, exact: bool) -> dict[str, Group]:
        """Which own decisions each submodule depends on; together they do not interact beyond those sets.

        Parameters
        ----------
        look
            Submodule to what shows its cost. One decision at a time is changed around the arch of all first values,
            the one of all last values, and a random one.
        dense
            Up to so many combinations, the row is one part that depends on all decisions.
        exact
            The counted costs are checked on random archs. Where they do not follow, decisions are changed there, too.
        """
        all_of_them = {"": frozenset(self.own)}
        if math.prod(self.rows.sizes[label] for label in self.own) <= dense:
            return all_of_them
        rng = random.Random(0)
        sizes = {k: self.rows.sizes[k] for k in self.rows.ordered((*self.own, *self.given))}

        def drawn(count: int) -> list[Point]:
            return [{k: rng.randrange(n) for k, n in sizes.items()} for _ in range(count)]

        points: Sequence[Point] = [dict.fromkeys(sizes, 0), {k: n - 1 for k, n in sizes.items()}, *drawn(_AROUND)]
        # What the row is fed with varies in every term, and with it decisions that it shares with the row.
        shared = frozenset(self.own) & frozenset(self.given)
        found: dict[str, Group] = {"": shared}
        while True:
            before = dict(found)
            for point in points:
                for name, label in self._changes(point, look):
                    found[name] = found.get(name, shared) | {label}
            wrong = [p for p in drawn(_CHECKED) if not self._holds(found, p)] if exact else []
            if not wrong:
                return found
            if found == before:
                return all_of_them
            points = wrong[:1]

    def _changes(self, point: Point, look: Callable[[Block], Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        """(submodule, own decision that changes it when it alone is changed at `point`)."""
        here = look(self.at(point))
        for label in self.own:
            for i in range(self.rows.sizes[label]):
                there = here if i == point[label] else look(self.at({**point, label: i}))
                yield from ((name, label) for name in here.keys() | there.keys() if here.get(name) != there.get(name))

    def _holds(self, depends: Mapping[str, Group], point: Point) -> bool:
        """Whether the counted cost and the output at `point` follow from terms over what depends on one another."""
        total, outputs = np.zeros(3, np.int64), set()
        for labels, factor in signed_terms(depends.values()).items():
            fixed = self._upstream.keys() - labels
            block = self.at({k: self._upstream[k] if k in fixed else i for k, i in point.items()})
            total += factor * np.array(self.cost(block)[:3])
            outputs.add(self.output(block))
        block = self.at(point)
        return bool((total == self.cost(block)[:3]).all()) and self.output(block) in outputs


def maximal(groups: Iterable[Group]) -> list[Group]:
    """The groups that are within no other, in an order of their own."""
    sets = set(groups)
    return sorted((g for g in sets if not any(g < other for other in sets)), key=sorted)


def signed_terms(groups: Iterable[Group]) -> dict[Group, int]:
    """How a function without interactions beyond `groups` is a sum of itself with all but a few decisions held fixed.

    Returns
    -------
    The decisions that vary in a term, to its factor: 1 for the maximal groups, and what inclusion and exclusion gives
    for their intersections (the anchored decomposition of Kuo et al. 2010, Math. Comp. 79, with equal terms collected).
    """
    sets = frontier = set(maximal(groups))
    while frontier := {a & b for a, b in itertools.product(frontier, sets)} - sets:
        sets = sets | frontier
    factors: dict[Group, int] = {}
    for labels in sorted(sets, key=lambda g: (-len(g), sorted(g))):
        factors[labels] = 1 - sum(f for other, f in factors.items() if labels < other)
    return {labels: f for labels, f in factors.items() if f}


def _distinct(columns: Sequence[np.ndarray]) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """The different lines of a table that is given by its columns, and for each line which of them it is."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        code = np.unique(code * (int(column.max()) + 1) + column, return_inverse=True)[1].reshape(-1)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    return [tuple(int(c[i]) for c in columns) for i in first], which.reshape(-1)
