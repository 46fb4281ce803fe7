"""From the options of `export.py` to a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from data import UnreadableImageError, letterbox, read_rgb, to_tensor
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, load_classifier
from models.strides import check_imgsz
from models.upstream import load_weights
from optimizer.exporters import NMS, TOLERANCE, Exported, export_onnx, export_openvino
from optimizer.yolov5 import TOLERANCE as YOLOV5_TOLERANCE
from optimizer.yolov5 import Yolov5Export, export_yolov5

from .detectors import DEFAULT_IMGSZ
from .options import Export
from .predict import find_sources

_MAX_IMAGES = 16  # to compare with


def convert(options: Export) -> Exported | Yolov5Export:
    """Write the file and say what was compared."""
    if options.format == "yolov5":
        return _for_yolov5(options)
    model, content = (load_classifier if is_classifier(options.weights) else load_weights)(options.weights)
    imgsz = check_imgsz(options.imgsz or content.get("imgsz", DEFAULT_IMGSZ), model.imgsz_multiple)
    suffix, write = (".onnx", export_onnx) if options.format == "onnx" else (".xml", export_openvino)
    ending = f"-int8{suffix}" if options.int8 else suffix
    path = Path(options.output or Path(options.weights).with_name(f"{Path(options.weights).stem}{ending}"))
    if path.suffix != suffix:
        raise InputError(f"--output {path}: right would be a file that ends in {suffix}")
    nms = NMS(options.conf, options.iou, options.max_det) if options.nms else None
    images = None if options.source is None else _images(options.source, imgsz)
    arch = content.get("arch")
    if options.int8:
        if not isinstance(model, Model):
            raise InputError(f"--int8 is of detectors, and {options.weights} is a classifier")
        if options.format == "openvino":
            from .int8_openvino import quantize_openvino

            done, _ = quantize_openvino(model, options, path, imgsz, images, arch)
        else:
            from .int8 import quantize

            done, _ = quantize(model, options, path, imgsz, nms, images, arch)
    else:
        done = write(model, path, imgsz, options.opset, options.batch, nms, images, arch)

    detections = ""
    if done.num_detections is not None:
        detections = f"; the same {done.num_detections:,} detections, of random predictions too"
    what = "predictions of the float file" if options.int8 else f"predictions of {path.name}"
    batches = f"in batches of {', '.join(map(str, done.batches))}"
    print(f"{what} and of {options.weights} compared on {_kind(images)} images {batches}:")
    print(f"{done.difference.said(TOLERANCE)}{detections}")
    size = sum(p.stat().st_size for p in (path, path.with_suffix(".bin")) if p == path or options.format == "openvino")
    print(f"{path}: {size / 1e6:.1f} MB, opset {done.opset}, {imgsz} pixels")
    return done


def _for_yolov5(options: Export) -> Yolov5Export:
    """Write YAML and weights for YOLOv5; what a user of it has to know is said."""
    weights = Path(options.weights)
    if is_classifier(weights):
        raise InputError(f"{weights}: a classifier's; --format yolov5 is of detectors")
    path = Path(options.output or weights.with_name(f"{weights.stem}-yolov5.yaml"))
    if path.suffix != ".yaml" or path.with_suffix(".pt").resolve() == weights.resolve():
        raise InputError(f"--output {path}: right would be a .yaml beside which a .pt can be written")
    model, content = load_weights(weights)
    imgsz = check_imgsz(options.imgsz or content.get("imgsz", DEFAULT_IMGSZ), model.imgsz_multiple)
    images = None if options.source is None else _images(options.source, imgsz)
    done = export_yolov5(model, path, imgsz, images)

    form, num_rows = done.form, len(done.form.raw["backbone"]) + len(done.form.raw["head"])
    print(f"predictions of the written rows and of {weights} compared on {_kind(images)} images:")
    print(done.difference.said(YOLOV5_TOLERANCE))
    split = f", of {', '.join(map(str, form.split))} of which the parts are written" if form.split else ""
    print(f"{path}: {num_rows} rows for {len(model.config.rows)}{split}; weights: {path.with_suffix('.pt')}")
    if form.odd:
        row, width = next(iter(form.odd.items()))
        print(
            f"channel_multiple: 1 is in it, as row {row} is {width} channels wide, no multiple of 8: YOLOv5 v7.0 and "
            "earlier do not know that key and would build other widths; its later commits do"
        )
    return done


def _kind(images: Tensor | None) -> str:
    return "random" if images is None else f"{len(images)} real"


def _images(given: list[str], imgsz: int) -> Tensor:
    """float32 (n, 3, imgsz, imgsz) from 0 to 1, of the first that can be read."""
    images: list[Tensor] = []
    for source in find_sources(given):
        if source.is_video or len(images) == _MAX_IMAGES:
            continue
        try:
            images.append(to_tensor(letterbox(read_rgb(source.path), imgsz)[0]))
        except UnreadableImageError as e:
            print(f"{source.path}: skipped, cannot be read ({e})")
    if not images:
        raise InputError(f"--source {' '.join(given)}: no image that can be read")
    return torch.stack(images).float() / 255
