"""The widths that the rows of a plain YAML can say: what pruning may narrow, and the YAML with other widths.

A knob is an argument of a row that some layers' widths follow from: output channels, the hidden widths of blocks (`e`,
`c3`, `c4`, …). Which layers it moves is seen by building the row with another value. Knobs that move the same channels
(`spaces.channel_groups`) are one unit and turned together; a unit is held where it moves channels that have to stay, or
that other layers make too. All else follows, as the hidden width of SPPF does from its input's.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from models.catalog import is_head, lookup
from models.classifier import Classifier
from models.errors import InputError
from models.grammar import SECTIONS, Config, Row, read_config
from models.network import Network, build_row
from models.registry import Entry
from models.yolov5_rows import MODULES
from spaces.channel_groups import Segments, is_dense
from spaces.elastic_plan import identities, skeleton
from spaces.elastic_trace import layers

from .match import MULTIPLES, written_out

# Arguments that hidden widths follow from, the coarse ones first. Some count only where a row has them: YOLOv5 does not
# know them.
_HIDDEN = ("c3", "c4", "hidden", "e", "m_e")
_ONLY_WRITTEN = ("hidden", "m_e")
# As the YAML's own grammar rounds widths where nothing else is said; upstream knows no other.
_MULTIPLE = 8


class Knob(NamedTuple):
    """An argument of a row; `place` is the index in it where it is a list."""

    row: int
    name: str
    place: int | None = None


class Block(NamedTuple):
    """A row's block without weights: its layers' widths, which identity shortcuts it has, channels of its output."""

    widths: Mapping[str, int]
    shortcuts: Mapping[str, bool]
    c_out: int

    def is_like(self, other: Block) -> bool:
        return self.widths.keys() == other.widths.keys() and self.shortcuts == other.shortcuts


class Lead(NamedTuple):
    """What tells a knob's value: a layer of its row, how wide it is, and the longest segment that the knob moves."""

    layer: str
    layer_width: int
    width: int


class Unit(NamedTuple):
    """Knobs that are turned together.

    Attributes
    ----------
    width
        Channels of the longest segment.
    segments
        That they move.
    """

    knobs: tuple[Knob, ...]
    width: int
    segments: tuple[int, ...]


