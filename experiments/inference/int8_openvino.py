"""From the options of `export.py --int8 --format openvino` to a file in 8 bits, or to none."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import DetectionSet
from models.detector import Model
from models.errors import InputError
from models.head import Form
from optimizer.exporters import NMS, Exported, export_onnx
from optimizer.int8_openvino import compiled, nncf, quantize_with_nncf, save_openvino

from ..tasks.loaders import Part
from .int8 import Quantized, report, splits, spread
from .options import Export
from .speed import in_turns
from .validate import measure


class OpenvinoDetector:
    """A compiled model of OpenVINO as a `Detector`."""

    nms: NMS | None = None
    rect: bool = False
    dtype: str = "int8"

    def __init__(self, network: Any, model: Model, imgsz: int, batch: int | None) -> None:
        self._network, self.names, self.imgsz, self.batch = network, dict(model.names), imgsz, batch
        self.stride = int(model.stride.max())
        self.form: Form = model.head.form

    def check_imgsz(self, imgsz: int) -> int:
        return imgsz

    def prepare(self, images: Tensor) -> np.ndarray:
        return images.float().div_(255).numpy()

    def predict(self, prepared: np.ndarray) -> Tensor:
        number = len(prepared)
        return torch.from_numpy(self._network([_filled(prepared, self.batch)])[0].copy())[:number]

    def wait(self) -> None:
        """OpenVINO returns when it is done."""


def quantize_openvino(
    model: Model, options: Export, path: Path, imgsz: int, images: Tensor | None, arch: Any
) -> tuple[Exported, Quantized]:
    """As `int8.quantize`, where NNCF looks for the layers that are left in float.

    Raises
    ------
    InputError
        NNCF or OpenVINO is missing, or more mAP is lost than ``--max-drop`` all the same. No file is written then.
    """
    if model.head.num_coefficients:
        raise InputError("--format openvino --int8: not for segmenters; right would be --format onnx --int8")
    nncf()
    training, validation, names = splits(model, options, imgsz)
    threads = torch.get_num_threads()

    def detector(network: Any) -> OpenvinoDetector:
        return OpenvinoDetector(network, model, imgsz, options.batch)

    def rate(network: Any, items: Iterable[Any]) -> float:
        part = Part(validation, [i for _, i in items])
        found: float = measure(detector(network), part, names=names).metrics.compute()["map50_95"]  # type: ignore[arg-type]
        return found

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "float.onnx", Path(folder) / "int8.xml"
        exported = export_onnx(model, plain, imgsz, options.opset, options.batch, None, images, arch)
        calibrates = [(training, i) for i in spread(training, options.calibrate)]
        validates = [(validation, i) for i in range(len(validation))]
        print(f"calibrating on {len(calibrates)} of {len(training):,} training images", flush=True)
        print(f"validating on {len(validation):,} images of {options.data} (val), as often as NNCF wants", flush=True)
        image = functools.partial(_image, batch=options.batch)
        quantized = quantize_with_nncf(plain, image, calibrates, validates, rate, options.max_drop)
        save_openvino(quantized, small)
        networks = [compiled(str(file), threads) for file in (plain, small)]
        map_float, map_int8 = (rate(network, validates) for network in networks)
        x = np.random.default_rng(0).random((options.batch or 1, 3, imgsz, imgsz), np.float32)
        (ms_float, _), (ms_int8, _) = in_turns([functools.partial(network, [x]) for network in networks])
        done = Quantized(
            path,
            (map_float, map_int8),
            (plain.stat().st_size / 1e6, small.with_suffix(".bin").stat().st_size / 1e6),
            (ms_float, ms_int8),
        )
        report(done, options, "OpenVINO")
        if map_float - map_int8 > options.max_drop:
            lost = f"INT8 loses {100 * (map_float - map_int8):.1f} points of mAP50-95, more than --max-drop"
            lost = f"{lost} {options.max_drop:g} ({100 * options.max_drop:g} points)"
            if not options.force:
                raise InputError(
                    f"{lost}, with all that NNCF put back to float; right would be more training images (--calibrate); "
                    "--force writes it nevertheless"
                )
            print(f"{lost}; written since --force was given")
        save_openvino(quantized, path)
    return exported, done


def _image(item: tuple[DetectionSet, int], batch: int | None) -> np.ndarray:
    """float32 (N, 3, imgsz, imgsz) from 0 to 1."""
    dataset, i = item
    return _filled(dataset[i].image[None].float().div_(255).numpy(), batch)


def _filled(images: np.ndarray, batch: int | None) -> np.ndarray:
    """As many images as a fixed batch has, the last one again and again."""
    missing = max((batch or 0) - len(images), 0)
    return np.concatenate((images, np.repeat(images[-1:], missing, 0))) if missing else images
