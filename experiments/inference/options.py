"""Options of what is done with a network that is there. Loads no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from models import limits
from models.errors import shown

from ..run.cli import NamedValues, archs, batch_size, natural, none_or_processes, positive_int, seed, side
from ..run.options import device_option, option

# What a supernet's run says, and what only detectors have.
OF_RUN = ("data", "classes", "single_cls", "imgsz", "batch", "split", "workers")
OF_DETECTORS = ("conf", "iou", "max_det", "save_json", "classes", "single_cls")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Options of a detection; `detect.py --help` explains them."""

    weights: str = option("detector.pt, a YOLOv5 checkpoint, or model.onnx that export.py wrote")
    source: list[str] = option("images or videos: files, folders, or patterns such as 'a/*.jpg'", nargs="+")
    imgsz: int | None = option("longer side in pixels; None: as trained, or 640", None, type=side)
    conf: float = option("detections have more than this confidence", 0.25, type=float)
    iou: float = option("of two boxes that overlap more, the less confident goes", 0.45, type=float)
    max_det: int = option("most detections of an image", 300, type=positive_int)
    rect: bool = option("do not pad images to squares: faster; not for ONNX", False)
    classes: list[str] | None = option("only these, by name or by number", None, nargs="+")
    device: str = device_option()
    save_txt: bool = option(
        "write labels/*.txt, as train.py reads them: class, centre, size as shares; label maps as labels/*.png", False
    )
    save_conf: bool = option("with the confidence as a sixth number, which labels do not have", False, of="save_txt")
    save_crop: bool = option("write what is in each box into crops/CLASS/", False)
    save_json: bool = option("write detections.json", False)
    save: bool = option("write no pictures and videos", True)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Options of a validation; `val.py --help` explains them."""

    weights: str = option(
        "detector.pt, classifier.pt, a YOLOv5 checkpoint, or model.onnx of export.py", None, group="what"
    )
    supernet: str | None = option(
        "run of oneshot_nas.py: its subnets, on its own data", None, group="what", metavar="RUN"
    )
    arch: list[str] = option(
        "of --supernet: max, min, upstream, or arch JSONs", ["max", "min"], of="supernet", nargs="+"
    )
    data: str = option(
        "a data.yaml, a folder (YOLO, COCO, VOC), digits-detect (default) or bccd; of classifiers digits", None
    )
    classes: list[str] | None = option("only these of the data's, as of train.py", None, nargs="+")
    single_cls: bool = option("all classes as one", False)
    imgsz: int | None = option("side of the images in pixels; None: as trained, or 640", None, type=side)
    batch: int = option("images at a time", 32, type=batch_size)
    split: str = option("which images", "val", choices=["val", "test", "train"])
    conf: float = option("detections have more than this confidence", 0.001, type=float)
    iou: float = option("of two boxes that overlap more, the less confident goes", 0.6, type=float)
    max_det: int = option("most detections of an image", 300, type=positive_int)
    device: str = device_option()
    workers: int = option("processes that load data", 0, type=none_or_processes)
    save_json: bool = option("write predictions.json, as COCO has it", False)


def batch(text: str) -> int | None:
    """Type of ``--batch``: a number, or None for ``dynamic``."""
    if text == "dynamic":
        return None
    value = int(text)
    if not 1 <= value <= limits.BATCH:
        raise argparse.ArgumentTypeError(f"must be 1 to {limits.BATCH:,} or dynamic, got {shown(text)}")
    return value


@dataclass(frozen=True, kw_only=True)
class Export:
    """Options of an export; `export.py --help` explains them."""

    weights: str = option("detector.pt, classifier.pt, or a YOLOv5 checkpoint")
    format: str = option(
        "openvino needs the package openvino; yolov5: YAML and weights as YOLOv5 itself builds and loads them",
        "onnx",
        choices=["onnx", "openvino", "yolov5"],
    )
    output: str | None = option(
        "file to write; None: beside the weights, with the suffix .onnx (-int8.onnx), .xml or -yolov5.yaml", None
    )
    imgsz: int | None = option("side of the images in pixels; None: as trained, or 640", None, type=side)
    opset: int = option("of the ONNX file", 17, type=int)
    batch: int | None = option("images at a time: a number, or dynamic", None, type=batch, text="dynamic")
    nms: bool = option("non-maximum suppression in the graph, with the next three", False)
    conf: float = option("detections have more than this confidence", 0.25, of="nms", type=float)
    iou: float = option("of two boxes that overlap more, the less confident goes", 0.45, of="nms", type=float)
    max_det: int = option("most detections of an image", 300, of="nms", type=positive_int)
    source: list[str] | None = option(
        "images to compare with: files, folders or patterns; None: random ones", None, nargs="+"
    )
    int8: bool = option(
        "a detector in 8 bits, measured beside the float one, with the options of this group", False, group="int8"
    )
    data: str | None = option(
        "detection set: calibrates on its training images, validates on its val", None, of="int8", group="int8"
    )
    calibrate: int = option("training images to calibrate on", 128, of="int8", group="int8", type=positive_int)
    max_drop: float = option("most mAP50-95 to lose; 0.01 is a point", 0.01, of="int8", group="int8", type=float)
    float_rows: list[int] = option(
        "rows of the YAML to leave in float", [], of="int8", group="int8", nargs="+", type=natural
    )
    force: bool = option("write the file whatever is lost", False, of="int8", group="int8")


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Options of a look at data; `python -m experiments.inference.preview --help` explains them."""

    data: str = option("a data.yaml, a folder (YOLO, COCO, VOC), digits-detect or bccd")
    out: str = option("picture to write: .jpg or .png", "preview.jpg")
    split: str = option("which images", "train", choices=["train", "val"])
    images: int = option("how many, spread over the split", 16, type=archs)
    imgsz: int = option("side of the images in pixels", 640, type=side)
    augment: bool = option("as a training sees them, by mosaic, scale, colour and the rest of --hyp", False)
    hyp: dict[str, float] = option(
        "augmentation, as of train.py: mosaic=0.5 mixup=0.1, or a file",
        {},
        of="augment",
        nargs="+",
        action=NamedValues,
        metavar="NAME=VALUE",
    )
    epoch: int = option("of the augmentation", 1, of="augment", type=positive_int)
    seed: int = option("of the augmentation, as of train.py", 0, of="augment", type=seed)
    classes: list[str] | None = option("only these of the data's, as of train.py", None, nargs="+")
    single_cls: bool = option("all classes as one", False)
