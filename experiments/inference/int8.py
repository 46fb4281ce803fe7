"""From the options of `export.py --int8` to a file in 8 bits that is nearly as good as the float one, or to none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from data import DetectionSet, Item, detection_split, require_boxes
from models.classes import names_of
from models.detector import Model
from models.errors import InputError
from models.files import atomic
from optimizer.exporters import NMS, Exported, export_onnx, with_nms
from optimizer.int8 import Int8

from ..run.console import say
from ..run.tables import table
from ..tasks.metrics import rated
from .detectors import OnnxDetector
from .options import Export
from .speed import milliseconds
from .validate import check_classes, measure

_CALIBRATION_BATCH = 8
# Images on which a row's part in the loss is measured: there are many rows.
_IMAGES_OF_ROWS = 100
_NAMED_ROWS = 5


@dataclass(frozen=True)
class Quantized:
    """What was measured of a file and of the float one that it was made of.

    Attributes
    ----------
    map50_95
        On the validation split: float, INT8.
    megabytes, milliseconds
        Size of the file, and median latency of a batch: float, INT8.
    """

    path: Path
    map50_95: tuple[float, float]
    megabytes: tuple[float, float]
    milliseconds: tuple[float, float]


def quantize(
    model: Model, options: Export, path: Path, imgsz: int, nms: NMS | None, images: Tensor | None, arch: Any
) -> tuple[Exported, Quantized]:
    """Write a detector in 8 bits, calibrated on training images, if its mAP on the validation images is near enough.

    Returns
    -------
    What was compared of the float file, which is not kept; and what was measured of both.

    Raises
    ------
    InputError
        More mAP is lost than ``--max-drop``; names the rows that cost most. No file is written then.
    """
    training, validation, names = splits(model, options, imgsz)
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        exported = export_onnx(model, plain, imgsz, options.opset, options.batch, None, images, arch)
        number = min(options.calibrate, len(training))
        print(f"calibrating on {number} of {len(training):,} training images", flush=True)
        int8 = Int8(onnx.load(plain), _batches(training, number, options.batch))
        onnx.save(int8.model(options.float_rows), small)
        files = (plain, small)
        print(f"validating on {len(validation):,} images of {options.data} (val)", flush=True)
        map_float, map_int8 = (_map(file, validation, names) for file in files)
        (ms_float, _), (ms_int8, _) = milliseconds(files)
        done = Quantized(
            path,
            (map_float, map_int8),
            (plain.stat().st_size / 1e6, small.stat().st_size / 1e6),
            (ms_float, ms_int8),
        )
        report(done, options, "ONNX Runtime")
        if map_float - map_int8 > options.max_drop:
            lost = f"INT8 loses {100 * (map_float - map_int8):.1f} points of mAP50-95, more than --max-drop"
            lost = f"{lost} {options.max_drop:g} ({100 * options.max_drop:g} points)"
            if not options.force:
                costly = _costly_rows(int8, options.float_rows, model, validation, names, small)
                raise InputError(f"{lost}; {costly}; --force writes it nevertheless")
            print(f"{lost}; written since --force was given")
        final = int8.model(options.float_rows)
        if nms is not None:
            final = with_nms(final, model.head, nms)
        with atomic(path) as temporary:
            onnx.save(final, temporary)
            OnnxDetector(temporary)  # reads it
    return exported, done


def splits(model: Model, options: Export, imgsz: int) -> tuple[DetectionSet, DetectionSet, Sequence[str]]:
    """Images to calibrate and to validate on, and the names of their classes; `InputError` if they do not fit."""
    if model.head.finds == "labels":
        raise InputError(f"--int8: {options.weights} gives classes of pixels; right would be a detector or a segmenter")
    training, names = detection_split(str(options.data), "train", imgsz)
    validation, _ = detection_split(str(options.data), "val", imgsz, finds=model.head.finds)
    check_classes(options.weights, names_of(model) or (), options.data, names)
    require_boxes(validation, str(options.data))
    return training, validation, names


def spread(dataset: DetectionSet, number: int) -> list[int]:
    """Images from all over the set, as many as there are at most."""
    picked: list[int] = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int).tolist()
    return picked


def _batches(dataset: DetectionSet, number: int, batch: int | None) -> Iterator[np.ndarray]:
    """Images from all over the set, float32 (N, 3, imgsz, imgsz); of a fixed batch the last one is filled up."""
    picked = spread(dataset, number)
    size = batch or _CALIBRATION_BATCH
    if batch:
        picked += picked[:1] * (-len(picked) % batch)
    for start in range(0, len(picked), size):
        yield torch.stack([dataset[i].image for i in picked[start : start + size]]).float().div_(255).numpy()


def _map(path: Path, dataset: Any, names: Sequence[str]) -> float:
    return rated(measure(OnnxDetector(path), dataset, names=names).metrics.compute())


def report(done: Quantized, options: Export, runtime: str) -> None:
    """Print what was measured."""
    rows = [
        [name, f"{score:.4f}", f"{mb:.2f}", f"{ms:.2f}"]
        for name, score, mb, ms in zip(("float", "int8"), done.map50_95, done.megabytes, done.milliseconds, strict=True)
    ]
    say(
        table((runtime.partition(" ")[0], "mAP50-95", "MB", "ms"), rows, f"{options.weights} on {options.data} (val)"),
        f"ms: median of {runtime} on the CPU; threads: {torch.get_num_threads()}, batch: {options.batch or 1}; "
        "images and predictions in memory included, NMS not",
    )


class _First:
    """The first images of a set."""

    def __init__(self, dataset: DetectionSet) -> None:
        self._dataset, self.hyp, self.imgsz, self.finds = dataset, dataset.hyp, dataset.imgsz, dataset.finds

    def __len__(self) -> int:
        return min(len(self._dataset), _IMAGES_OF_ROWS)

    def __getitem__(self, i: int) -> Item:
        if i >= len(self):
            raise IndexError(i)
        return self._dataset[i]


def _costly_rows(
    int8: Int8, float_rows: Sequence[int], model: Model, dataset: DetectionSet, names: Sequence[str], scratch: Path
) -> str:
    """What one row in float gives back, of the rows that give most."""
    few = _First(dataset)

    def map_with(*more: int) -> float:
        onnx.save(int8.model({*float_rows, *more}), scratch)
        return _map(scratch, few, names)

    lost = map_with()
    gains = {row: map_with(row) - lost for row in int8.rows if row not in float_rows}
    best = sorted(gains, key=lambda row: -gains[row])[:_NAMED_ROWS]
    said = ", ".join(f"row {r} ({model.config.rows[r].module}) {100 * gains[r]:+.1f}" for r in best)
    right = " ".join(map(str, [*float_rows, *(r for r in best if gains[r] > 0)]))
    return (
        f"points that one row in float gives back, on {len(few)} images: {said}; right would be --float-rows {right}, "
        "or more training images (--calibrate)"
    )
