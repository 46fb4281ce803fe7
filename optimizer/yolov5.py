"""A detector in the modules and positional arguments of YOLOv5 itself (v7.0), and its weights in their names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.catalog import lookup
from models.detector import Model
from models.errors import InputError
from models.files import save_detector, save_model_yaml
from models.grammar import SECTIONS, Call, Row
from models.heads import Detect
from models.registry import Entry, scaled
from models.strides import check_imgsz
from models.yolov5_rows import MODULES, by_position

from .difference import Difference

TOLERANCE = 1e-5
_ALWAYS_SILU = ("MixConv2d", "BottleneckCSP")  # the YAML's `activation` is of Conv alone
_DIVISOR = 8  # to whose multiples YOLOv5 rounds widths up


@dataclass(frozen=True)
class Yolov5Form:
    """What YOLOv5 builds, and what it loads into that.

    Attributes
    ----------
    raw
        The YAML; widths as they are, ``width_multiple`` and ``depth_multiple`` 1.
    state_dict
        The tensors of the detector, in the names that they have there.
    split
        Rows of the detector that became several.
    odd
        Width by row, of rows whose width is no multiple of 8: `raw` has ``channel_multiple: 1``, which only YOLOv5
        after v7.0 knows.
    """

    raw: dict[str, Any]
    state_dict: dict[str, Tensor]
    split: tuple[int, ...]
    odd: dict[int, int]


@dataclass(frozen=True)
class Yolov5Export:
    """Files that were written and found equal: ``path``, and the weights beside it (.pt).

    Attributes
    ----------
    difference
        Of predictions (pixels, or probability) from the detector's.
    """

    path: Path
    form: Yolov5Form
    difference: Difference


def export_yolov5(model: Model, path: str | Path, imgsz: int = 640, images: Tensor | None = None) -> Yolov5Export:
    """Write a detector as `yolov5_form` gives it, once that is seen to compute the same.

    ``path`` is the YAML; the .pt beside it is a file of `models.files.save_detector`, so that this project reads both
    too.

    Parameters
    ----------
    images
        float32 (n, ch, imgsz, imgsz) from 0 to 1 to compare with; random ones without.

    Raises
    ------
    InputError
        YOLOv5 has no way to write a row, or the predictions differ; no file is written then.
    """
    path = Path(path)
    check_imgsz(imgsz, model.imgsz_multiple)
    model = copy.deepcopy(model).cpu().float().eval()
    form = yolov5_form(model)
    written = Model(form.raw).eval()
    written.load_state_dict(form.state_dict)
    if images is None:
        images = torch.rand(2, model.config.ch, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = (cast(Tensor, network(images)[0]) for network in (model, written))
    difference = Difference.between(expected, got, TOLERANCE)
    if not difference.used <= 1:
        raise InputError(f"{path}: differs from the detector by up to {difference.largest:.2g}; it was not written")
    save_detector(written, path.with_suffix(".pt"), imgsz=imgsz)
    save_model_yaml(form.raw, path)
    return Yolov5Export(path, form, difference)


def yolov5_form(model: Model) -> Yolov5Form:
    """A detector's rows as YOLOv5 has them; a C3 that has more than its arguments becomes the rows that it is made of.

    Raises
    ------
    InputError
        Names the row that cannot be written, and why.
    """
    head = model.head
    if type(head) is not Detect:
        why = "is not written in YOLOv5's form" if isinstance(head, Detect) else "YOLOv5 has no such head"
        raise model.config.rows[-1].error(f"{why}; right would be Detect, [nc, anchors]")
    writer = _Writer(model)
    for row in model.config.rows:
        writer.write(row)
    config, raw = model.config, cast(dict[str, Any], {"nc": head.nc, "depth_multiple": 1.0, "width_multiple": 1.0})
    if config.ch != 3:
        raw["ch"] = config.ch
    odd = {index: c for index, c in writer.widths.items() if c % _DIVISOR and c != head.no * head.na}
    if odd:
        raw["channel_multiple"] = 1
    if config.activation is not None:
        raw["activation"] = _argument(config.activation)
    pixels = (head.anchors * head.stride.view(-1, 1, 1)).flatten(1).tolist()
    raw["anchors"] = [[round(v) if v == round(v) else v for v in level] for level in pixels]
    raw |= writer.sections
    raw["names"] = [model.names[i] for i in range(head.nc)]
    return Yolov5Form(raw, writer.state, tuple(writer.split), odd)


class _Writer:
    """Takes a detector's rows one after the other.

    Attributes
    ----------
    sections
        Rows written so far.
    widths
        Output channels by written row, of those that have any of their own.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.sections: dict[str, list[Any]] = {name: [] for name in SECTIONS}
        self.widths: dict[int, int] = {}
        self.state: dict[str, Tensor] = {}
        self.split: list[int] = []
        self._place = {-1: -1}  # row of the detector -> row written that gives its output
        self._weights = model.state_dict()
        self._section = SECTIONS[0]

    def write(self, row: Row) -> None:
        self._section = row.section
        entry = self._known(row)
        sources = [self._place[j] for j in row.sources]
        source: Any = sources if isinstance(row.source, tuple) else sources[0]
        if row.module in ("Detect", "nn.BatchNorm2d"):
            own = ["nc", "anchors"] if row.module == "Detect" else []
            self._place[row.index] = self._add(source, self._number(row), row.module, own, f"{row.index}")
            return
        given, c_out = self._given(row, entry)
        # The first is the width, where there is one: it is written as it is.
        has_width = entry.channels is scaled
        defaults = {p.name: p.default for p in by_position(entry)[has_width:]}
        ours = ("in_channels", "out_channels", "c1", "c2", "n") if has_width else ()
        more = {k: v for k, v in given.items() if k not in defaults and k not in ours}
        if row.module == "Bottleneck" and more.pop("hidden", None) is not None:
            given["e"] = _ratio(c_out, self._module(row).cv1.conv.out_channels)
        if row.module == "C3" and more:
            if not self._is_plain_c3(given, row):
                self._split_c3(row, given, c_out)
                return
            more = {}
        if more:
            raise row.error(f"YOLOv5's takes no {', '.join(more)}; right would be {', '.join(defaults)}")

        # As many as the row has, and beyond them up to the last that is not the default.
        count = len(row.args) - has_width
        count = max([count, *(i + 1 for i, k in enumerate(defaults) if k in given and given[k] != defaults[k])])
        if row.module in ("Contract", "Expand"):
            count = 1  # the parser itself reads the gain
        args = [_argument(given.get(k, v)) for k, v in [*defaults.items()][:count]]
        width = c_out if has_width else None
        args = [c_out, *args] if has_width else args
        self._place[row.index] = self._add(source, self._number(row), row.module, args, f"{row.index}", width)

    def _known(self, row: Row) -> Entry:
        """The entry of a module that YOLOv5 has too, and there does the same."""
        if row.module not in MODULES:
            raise row.error("YOLOv5 has no such module")
        silu = self.model.config.activation in (None, Call("nn.SiLU"))
        if row.module in _ALWAYS_SILU and not silu:
            raise row.error(f"in YOLOv5 its activation is nn.SiLU(), here {self.model.config.activation}")
        if row.module == "nn.BatchNorm2d" and row.sources != (row.index - 1,):
            # Its parser takes the width of the row before for that of the output.
            raise row.error("YOLOv5 has it behind the row before alone: right would be from -1")
        return lookup(row)

    def _number(self, row: Row) -> int:
        return self.model.config.depth(row)

    def _given(self, row: Row, entry: Entry) -> tuple[dict[str, Any], int]:
        """What the row says, by the names of the constructor's parameters; and its output channels."""
        config, channels = self.model.config, self.model.channels
        args, c_out = entry.channels(config, row, [config.ch if j < 0 else channels[j] for j in row.sources])
        if entry.repeats:
            args.insert(2, self._number(row))
        return dict(inspect.signature(entry.cls).bind(*args, **row.kwargs).arguments), c_out

    def _module(self, row: Row) -> Any:
        module = self.model.model[row.index]
        return module[0] if isinstance(module, nn.Sequential) else module

    def _is_plain_c3(self, given: Mapping[str, Any], row: Row) -> bool:
        """Whether what is written beyond YOLOv5's arguments says nothing else than they do."""
        module = self._module(row)
        widths = {block.cv1.conv.out_channels for block in module.m}
        usual = {"cv1_k": 1, "cv2_k": 1, "cv1_act": True, "cv2_act": True}
        return all(given.get(k, v) == v for k, v in usual.items()) and widths <= {module.cv1.conv.out_channels}

    def _split_c3(self, row: Row, given: Mapping[str, Any], c_out: int) -> None:
        """cv1, the bottlenecks, cv2 beside them, Concat, cv3; see `models.blocks.C3`."""
        module, i, source = self._module(row), row.index, self._place[row.sources[0]]
        if source < 0:
            raise row.error("its parts read the image twice, which in YOLOv5 the first row alone reads")
        hidden = module.cv1.conv.out_channels
        last = self._conv(source, hidden, given.get("cv1_k", 1), given.get("cv1_act", True), f"{i}.cv1")
        for j, block in enumerate(module.m):
            ratio = _ratio(hidden, block.cv1.conv.out_channels)
            args = [hidden, given.get("shortcut", True), given.get("g", 1), ratio]
            last = self._add(last, 1, "Bottleneck", args, f"{i}.m.{j}", hidden)
        side = self._conv(source, hidden, given.get("cv2_k", 1), given.get("cv2_act", True), f"{i}.cv2")
        joined = self._add([last, side], 1, "Concat", [1])
        self._place[i] = self._conv(joined, c_out, 1, True, f"{i}.cv3")
        self.split.append(i)

    def _conv(self, source: int, c2: int, k: Any, act: Any, weights: str) -> int:
        more = [] if act is True else ["None", 1, 1, _argument(act)]  # p, g, d, act
        return self._add(source, 1, "Conv", [c2, _argument(k), 1, *more], weights, c2)

    def _add(
        self, source: Any, number: int, module: str, args: list[Any], weights: str = "", width: int | None = None
    ) -> int:
        """Write a row that reads the rows `source`, with the tensors below `weights`; the row's index."""
        index = sum(map(len, self.sections.values()))
        several = source if isinstance(source, list) else [source]
        if module != "Detect":  # whose rows YOLOv5's YAMLs name all
            several = [-1 if j == index - 1 else j for j in several]
        self.sections[self._section].append([several if isinstance(source, list) else several[0], number, module, args])
        if width is not None:
            self.widths[index] = width
        prefix = f"model.{weights}."
        for key, value in self._weights.items():
            if key.startswith(prefix):
                self.state[f"model.{index}.{key.removeprefix(prefix)}"] = value
        return index


def _ratio(c: int, hidden: int) -> float:
    """`e` of which ``int(c * e)`` is `hidden`, as short as there is one."""
    e = hidden / c
    return e if int(c * e) == hidden else (hidden + 0.5) / c


def _argument(value: Any) -> Any:
    """An argument as YOLOv5's YAMLs write it."""
    if isinstance(value, Call):
        # Its parser knows `nn`; a string that it cannot evaluate it would pass on as it is.
        return str(replace(value, name=f"nn.{value.name.removeprefix('torch.').removeprefix('nn.')}"))
    if isinstance(value, (list, tuple)):
        return [_argument(v) for v in value]
    return "None" if value is None else value
