"""Detectors ready to detect: of PyTorch, or of a file that `export.py` wrote, in ONNX Runtime. NNI is not needed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from models.detector import Model
from models.documents import is_file, parse_json
from models.errors import InputError
from models.head import Form
from models.postprocess import non_max_suppression
from models.schemas import OnnxNotes
from models.strides import check_imgsz
from models.upstream import load_weights
from optimizer.exporters import NMS

from ..run.device import device_of, synchronize

DEFAULT_IMGSZ = 640


class Detector(Protocol):
    """What detects, whatever computes it.

    Attributes
    ----------
    names
        Of the classes, by index.
    imgsz
        Side of the images in pixels: what it was made for.
    stride
        Sides are multiples of it.
    batch
        Images at a time, if it takes no other number.
    rect
        Whether it takes images that are not square.
    form
        What it predicts; see `models.head.Form`.
    num_coefficients
        Numbers behind each prediction, the coefficients of its mask; 0 where it finds boxes alone.
    nms
        Thresholds in the graph of a file that gives detections instead of predictions.
    dtype
        That it computes in: ``float32``, or ``int8`` for the most part.
    """

    names: dict[int, str]
    imgsz: int
    stride: int
    batch: int | None
    rect: bool
    form: Form
    num_coefficients: int
    nms: NMS | None
    dtype: str

    def check_imgsz(self, imgsz: int) -> int:
        """`imgsz` if images of this side are possible, else `InputError`."""

    def prepare(self, images: Tensor) -> Any:
        """uint8 (N, 3, H, W) as `predict` takes it, where it takes it."""

    def predict(self, prepared: Any) -> Tensor:
        """As `Model` in eval mode, in `form`, such as (N, A, …); with `nms`, (K, 7) as `optimizer.export_onnx`."""

    def compute(self, prepared: Any) -> tuple[Tensor, Tensor | None]:
        """What `predict` gives, and the prototypes of masks, (N, k, H, W); of a detector that finds masks."""

    def wait(self) -> None:
        """Return when all that was asked has been computed: for measuring time."""


class TorchDetector:
    """A `Model` as a `Detector`: a copy of it, its batch normalisation fused into the convolutions."""

    nms: NMS | None = None
    dtype: str = "float32"
    batch: int | None = None
    rect: bool = True

    def __init__(self, model: Model, device: str | torch.device | None = None, imgsz: int = DEFAULT_IMGSZ) -> None:
        if model.config.ch != 3:
            raise InputError(f"{model.config.file}: takes {model.config.ch} channels, but images have 3")
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        # Channels last, in which convolutions are fastest.
        self._model = copy.deepcopy(model).fuse().to(self.device).to(memory_format=torch.channels_last)
        self.names, self.imgsz = model.names, imgsz
        self.stride, self.form = int(model.stride.max()), model.head.form
        self.num_coefficients = model.head.num_coefficients

    def check_imgsz(self, imgsz: int) -> int:
        return check_imgsz(imgsz, self.stride)

    def prepare(self, images: Tensor) -> Tensor:
        return images.to(self.device).float().div_(255).contiguous(memory_format=torch.channels_last)

    def predict(self, prepared: Tensor) -> Tensor:
        return self.compute(prepared)[0]

    @torch.no_grad()
    def compute(self, prepared: Tensor) -> tuple[Tensor, Tensor | None]:
        decoded, logits = self._model(prepared)
        return decoded, self._model.head.prototypes(logits) if self.num_coefficients else None

    def wait(self) -> None:
        synchronize(self.device)


class OnnxDetector:
    """A file of `optimizer.export_onnx` as a `Detector`."""

    rect: bool = False

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise InputError(f"{path}: needs ONNX Runtime; right would be: pip install onnxruntime") from None
        if not is_file(path):
            raise InputError(f"{path}: no such file")
        wanted: list[Any] = ["CPUExecutionProvider"]
        asked = torch.device(device)
        if asked.type == "mps":
            raise InputError(f"--device mps: ONNX Runtime runs {path} on the CPU or CUDA; right would be --device cpu")
        if asked.type == "cuda":
            wanted = [("CUDAExecutionProvider", {"device_id": asked.index or 0})]
            if wanted[0][0] not in ort.get_available_providers():
                raise InputError(f"--device cuda: {path} needs the package onnxruntime-gpu for it, or --device cpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted)
        except Exception as e:  # its exceptions have no public base class
            raise InputError(f"{path}: ONNX Runtime does not read it: {(str(e).splitlines() or [''])[0]}") from None
        try:
            said = self._session.get_modelmeta().custom_metadata_map
            if said.get("task") == "classify":
                raise InputError(f"{path}: a classifier's; right would be the file of a detector")
            found = OnnxNotes.of(
                {
                    "names": {int(k): v for k, v in parse_json(said["names"], path).items()},
                    "imgsz": int(said["imgsz"]),
                    "stride": int(said["stride"]),
                    "batch": None if said["batch"] == "dynamic" else int(said["batch"]),
                    "nms": parse_json(said["nms"], path),
                    "form": said.get("form", "objectness"),
                    "coefficients": int(said.get("coefficients", 0)),
                    "dtype": said.get("dtype", "float32"),
                },
                f"{path}: not a file of export.py",
            )
            self.nms = None if found.nms is None else NMS(**found.nms)  # type: ignore[arg-type]
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"{path}: not a file of export.py; its metadata has no proper {e}") from None
        self._check_inputs(path, found.batch, found.imgsz)
        self.names, self.imgsz, self.stride, self.batch = found.names, found.imgsz, found.stride, found.batch
        self.form: Form = cast(Form, found.form)
        self.num_coefficients = found.coefficients
        if len(self._session.get_outputs()) != (2 if found.coefficients else 1):
            given = ", ".join(o.name for o in self._session.get_outputs())
            raise InputError(
                f"{path}: not a file of export.py; it gives {given}, and coefficients is {found.coefficients}"
            )
        self.dtype: str = found.dtype
        self._path, self._looked_at = path, False

    def _check_inputs(self, path: str | Path, batch: int | None, imgsz: int) -> None:
        shapes = {i.name: i.shape for i in self._session.get_inputs()}
        sides = shapes.get("images", [])[2:]
        fits = len(shapes) == 1 and len(sides) == 2 and all(s == imgsz for s in sides if isinstance(s, int))
        first = shapes.get("images", [None])[0]
        if not fits or (isinstance(first, int) and first != batch):
            raise InputError(f"{path}: not a file of export.py; its input is {shapes}, not images of {imgsz} pixels")

    def check_imgsz(self, imgsz: int) -> int:
        if imgsz != self.imgsz:
            raise InputError(f"--imgsz {imgsz}: {self._path} was exported for {self.imgsz}")
        return imgsz

    def prepare(self, images: Tensor) -> np.ndarray:
        return images.float().div_(255).numpy()

    def predict(self, prepared: np.ndarray) -> Tensor:
        return self.compute(prepared)[0]

    def compute(self, prepared: np.ndarray) -> tuple[Tensor, Tensor | None]:
        missing = 0 if self.batch is None else self.batch - len(prepared)
        if missing > 0:
            prepared = np.concatenate((prepared, np.zeros((missing, *prepared.shape[1:]), prepared.dtype)))
        out, *prototypes = map(torch.from_numpy, self._session.run(None, {"images": prepared}))
        if not self._looked_at and not bool(out.isfinite().all()):
            raise InputError(f"{self._path}: predicts numbers that are not finite")
        self._looked_at = True
        if missing > 0:
            out = out[out[:, 0] < self.batch - missing] if self.nms else out[:-missing]  # type: ignore[operator]
        return out, prototypes[0] if self.num_coefficients else None

    def wait(self) -> None:
        """ONNX Runtime returns when it is done."""


def open_detector(weights: str | Path, device: str = "cpu") -> Detector:
    """The detector of a file: of this project, of upstream YOLOv5, or ONNX (``.onnx``) by `export.py`.

    Raises
    ------
    InputError
        None of these, or the device is not there.
    """
    device = device_of(device)
    if Path(weights).suffix == ".onnx":
        return OnnxDetector(weights, device)
    model, content = load_weights(weights)
    return TorchDetector(model, device, content.get("imgsz", DEFAULT_IMGSZ))


def computed(detector: Detector, prepared: Any) -> tuple[Tensor, Tensor | None]:
    """What a detector predicts, and the prototypes of its masks where it finds any."""
    if coefficients_of(detector):
        return detector.compute(prepared)
    return detector.predict(prepared), None


def finds_of(detector: Detector) -> str:
    """What it finds, see `models.head.Head.finds`."""
    if detector.form == "labels":
        return "labels"
    return "masks" if coefficients_of(detector) else "boxes"


def coefficients_of(detector: Detector) -> int:
    """Numbers behind a detector's predictions; one that finds boxes alone need not say that they are none."""
    return int(getattr(detector, "num_coefficients", 0))


def detections_of(
    detector: Detector,
    predicted: Tensor,
    num_images: int,
    conf: float,
    iou: float,
    max_det: int = 300,
    multi_label: bool = False,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """`non_max_suppression` of what a detector predicted; what its graph has suppressed already is only thinned out.

    Returns
    -------
    Of each image (n, 6 + k) on the CPU: x1, y1, x2, y2 in pixels of the network input, confidence, class, coefficients.
    """
    if detector.nms is None:
        given: dict[str, Any] = {"form": detector.form, "num_coefficients": coefficients_of(detector)}
        found = non_max_suppression(predicted, conf, iou, max_det, multi_label, classes, **given)
        return [d.cpu() for d in found]
    images = []
    for i in range(num_images):
        rows = predicted[predicted[:, 0] == i, 1:]
        rows = rows[rows[:, 4] > conf]
        if classes is not None:
            rows = rows[torch.isin(rows[:, 5], torch.tensor(classes, dtype=rows.dtype))]
        images.append(rows[:max_det])
    return images
