"""Options of a training. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..run.cli import (
    NamedValues,
    amount,
    batch_or_auto,
    batch_size,
    fraction,
    natural,
    none_or_processes,
    not_negative,
    positive_float,
    positive_int,
    processes,
    seed,
    share,
    side,
)
from ..run.options import device_option, logger_option, option, scale_option

_LEARNING, _DEVICES = "how weights are trained, alike in all scripts", "devices"
# Of detectors alone.
OF_DETECTORS = (
    *("cfg", "supernet", "hyp", "augment", "autoanchor", "classes", "single_cls"),
    *("devices", "num_nodes", "strategy", "sync_bn"),  # a classifier's epochs are judged by one process
)


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How weights are trained, by every script alike; their ``--help`` explains it."""

    recipe: str = option(
        "yolov5: its defaults; auto: scaled to the data",
        "auto",
        group=_LEARNING,
        choices=["auto", "yolov5"],
        advanced=True,
    )
    optimizer: str | None = option(
        "optimizer (detectors: sgd, classifiers: adamw)",
        None,
        group=_LEARNING,
        type=str.lower,
        choices=["sgd", "adamw"],
        advanced=True,
    )
    lr0: float | None = option(
        "learning rate after warm-up (sgd: 0.01, adamw: 0.001; a supernet's slices: a tenth)",
        None,
        group=_LEARNING,
        type=positive_float,
        advanced=True,
    )
    lrf: float = option(
        "learning rate at the end, as a share of --lr0", 0.01, group=_LEARNING, type=positive_float, advanced=True
    )
    momentum: float = option("momentum of sgd, first beta of adamw", 0.937, group=_LEARNING, type=share, advanced=True)
    weight_decay: float = option(
        "weight decay at a nominal batch of 64", 0.0005, group=_LEARNING, type=not_negative, advanced=True
    )
    cosine: bool = option("learning rate by a cosine instead of a line", False, group=_LEARNING, advanced=True)
    hyp: dict[str, float] = option(
        "augmentation of detection, such as mosaic=0.5 mixup=0.1",
        {},
        of="augment",
        group=_LEARNING,
        nargs="+",
        action=NamedValues,
        metavar="NAME=VALUE",
        advanced=True,
    )
    augment: bool = option("no augmentation at all", True, group=_LEARNING, advanced=True)
    multi_scale: bool = option(
        "vary the side of the images by half, from batch to batch", False, group=_LEARNING, advanced=True
    )
    precision: str = option(
        "auto: 16-mixed on CUDA",
        "auto",
        group=_DEVICES,
        choices=["auto", "32", "16-mixed", "bf16-mixed"],
        advanced=True,
    )
    workers: int | None = option(
        "processes that load data (default: 0 on the CPU, up to 8 on CUDA)",
        None,
        group=_DEVICES,
        type=none_or_processes,
        advanced=True,
    )

    @property
    def solver(self) -> str:
        """Name of the optimizer."""
        return self.optimizer or "sgd"

    @property
    def rate(self) -> float:
        """The learning rate after warm-up."""
        return self.lr0 or (0.01 if self.solver == "sgd" else 0.001)


def learning_of(options: Any) -> Learning:
    """How the weights of a run were trained, of its options; what they do not say is as it is by default."""
    return Learning(**{f.name: getattr(options, f.name) for f in fields(Learning) if hasattr(options, f.name)})


@dataclass(frozen=True, kw_only=True)
class Devices:
    """How many devices share a training, alike in all scripts that can."""

    devices: int = option(
        "number of devices, or of processes on the CPU", 1, group=_DEVICES, type=processes, advanced=True
    )
    num_nodes: int = option("number of machines, each with --devices", 1, group=_DEVICES, type=processes, advanced=True)
    sync_bn: bool = option("batch norm statistics over all CUDA devices", False, group=_DEVICES, advanced=True)


