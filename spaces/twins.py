"""Archs that are one network: identities that change places, decisions that nothing comes of at an arch.

A network is what is computed, one value after another (value numbering: Alpern, Wegman and Zadeck 1988,
doi:10.1145/73560.73561): a row applies its parts to the values of the rows that it reads. A part is one of the blocks
that a row is in sequence, known by its classes, their attributes and the shapes of their weights; an identity is none.
Archs with equal values at the rows that nobody reads are twins.
"""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import default_activation
from models.catalog import lookup
from models.errors import InputError
from models.network import build_row

from .rows import SpaceRow
from .space import Arch, Space

Parts = tuple[int, ...]
Setting = tuple[Any, ...]

# Settings of a row that are all looked at. Of more, those around the first and the last one, and around so many that
# leave blocks out.
_ALL, _LEFT_OUT = 12, 2
# Settings of a row that are gone through for one arch; twins beyond are not found.
_MOST = 4096
_REMEMBERED = 1_000_000
_OF_MODULES = frozenset(vars(nn.Module())) | {"training"}


class Twins:
    """Arch to the one that stands for its network: of all twins the first, where upstream's values come first.

    Which decisions have a say in twins is found by looking at some settings of every row, so that a space without twins
    costs nothing; twins that only other settings show are not found. What is found is exact.

    Attributes
    ----------
    free
        Labels whose values may differ between twins.
    """

    def __init__(self, space: Space) -> None:
        self.rows, self._config = space.rows, space.config
        upstream = space.upstream()
        self._ranked = {
            label: tuple(sorted(d.values, key=lambda v, label=label: v != upstream[label]))  # type: ignore[misc]
            for label, d in space.decisions.items()
        }
        self._labels = tuple(space.decisions)
        self._read = [(r.labels, r.row.sources, isinstance(r.row.source, tuple)) for r in self.rows]
        self._readers: dict[int, list[int]] = {}
        for row in self._config.rows:
            for source in row.sources:
                self._readers.setdefault(source, []).append(row.index)
        self._ids: dict[Hashable, int] = {}
        self._known: dict[Any, tuple[Parts, int] | InputError] = {}
        self._found: dict[Setting, Setting] = {}
        self._image = self._id("image")
        self.free: frozenset[str] = frozenset()
        self.free = self._find_free()

        rows = range(len(self.rows))
        # By row: values of rows before it, and labels decided before it, that it or a later one reads.
        self._live = [[j for j in range(i) if any(k >= i for k in self._readers.get(j, ()))] for i in rows]
        self._shared = [
            [
                label
                for label in self._labels
                if label in self.free
                and any(label in self.rows[j].labels for j in range(i))
                and any(label in self.rows[j].labels for j in range(i, len(self.rows)))
            ]
            for i in rows
        ]

    def __call__(self, arch: Arch) -> Arch:
        """`arch` has every label, in the space's order."""
        if not self.free:
            return arch
        key = tuple(arch.values())
        if (found := self._found.get(key)) is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[key] = self._first(arch)
        return dict(zip(self._labels, found, strict=True))

    def _first(self, arch: Arch) -> Setting:
        """Of the arch's twins the first."""
        within: set[int] = set()
        try:
            target, _ = self._values(arch, within)
        except InputError:  # it is no network
            return tuple(arch.values())
        dead: set[Any] = set()

        def go_on(i: int, values: list[int], channels: list[int], chosen: Arch) -> Arch | None:
            if i == len(self.rows):
                return chosen
            state = i, *(values[j] for j in self._live[i]), *(chosen[label] for label in self._shared[i])
            if state in dead:
                return None
            for settings in self._settings(i, arch, chosen):
                now = {**chosen, **settings}
                try:
                    value, c_out = self._value(i, now, values, channels, None)
                except InputError:
                    continue
                if value in within and (i in self._readers or value == target[i]):
                    found = go_on(i + 1, [*values, value], [*channels, c_out], now)
                    if found is not None:
                        return found
            dead.add(state)
            return None

        first = go_on(0, [], [], {label: value for label, value in arch.items() if label not in self.free})
        return tuple((first or arch)[label] for label in self._labels)

    def _settings(self, i: int, arch: Arch, chosen: Arch) -> Iterator[Arch]:
        """Values of the row's decisions that are still open, the first of all first."""
        todo = [label for label in self.rows[i].labels if label not in chosen]
        if math.prod(len(self._ranked[label]) for label in todo) > _MOST:
            yield {label: arch[label] for label in todo}
            return
        for values in itertools.product(*(self._ranked[label] for label in todo)):
            yield dict(zip(todo, values, strict=True))

    def _values(self, arch: Arch, within: set[int] | None = None) -> tuple[list[int], list[int]]:
        """What every row gives, and its channels; `within` gets all values that are met."""
        values: list[int] = []
        channels: list[int] = []
        for i in range(len(self.rows)):
            value, c_out = self._value(i, arch, values, channels, within)
            values.append(value)
            channels.append(c_out)
        return values, channels

    def _value(
        self, i: int, arch: Arch, values: Sequence[int], channels: Sequence[int], within: set[int] | None
    ) -> tuple[int, int]:
        labels, sources, several = self._read[i]
        setting = tuple([arch[label] for label in labels])
        c_in = tuple([self._config.ch if j < 0 else channels[j] for j in sources])
        parts: Parts
        if self.free.isdisjoint(labels):  # known by its setting alone, and not built
            parts, c_out = (self._id((i, setting)),), self._c_out(i, setting, c_in)
        else:
            parts, c_out = self._parts(i, setting, c_in)
        given = [self._image if j < 0 else values[j] for j in sources]
        value = self._id((None, tuple(given))) if several else given[0]
        for part in parts:
            if within is not None:
                within.add(value)
            value = self._id((part, value))
        if within is not None:
            within.add(value)
        return value, c_out

    def _c_in(self, i: int, channels: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._config.ch if j < 0 else channels[j] for j in self.rows[i].row.sources)

    def _id(self, key: Hashable) -> int:
        return self._ids.setdefault(key, len(self._ids))

    def _c_out(self, i: int, setting: Setting, c_in: tuple[int, ...]) -> int:
        return self._remembered(("c_out", i, setting, c_in), lambda: ((), self._channels(i, setting, c_in)))[1]

    def _channels(self, i: int, setting: Setting, c_in: tuple[int, ...]) -> int:
        row = self._row(self.rows[i], setting)
        return lookup(row).channels(self._config, row, c_in)[1]

    def _parts(self, i: int, setting: Setting, c_in: tuple[int, ...]) -> tuple[Parts, int]:
        """Of a row at the values of its labels: its parts, and channels of its output."""

        known = self._known.get((i, setting, c_in))
        if isinstance(known, tuple):
            return known

        def build() -> tuple[Parts, int]:
            row = self._row(self.rows[i], setting)
            with default_activation(self._config.activation), torch.random.fork_rng(devices=[]):
                try:
                    with torch.device("meta"):
                        block, c_out = build_row(self._config, row, c_in)
                    plain = not any(True for _ in _constants(block))
                except InputError:
                    plain = False  # its constructor may compute with tensors
                if not plain:
                    block, c_out = build_row(self._config, row, c_in)
            several = isinstance(row.source, tuple)
            parts = (fingerprint(block),) if several else tuple(map(fingerprint, _in_sequence(block, c_in[0])))
            return tuple(self._id(part) for part in parts), c_out

        return self._remembered((i, setting, c_in), build)

    def _remembered(self, key: Any, make: Callable[[], tuple[Parts, int]]) -> tuple[Parts, int]:
        if key not in self._known:
            try:
                self._known[key] = make()
            except InputError as e:
                self._known[key] = e
        found = self._known[key]
        if isinstance(found, InputError):
            raise found
        return found

    @staticmethod
    def _row(row: SpaceRow, setting: Setting) -> Any:
        return row.at(dict(zip(row.labels, setting, strict=True)))

    def _find_free(self) -> frozenset[str]:
        """Labels of decisions that have no say in some setting, and of those that move blocks between rows."""
        flows: list[tuple[Arch, list[int]]] = []
        for place in (0, -1):
            arch = {label: values[place] for label, values in self._ranked.items()}
            try:
                channels: list[int] = []
                for i, row in enumerate(self.rows):
                    setting = tuple(arch[label] for label in row.labels)
                    channels.append(self._c_out(i, setting, self._c_in(i, channels)))
                flows.append((arch, channels))
            except InputError:
                continue
        idle: set[tuple[int, str]] = set()
        moving: set[tuple[int, str]] = set()
        seen: dict[int, list[Parts]] = {}
        for i, row in enumerate(self.rows):
            seen[i] = []
            for arch, channels in flows:
                around = tuple(arch[label] for label in row.labels)
                for label, here, there in self._changes(i, self._c_in(i, channels), around):
                    seen[i] += [here, there]
                    if here == there:
                        idle.add((i, label))
                    elif len(here) != len(there):
                        moving.add((i, label))
        # Where two decisions of a row leave blocks out, one may do what the other does.
        several = {i for i, label in moving if any(k == i and other != label for k, other in moving)}
        free = idle | {(i, label) for i, label in moving if i in several or self._passes_on(i, seen)}
        pairs = [(i, label) for i, row in enumerate(self.rows) for label in row.labels]
        return frozenset(label for _, label in free if all(p in free for p in pairs if p[1] == label))

    def _changes(self, i: int, c_in: tuple[int, ...], first: Setting) -> Iterator[tuple[str, Parts, Parts]]:
        """(decision, parts before, parts after) of changes of one decision of a row, around a setting or all."""
        labels = self.rows[i].labels
        choices = [self._ranked[label] for label in labels]
        few = math.prod(map(len, choices)) <= _ALL
        around: list[Setting] = list(itertools.product(*choices)) if few else [first]
        shorter = 0
        for setting in around:
            try:
                here, _ = self._parts(i, setting, c_in)
            except InputError:
                continue
            for place, label in enumerate(labels):
                for value in choices[place]:
                    other = (*setting[:place], value, *setting[place + 1 :])
                    if other == setting:
                        continue
                    try:
                        there, _ = self._parts(i, other, c_in)
                    except InputError:
                        continue
                    yield label, here, there
                    if len(there) < len(here) and shorter < _LEFT_OUT and other not in around:
                        around.append(other)
                        shorter += 1

    def _passes_on(self, i: int, seen: Mapping[int, Sequence[Parts]]) -> bool:
        """Whether a block that a row has may be the first of a row behind it, or the other way around."""
        has = {part for parts in seen[i] for part in parts}
        if any(has & {parts[0] for parts in seen[k] if parts} for k in self._beyond(i, seen, forward=True)):
            return True
        first = {parts[0] for parts in seen[i] if parts}
        return any(first & {p for parts in seen[k] for p in parts} for k in self._beyond(i, seen, forward=False))

    def _beyond(self, i: int, seen: Mapping[int, Sequence[Parts]], forward: bool) -> Iterator[int]:
        """Rows next to a row, with no other reader between, and those behind rows that may be nothing."""
        while True:
            row = self._config.rows[i]
            if forward:
                following = self._readers.get(i, [])
                if len(following) != 1 or isinstance(self._config.rows[following[0]].source, tuple):
                    return
                i = following[0]
            else:
                if isinstance(row.source, tuple) or row.sources[0] < 0 or len(self._readers[row.sources[0]]) != 1:
                    return
                i = row.sources[0]
            yield i
            if () not in seen[i]:
                return


