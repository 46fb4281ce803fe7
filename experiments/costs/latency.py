"""Latency as it is measured here, by the runtime that counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.catalog import is_head
from models.classifier import Classifier
from models.detector import Model
from models.errors import InputError
from models.grammar import read_config
from models.network import Network
from optimizer.exporters import export_onnx, export_openvino
from spaces.space import Arch, Space

from ..run.device import device_of
from . import timing
from .exported_block import opened
from .latency_table import device_name
from .timing import check_threads

Run = Callable[[], Any]
"""An inference of one image; gives the output."""


class Latency:
    """Median milliseconds of an inference of one image by the plain network that an arch means, with fresh weights.

    Parameters
    ----------
    imgsz
        Side of the images; where the YAML has a `resolution`, that is meant.
    backend
        ``torch`` (eval mode, nothing fused), ``compile`` (`torch.compile`), ``onnxruntime`` or ``openvino``. The last
        two export networks as `optimizer.exporters` does, batch norms fused, and know the CPU only.
    device
        ``cpu`` or ``cuda``.
    threads
        By default PyTorch's own number.

    Raises
    ------
    InputError
        Of an option that does not fit, or a package that is missing.
    """

    name, unit = "latency", "ms"

    def __init__(
        self, space: Space, imgsz: int, backend: str = "torch", device: str = "cpu", threads: int | None = None
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"backend '{backend}': right would be {', '.join(BACKENDS)}")
        check_threads(threads)
        package, self._prepare = BACKENDS[backend]
        self.space, self.imgsz, self.device = space, imgsz, device_of(device)
        self.threads = threads or torch.get_num_threads()
        if package != "torch" and self.device != "cpu":
            raise InputError(f"backend '{backend}' measures on the CPU only, not on {device}")
        self.settings: dict[str, Any] = {
            "space": space.config.raw,
            "imgsz": imgsz,
            "backend": backend,
            package: _version(package),
            "device": device_name(self.device),
            "threads": self.threads,
            "warm_up": timing.WARM_UP,
            "repeats": timing.REPEATS,
        }

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """Milliseconds of each arch; all of them are checked before the first is measured."""
        return [self._measure(arch) for arch in [self.space.complete(a) for a in archs]]

    def _measure(self, arch: Arch) -> float:
        side = self.space.freeze_resolution(arch) or self.imgsz
        with timing.torch_threads(self.threads):
            network = built(self.space.freeze(arch)).to(self.device)
            x = random_image(network.config.ch, side)
            with tempfile.TemporaryDirectory() as folder:
                run = self._prepare(network, x.to(self.device), self.threads, Path(folder))
                with torch.inference_mode():
                    return timing.median_ms(timing.synchronized(run, self.device))

    def of_file(self, path: Path, side: int) -> float:
        """Milliseconds of an ONNX file that takes one image of that side; by ``onnxruntime`` alone."""
        return timing.median_ms(session_run(path, random_image(self.space.config.ch, side), self.threads))


def built(raw: dict[str, Any]) -> Network:
    """A plain network in eval mode, the same weights every time."""
    config = read_config(raw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if is_head(config.rows[-1]):
            return Model(config).eval()
        if config.is_classifier:
            return Classifier(config).eval()
        network = Network()
        network.build(config)
        return network.eval()


def _torch(network: Network, x: Tensor, threads: int, folder: Path) -> Run:
    return lambda: network(x)


def _compile(network: Network, x: Tensor, threads: int, folder: Path) -> Run:
    torch._dynamo.reset()  # what was compiled for the archs before is in the way
    compiled: nn.Module = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    try:
        with torch.inference_mode():
            compiled(x)
    except Exception as e:  # of Dynamo, Inductor, the C++ compiler
        raise InputError(f"torch.compile {torch.__version__} cannot compile this: {_first_line(e)}") from e
    return lambda: compiled(x)


def _onnxruntime(network: Network, x: Tensor, threads: int, folder: Path) -> Run:
    path = folder / "detector.onnx"
    export_onnx(whole(network, "onnxruntime"), path, x.shape[-1], batch=1)
    return session_run(path, x, threads)


def session_run(path: Path, x: Tensor, threads: int) -> Run:
    """An inference of images by ONNX Runtime on the CPU, whose input and output are in memory."""
    session = opened(path.read_bytes(), threads)
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


def exported(raw: dict[str, Any], side: int, threads: int, folder: Path) -> Run:
    """An inference, by ONNX Runtime, of a random image by a plain network with fresh weights."""
    network = built(raw)
    return _onnxruntime(network, random_image(network.config.ch, side), threads, folder)


def random_image(channels: int, side: int) -> Tensor:
    """float32 (1, channels, side, side), the same every time."""
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def _openvino(network: Network, x: Tensor, threads: int, folder: Path) -> Run:
    import openvino as ov

    path = folder / "detector.xml"
    export_openvino(whole(network, "openvino"), path, x.shape[-1], batch=1)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = ov.Core()
    request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
    feed = [x.numpy()]
    return lambda: list(request.infer(feed).values())


def whole(network: Network, backend: str) -> Model | Classifier:
    """The network, if it is one that can be exported."""
    if not isinstance(network, (Model, Classifier)):
        raise InputError(
            f"{network.config.file}: backend '{backend}' needs a detector, that is a head for its last row, or a "
            "classifier, that is nc and no head"
        )
    return network


def _version(package: str) -> str:
    try:
        return str(import_module(package).__version__)
    except ImportError as e:
        raise InputError(f"this needs the package {package} ({e}); right would be: pip install {package}") from None


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]


# Name to the package that computes, and what makes an inference of a network and an image.
BACKENDS: dict[str, tuple[str, Callable[[Network, Tensor, int, Path], Run]]] = {
    "torch": ("torch", _torch),
    "compile": ("torch", _compile),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
}
