"""Archs of a supernet as they are shipped in 8 bits: the slice as `export.py --int8` writes it, rated and timed."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx

from data import DetectionSet
from models.detector import Model
from models.errors import InputError
from optimizer.exporters import export_onnx, need
from optimizer.int8 import Int8
from spaces import CostModel
from spaces.space import Arch

from ..costs import Cached, CostProvider, Latency
from ..inference.detectors import OnnxDetector
from ..inference.validate import measure
from ..tasks.detect import DetectTask
from ..tasks.loaders import Part
from ..tasks.metrics import rated
from ..tasks.resize import resolution_of
from ..tasks.task import SearchTask
from .rating import Rating
from .studies import Makers
from .subnets import cut_out

# Files that are kept at hand: an arch is timed when it is asked for, and rated soon after.
_KEPT = 32


class Int8Slices:
    """Files of archs, each for one image at a time, without NMS.

    Calibrated on training images of the weights' part, as they are: none of them rates.

    Parameters
    ----------
    supernet
        Gives the supernet.
    number
        Training images to calibrate on.

    Raises
    ------
    InputError
        The task's networks are no detectors, or a package is missing.
    """

    def __init__(self, supernet: Callable[[], Any], task: SearchTask, number: int, option: str = "--int8") -> None:
        if not isinstance(task, DetectTask):
            raise InputError(f"{option}: is of detectors; right would be a supernet of --task detect")
        need("onnxruntime.quantization")
        self.supernet: Callable[[], Any] = supernet
        self.task: Any = task
        self._number: int = number
        self._kept: OrderedDict[tuple[Any, ...], tuple[bytes, int]] = OrderedDict()

    def of(self, arch: Mapping[str, Any]) -> tuple[bytes, int]:
        """The ONNX file of an arch, and the side of the images that it takes."""
        key = tuple(arch.items())
        if key not in self._kept:
            self._kept[key] = self._made(arch)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _made(self, arch: Mapping[str, Any]) -> tuple[bytes, int]:
        supernet = self.supernet()
        slice_ = cut_out(supernet, self.task, arch).to(next(supernet.parameters()).device)
        network = cast(Model, self.task.rated_as(slice_)).cpu()
        network.names = dict(enumerate(self.task.names))
        side = resolution_of(network, self.task.options.imgsz)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "float.onnx"
            export_onnx(network, path, side, batch=1, arch=dict(arch))
            plain = onnx.load(path)
        images = self.task.as_they_are("weights", side)
        return Int8(plain, one_by_one(images, self._number)).model().SerializeToString(), side

    def write(self, arch: Mapping[str, Any], path: Path) -> Path:
        """The file of an arch."""
        path.write_bytes(self.of(arch)[0])
        return path


def one_by_one(images: Part, number: int) -> Iterator[np.ndarray]:
    """Images from all over a part, float32 (1, 3, H, W) from 0 to 1."""
    for i in np.linspace(0, len(images) - 1, min(number, len(images))).round().astype(int).tolist():
        yield images[i].image[None].float().div_(255).numpy()


class Int8Rating(Rating):
    """Arch to mAP50-95 of its file in 8 bits, on the training images of the architecture."""

    def __init__(self, slices: Int8Slices, total: int) -> None:
        super().__init__(slices.supernet, slices.task, total)
        self._slices = slices

    def rate(self, arch: Mapping[str, Any]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            detector = OnnxDetector(self._slices.write(arch, Path(folder) / "int8.onnx"))
            images = self._slices.task.as_they_are("arch", detector.imgsz)
            found = measure(detector, cast(DetectionSet, images), names=self._slices.task.names)
        return rated(found.metrics.compute())


class Int8Latency:
    """Milliseconds of the files of archs, by a provider that times the file of an arch with fresh weights else.

    Parameters
    ----------
    provider
        One with ``of_file(path, side)``, such as `Latency` by ``onnxruntime``, or `CommandLatency`.
    made_by
        What files depend on beside the arch, as plain data.

    Raises
    ------
    InputError
        The provider does not time files.
    """

    def __init__(self, slices: Int8Slices, provider: Any, made_by: Mapping[str, Any]) -> None:
        self.name, self.unit, self.provider, self._slices = provider.name, provider.unit, provider, slices
        self.settings: dict[str, Any] = {**provider.settings, "int8": dict(made_by)}

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """Milliseconds of each arch."""
        return [self._measure(arch) for arch in [self.provider.space.complete(a) for a in archs]]

    def _measure(self, arch: Arch) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = self._slices.write(arch, Path(folder) / "int8.onnx")
            milliseconds: float = self.provider.of_file(path, self._slices.of(arch)[1])
        return milliseconds


def of_files(makers: Makers, slices: Int8Slices, made_by: Mapping[str, Any]) -> Makers:
    """What makes cost providers: those that time files time those of `slices`.

    The cost ``latency`` is always one of them: by ONNX Runtime on this machine where `makers` do not tell it.
    """

    def maker(name: str, make: Callable[[CostModel], CostProvider]) -> Callable[[CostModel], CostProvider]:
        def made(model: CostModel) -> CostProvider:
            told = make(model)
            provider = told.provider if isinstance(told, Cached) else told
            if not _times_files(provider):
                if name == "latency":
                    raise InputError(
                        "--int8: latency is that of files, and this provider times none; right would be onnxruntime or "
                        "command, or no latency in --costs"
                    )
                return told
            provider.name = name
            timed = Int8Latency(slices, provider, made_by)
            return Cached(timed, told.path) if isinstance(told, Cached) else timed

        return made

    def on_this_machine(model: CostModel) -> CostProvider:
        return Latency(model.space, model.imgsz, "onnxruntime")

    return {name: maker(name, make) for name, make in {"latency": on_this_machine, **makers}.items()}


def _times_files(provider: Any) -> bool:
    if isinstance(provider, Latency):
        return provider.settings["backend"] == "onnxruntime"
    return hasattr(provider, "of_file")