class Widths:
    """A plain network's knobs.

    Parameters
    ----------
    config
        Of the network.
    size
        Pixels a side of images that leave some cells of its coarsest map.

    Attributes
    ----------
    config
        The same with every multiple at 1.
    segments
        Of the network's channels.
    units
        What can be narrowed.
    """

    def __init__(self, config: Config, size: int) -> None:
        self.is_classifier = config.is_classifier
        self.config = _written_out(config.require_plain())
        self._blocks: dict[Any, Block] = {}
        self._rows = list(self.config.rows)
        network = self.skeleton(self.config)
        self._size = size
        self.segments = Segments(network, self._size)
        self._channels = network.channels
        self._originals = [self._block(row, self._inputs(row, self._channels)) for row in self._rows]
        self._leads: dict[Knob, Lead] = {}
        # Rows that have to be as wide as their input, and what they make.
        self._followers: dict[int, Knob] = {}
        self._followed: set[int] = set()
        self._knobs: dict[int, list[Knob]] = {}
        moved = {knob: segs for row in self._rows for knob, segs in self._moved_in(row).items()}
        self.units = self._units(moved)

    def skeleton(self, config: Config) -> Network:
        """The network without weights; it does not know its strides."""
        import torch

        with torch.device("meta"), torch.random.fork_rng(devices=()):
            if self.is_classifier:
                return Classifier(config)
            network = Network()
            network.build(config)
            return network

    def lengths(self, config: Config) -> dict[int, int]:
        """Segment to its length in a network of other widths.

        Raises
        ------
        InputError
            Its channels do not come in the same segments.
        """
        return self.segments.pair(Segments(self.skeleton(config), self._size))

    def at(self, wanted: Mapping[Unit, int]) -> Config:
        """The YAML with units narrowed to so many channels.

        Where two widths would become equal, and make an identity shortcut that the network has not, one is wider.

        Raises
        ------
        InputError
            A row cannot be written so.
        """
        wanted = dict(wanted)
        while True:
            found = self._try(wanted)
            if isinstance(found, Config):
                return found
            self._widen(wanted, found)

    # Knobs

    def _moved_in(self, row: Row) -> dict[Knob, set[int]]:
        """The row's knobs to the segments that each moves and no finer one does."""
        inputs, block = self._inputs(row, self._channels), self._originals[row.index]
        layers_of: dict[Knob, set[str]] = {}
        for knob in self._named(row):
            moved, follows = self._probed(row, knob, inputs, block)
            if follows:
                self._followers[row.index] = knob
            if moved:
                layers_of[knob] = moved
        found: dict[Knob, set[int]] = {}
        finer: set[str] = set()
        for knob in reversed(layers_of):
            own, finer = layers_of[knob] - finer, finer | layers_of[knob]
            given = {name: self.segments.given.get(self._layer(row, name), ()) for name in block.widths if name in own}
            segments = {segment for of_layer in given.values() for segment in of_layer}
            if knob in self._followers.values():
                self._followed |= segments
                continue
            if not segments:
                continue
            width = max(self.segments.lengths[s] for s in segments)
            lead = next(n for n, of in given.items() if any(self.segments.lengths[s] == width for s in of))
            self._leads[knob] = Lead(lead, block.widths[lead], width)
            self._knobs.setdefault(row.index, []).insert(0, knob)
            found[knob] = segments
        return found

    def _named(self, row: Row) -> list[Knob]:
        """What may be a knob of a row, coarse before fine."""
        names = _positions(self.config, row, self._inputs(row, self._channels))
        if names is None or is_head(row):
            return []
        knobs = [Knob(row.index, names[0])] if row.args else []
        parameters = inspect.signature(lookup(row).cls).parameters
        for name in _HIDDEN:
            if name not in parameters or (name in _ONLY_WRITTEN and name not in row.kwargs):
                continue
            value = _value(row, names, name, lookup(row))
            several = len(value) if isinstance(value, (list, tuple)) else self._several(row, parameters[name])
            knobs += [Knob(row.index, name, i) for i in range(several)] if several else [Knob(row.index, name)]
        return knobs

    def _several(self, row: Row, parameter: inspect.Parameter) -> int:
        """How many values an argument may have that is written as one."""
        each = lookup(row).repeats and "Sequence" in str(parameter.annotation)
        return self.config.depth(row) if each else 0

    def _probed(self, row: Row, knob: Knob, inputs: Sequence[int], block: Block) -> tuple[set[str], bool]:
        """Layers of the row whose widths change with a knob; whether it has to be what the row's input is."""
        value = self._value(row, knob)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return set(), False
        smaller: list[Any] = [value - _MULTIPLE, value // 2, value - 1] if isinstance(value, int) else []
        tried = [v for v in smaller if v > 0] or [value * 0.75, value * 0.5]
        given = [inputs] if inputs.count(value) != 1 else [inputs, [0 if n == value else n for n in inputs]]
        for follows, several in enumerate(given):
            for other in tried:
                found = self._block_or_none(self._with(row, knob, other), [n or other for n in several])
                if found and found.widths.keys() == block.widths.keys() and found.widths != block.widths:
                    return {name for name, n in found.widths.items() if n != block.widths[name]}, bool(follows)
        return set(), False

    def _units(self, moved: Mapping[Knob, set[int]]) -> list[Unit]:
        segments = self.segments
        made = {s for of in moved.values() for s in of}
        held = set(segments.fixed)
        for name, given in segments.given.items():
            if is_dense(segments.layers[name]):
                governed = {s for knob, of in moved.items() if self._moves(knob, name) for s in of} | self._followed
                held |= (set(given) & made) - governed
        unseen = {int(name.split(".")[1]) for name in segments.unseen if not self._is_last(name)}
        together: list[tuple[set[Knob], set[int]]] = []
        for knob, of in moved.items():
            knobs, joined = {knob}, set(of)
            for other in [t for t in together if t[1] & joined]:
                together.remove(other)
                knobs, joined = knobs | other[0], joined | other[1]
            together.append((knobs, joined))
        units = []
        for knobs, joined in together:
            widths = {self._leads[knob].width for knob in knobs}
            if len(widths) == 1 and not joined & held and not unseen & {knob.row for knob in knobs}:
                units.append(Unit(tuple(sorted(knobs, key=str)), widths.pop(), tuple(sorted(joined))))
        return sorted(units, key=lambda unit: min(unit.knobs)[0])

    def _moves(self, knob: Knob, layer: str) -> bool:
        return layer.startswith(f"model.{knob.row}.")

    def _is_last(self, name: str) -> bool:
        """Whether a layer is of the head, whose own tensors are of classes and strides."""
        return name.split(".")[1:2] == [str(len(self._rows) - 1)] and not self.is_classifier

    def _layer(self, row: Row, name: str) -> str:
        return f"model.{row.index}.{name}".rstrip(".")

    # Rows

    def _inputs(self, row: Row, channels: Sequence[int]) -> list[int]:
        return [self.config.ch if j < 0 else channels[j] for j in row.sources]

    def _block(self, row: Row, inputs: Sequence[int]) -> Block:
        key = row.index, str(row.written), tuple(inputs)
        if key not in self._blocks:
            block, c_out = skeleton(partial(build_row, self.config), row, inputs)
            widths = {name: n for name, layer in layers(block).items() if (n := _width(layer)) is not None}
            self._blocks[key] = Block(widths, identities(block), c_out)
        return self._blocks[key]

    def _block_or_none(self, row: Row, inputs: Sequence[int]) -> Block | None:
        """None where it cannot be built."""
        try:
            return self._block(row, inputs)
        except InputError:
            return None

    def _value(self, row: Row, knob: Knob) -> Any:
        names = _positions(self.config, row, self._inputs(row, self._channels))
        value = _value(row, names or [], knob.name, lookup(row))
        return value[knob.place] if knob.place is not None and isinstance(value, (list, tuple)) else value

    def _with(self, row: Row, knob: Knob, value: Any) -> Row:
        """The row with another value of a knob."""
        source, number, module, args = copy.deepcopy(row.written)
        names = _positions(self.config, row, self._inputs(row, self._channels)) or []
        if knob.place is not None:
            whole = _value(row, names, knob.name, lookup(row))
            whole = list(whole) if isinstance(whole, (list, tuple)) else [whole] * self.config.depth(row)
            whole[knob.place] = value
            value = whole
        more = args.pop() if args and isinstance(args[-1], Mapping) else {}
        place = names.index(knob.name) if knob.name in names else len(names)
        if place < len(args):
            args[place] = value
        elif module in MODULES and place < len(names):
            defaults = inspect.signature(lookup(row).cls).parameters
            args += [more.pop(name, defaults[name].default) for name in names[len(args) : place]] + [value]
            more.pop(knob.name, None)
        else:
            more = {**more, knob.name: value}
        return self.config.read_row(row, [source, number, module, [*args, *([more] if more else [])]])

    # Other widths

    def _try(self, wanted: Mapping[Unit, int]) -> Config | int:
        """The YAML; or the row that is no longer the same block."""
        asked = {knob: width for unit, width in wanted.items() for knob in unit.knobs}
        channels: list[int] = []
        rows = []
        for row in self._rows:
            inputs = self._inputs(row, channels)
            new = row
            if (follower := self._followers.get(row.index)) is not None:
                new = self._with(row, follower, inputs[0])
            for knob in self._knobs.get(row.index, ()):
                new = self._turned(new, knob, asked.get(knob, self._leads[knob].width), inputs)
            block = self._block(new, inputs)
            if not block.is_like(self._originals[row.index]):
                return row.index
            channels.append(block.c_out)
            rows.append(new)
        sections = {name: [r.written for r in rows if r.section == name] for name in SECTIONS}
        raw = {**self.config.raw, **sections}
        if not sections["head"]:
            del raw["head"]
        odd = any(n % _MULTIPLE for n, row in zip(channels, rows, strict=True) if row.index < len(rows) - 1)
        raw.pop("channel_multiple", None)
        return read_config({**raw, **({"channel_multiple": 1} if odd else {})}, file=self.config.file)

    def _turned(self, row: Row, knob: Knob, width: int, inputs: Sequence[int]) -> Row:
        """The row with the value of a knob at which its segments are `width` long."""
        lead, value = self._leads[knob], self._value(row, knob)
        wanted, rest = divmod(lead.layer_width * width, lead.width)
        if rest:
            raise row.error(f"{knob.name} cannot make {width} channels of {lead.width}")

        def fitting(block: Block) -> bool:
            same = block.widths.keys() == self._originals[row.index].widths.keys()
            return same and block.widths[lead.layer] == wanted

        def fits(value: Any) -> Row | None:
            changed = self._with(row, knob, value)
            block = self._block_or_none(changed, inputs)
            return changed if block is not None and fitting(block) else None

        now = self._block_or_none(row, inputs)
        if now is not None and fitting(now):
            return row
        if isinstance(value, int) and not isinstance(value, bool) and fits(scaled := value * width // lead.width):
            return self._with(row, knob, scaled)
        # As few decimals as do; a width is a share of another one, cut off or rounded.
        width_now = lead.layer_width if now is None else now.widths.get(lead.layer, lead.layer_width)
        guess = value * (wanted + 0.25) / (width_now + 0.25)
        for decimals in range(1, 7):
            for step in (0, 1, -1, 2, -2):
                if (found := fits(round(guess, decimals) + step * 10.0**-decimals)) is not None:
                    return found
        raise row.error(f"no {knob.name} makes {width} channels")

    def _widen(self, wanted: dict[Unit, int], index: int) -> None:
        """Make a unit of a row, or of what feeds it, one step wider."""
        row = self._rows[index]
        for j in (index, *row.sources):
            for unit, width in wanted.items():
                if any(knob.row == j for knob in unit.knobs) and width < unit.width:
                    wanted[unit] = min(width + _MULTIPLE, unit.width)
                    return
        raise row.error("cannot be written with other widths")


def _width(layer: nn.Module) -> int | None:
    for name in ("out_channels", "out_features", "num_features", "embed_dim"):
        if isinstance(width := getattr(layer, name, None), int):
            return width
    return None


def _written_out(config: Config) -> Config:
    rows = written_out(config)
    raw = {k: v for k, v in config.raw.items() if k not in (*MULTIPLES, *SECTIONS)}
    # Where upstream's YAMLs have them.
    raw = {**raw, "depth_multiple": 1.0, "width_multiple": 1.0, "channel_multiple": 1}
    raw |= {"backbone": rows[: config.num_backbone], "head": rows[config.num_backbone :]}
    return read_config(raw, file=config.file)


def _positions(config: Config, row: Row, inputs: Sequence[int]) -> list[str] | None:
    """Names of what a row says by position, its width first; None where its rule is another."""
    entry = lookup(row)
    try:
        given, _ = entry.channels(config, row, inputs)
    except InputError:
        return None
    parameters = inspect.signature(entry.cls).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(given) < 2 or list(given[2:]) != list(row.args[1:]):
        return None
    return [name for i, name in enumerate(names) if i > 0 and not (entry.repeats and i == 2)]


def _value(row: Row, names: Sequence[str], name: str, entry: Entry) -> Any:
    """What an argument of a row is, written or by default."""
    if name in names and (place := names.index(name)) < len(row.args):
        return row.args[place]
    return row.kwargs.get(name, inspect.signature(entry.cls).parameters[name].default)