@dataclass(frozen=True, kw_only=True)
class Options(Learning, Devices):
    """Options of a training; `train.py --help` explains them."""

    cfg: str | None = option("YAML of the detector; that of --weights where it is left out", None)
    scale: str | None = scale_option()
    weights: str | None = option(
        "detector.pt, a YOLOv5 checkpoint, or a search's classifier.pt, to start from; else from scratch", None
    )
    supernet: str | None = option(
        "begin with a slice of the supernet of a run of oneshot_nas.py, --arch", None, metavar="RUN"
    )
    arch: str = option("of --supernet: max, min, upstream, or an arch JSON", "max", of="supernet")
    teacher: str | None = option(
        "detector.pt (or classifier.pt) to learn from, beside the labels; a larger one, or one trained for longer",
        None,
        metavar="FILE",
    )
    distill: str = option(
        "what is learnt from --teacher: its logits, the features that its head sees, or both",
        "logits",
        of="teacher",
        choices=["logits", "features", "both"],
    )
    distill_weight: float = option(
        "of what is learnt from --teacher, beside the labels' loss",
        1.0,
        of="teacher",
        type=positive_float,
        advanced=True,
    )
    distill_temperature: float = option(
        "softens the classes of --teacher's logits", 1.0, of="teacher", type=positive_float, advanced=True
    )
    data: str = option(
        "a data.yaml, a folder (YOLO, COCO, VOC), digits-detect (default) or bccd; of classifiers digits", None
    )
    classes: list[str] | None = option("only these of the data's, by name or number: person,car", None, nargs="+")
    single_cls: bool = option("all classes as one", False, advanced=True)
    imgsz: int = option(
        "side of the images, a multiple of the stride (640; of classifiers as trained)", None, type=side
    )
    epochs: int = option("epochs; beside --resume more than the run has had", 100, type=positive_int, resumes=True)
    batch: int = option(
        "images to a batch, over all devices; auto: as many as 70 %% of the free memory of a CUDA device takes",
        16,
        type=batch_or_auto,
    )
    patience: int = option("stop after as many epochs without a better result; 0: never", 100, type=natural)
    autoanchor: bool = option("keep the YAML's anchors whatever the data", True, advanced=True)
    seed: int = option("fixes weights, order and augmentation", 0, type=seed)
    device: str = device_option()
    logger: list[str] = logger_option()
    strategy: str = option("Lightning's, such as ddp", "auto", group=_DEVICES, advanced=True)
    plugin: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Pruning(Learning):
    """Options of a pruning; `prune.py --help` explains them."""

    weights: str = option("detector.pt or classifier.pt of this project, or a YOLOv5 checkpoint", None)
    sparsity: float | None = option("share of the channels that go", None, group="target", type=fraction)
    to_flops: float | None = option(
        "no more FLOPs than these", None, group="target", type=amount("flops"), metavar="3G"
    )
    to_params: float | None = option(
        "no more parameters than these", None, group="target", type=amount("params"), metavar="1.5M"
    )
    to_latency: float | None = option(
        "no more milliseconds an image than these, as measured here",
        None,
        group="target",
        type=amount("latency"),
        metavar="8ms",
    )
    backend: str = option(
        "what --to-latency is measured with",
        "torch",
        of="to_latency",
        choices=["torch", "compile", "onnxruntime", "openvino"],
        advanced=True,
    )
    method: str = option(
        "what is important: norms of filters, distance from their geometric median, what the loss says (with --data)",
        "l1",
        choices=["l1", "l2", "fpgm", "taylor", "random"],
    )
    scope: str = option(
        "global: the least important of all layers; layer: of each its share",
        "global",
        choices=["global", "layer"],
        advanced=True,
    )
    multiple: int = option("widths are multiples of it", 8, type=positive_int, advanced=True)
    data: str | None = option("to finetune, to measure before and after, and for --method taylor; as of train.py", None)
    imgsz: int | None = option("side of the images in pixels (as trained, or 640)", None, type=side)
    epochs: int = option("of finetuning, after every step; 0: none", 0, of="data", type=natural)
    steps: int = option("prune in so many steps, with finetuning after each", 1, of="epochs", type=positive_int)
    batch: int = option("images to a batch", 16, type=batch_size)
    batches: int = option("that --method taylor looks at", 16, of="data", type=positive_int, advanced=True)
    seed: int = option("fixes order, augmentation and --method random", 0, type=seed)
    device: str = device_option()
    plugin: list[str] = field(default_factory=list)
