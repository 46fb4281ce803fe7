"""Options of a training. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..run.cli import natural, not_negative, positive_float, positive_int, seed, share
from ..run.options import option

# A classifier is finetuned by Adam, as a search trains it.
OF_DETECTORS = (
    *("cfg", "supernet", "recipe", "optimizer", "momentum", "cosine", "patience", "hyp", "augment", "autoanchor"),
    *("multi_scale", "precision", "devices", "strategy", "sync_bn"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a training; `train.py --help` explains them."""

    cfg: str | None = option("YAML of the detector; that of --weights where it is left out", None)
    weights: str | None = option(
        "detector.pt, a YOLOv5 checkpoint, or a search's classifier.pt, to start from; else from scratch", None
    )
    supernet: str | None = option(
        "begin with a slice of the supernet of a run of oneshot_nas.py, --arch", None, metavar="RUN"
    )
    arch: str = option("of --supernet: max, min, upstream, or an arch JSON", "max", of="supernet")
    data: str = option(
        "a data.yaml, a folder (YOLO, COCO, VOC), digits-detect (default) or bccd; of classifiers digits", None
    )
    imgsz: int = option(
        "side of the images, a multiple of the stride (640; of classifiers as trained)", None, type=positive_int
    )
    epochs: int = option("epochs", 100, type=positive_int)
    batch: int = option("images to a batch, over all devices", 16, type=positive_int)
    recipe: str = option("yolov5: its defaults; auto: scaled to the data", "auto", choices=["auto", "yolov5"])
    optimizer: str = option("optimizer", "sgd", choices=["sgd", "adamw"])
    lr0: float | None = option(
        "learning rate after warm-up (sgd: 0.01, adamw and classifiers: 0.001; slices: a tenth)",
        None,
        type=positive_float,
    )
    lrf: float = option("learning rate at the end, as a share of --lr0", 0.01, type=positive_float)
    momentum: float = option("momentum of sgd, first beta of adamw", 0.937, type=share)
    weight_decay: float = option("weight decay at a nominal batch of 64", 0.0005, type=not_negative)
    cosine: bool = option("learning rate by a cosine instead of a line", False)
    patience: int = option("stop after as many epochs without a better mAP; 0: never", 100, type=natural)
    hyp: dict[str, float] = option(
        "augmentation, such as mosaic=0.5 mixup=0.1", {}, of="augment", nargs="+", metavar="NAME=VALUE"
    )
    augment: bool = option("no augmentation at all", True)
    autoanchor: bool = option("keep the YAML's anchors whatever the data", True)
    multi_scale: bool = option("vary the side of the images by half, from batch to batch", False)
    precision: str = option("auto: 16-mixed on CUDA", "auto", choices=["auto", "32", "16-mixed", "bf16-mixed"])
    seed: int = option("fixes weights, order and augmentation", 0, type=seed)
    device: str = option("auto, cpu or cuda", "auto")
    devices: int = option("number of devices, or of processes on the CPU", 1, type=positive_int)
    strategy: str = option("Lightning's, such as ddp", "auto")
    sync_bn: bool = option("batch norm statistics over all CUDA devices", False)
    workers: int | None = option(
        "processes that load data (default: 0 on the CPU, up to 8 on CUDA)", None, type=natural
    )
    plugin: list[str] = field(default_factory=list)