@functools.cache
def _twins() -> weakref.WeakKeyDictionary[Space, Twins]:
    return weakref.WeakKeyDictionary()


def twins_of(space: Space) -> Twins:
    """A space's; made once."""
    known = _twins()
    if space not in known:
        known[space] = Twins(space)
    return known[space]


def _in_sequence(module: nn.Module, c_in: int) -> list[nn.Module]:
    """The modules that a module is one after the other, without identities."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return [part for child in module for part in _in_sequence(child, c_in)]
    return [] if _is_identity(module, c_in) else [module]


def _is_identity(module: nn.Module, c_in: int) -> bool:
    """Whether it gives back what it is given, as it was."""
    if any(True for _ in itertools.chain(module.parameters(), module.buffers())):
        return False
    x = torch.empty(2, c_in, 8, 8, device="meta")
    try:
        return module(x) is x and x._version == 0
    except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
        return False


def _constants(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers but for the statistics of batch norms, which begin alike."""
    for name, m in module.named_modules():
        if not isinstance(m, nn.modules.batchnorm._BatchNorm):
            yield from ((f"{name}.{key}", buffer) for key, buffer in m._buffers.items() if buffer is not None)


def fingerprint(module: nn.Module) -> Hashable:
    """Equal for modules that compute the same with equal weights."""
    attributes = tuple((k, _described(v)) for k, v in sorted(vars(module).items()) if k not in _OF_MODULES)
    weights = tuple((k, p is not None and (p.shape, p.dtype, p.requires_grad)) for k, p in module._parameters.items())
    constants: Iterable[Any] = ()
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        constants = ((k, b is not None and _described(b)) for k, b in module._buffers.items())
    children = tuple((k, m is not None and fingerprint(m)) for k, m in module._modules.items())
    return type(module), attributes, weights, tuple(constants), children


def _described(value: Any) -> Hashable:
    """A value as something that can be compared; what cannot be is like nothing else."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, None if value.is_meta else value.detach().cpu().numpy().tobytes()
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_described, value))
    if isinstance(value, Mapping):
        return type(value), tuple((k, _described(v)) for k, v in value.items())
    try:
        hash(value)
    except TypeError:
        return _Alone(value)
    return type(value), value


class _Alone:
    """Keeps a value, and equals only itself."""

    def __init__(self, value: Any) -> None:
        self.value = value
