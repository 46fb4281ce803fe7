"""Options of `find_detector.py`. Loads no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from ..run.cli import amount, archs, batch_size, fraction, natural, positive_float, positive_int, seed, side
from ..run.cli import threads as cores
from ..run.options import device_option, option

_LIMITS, _TIME, _MORE = "what the detector may cost", "how long it may take", "more"


def _share(text: str) -> float:
    """Of mAP: 0.6, or 60 for the same."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; right would be 0.6") from None
    value = value / 100 if value > 1 else value
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: mAP50-95 is a share; right would be 0.6")
    return value


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run; `find_detector.py --help` explains them."""

    data: str = option("pictures with boxes: a data.yaml, a folder (YOLO, COCO, VOC), digits-detect or bccd", None)
    weights: list[str] = option(
        "detector.pt, or YOLOv5 checkpoints, to begin with (default: yolov5n and yolov5s from scratch)",
        [],
        nargs="+",
        metavar="FILE",
    )
    cfg: str | None = option(
        "YAML of the search space, or a plain one that choices are laid over (default: by what was measured)", None
    )
    int8: bool = option("model-int8.onnx too, where it loses no more than a point of mAP50-95", False)

    max_latency: float | None = option(
        "most latency as exported, of one image", None, group=_LIMITS, type=amount("latency"), metavar="8ms"
    )
    max_flops: float | None = option("most FLOPs", None, group=_LIMITS, type=amount("flops"), metavar="4.5G")
    max_params: float | None = option("most parameters", None, group=_LIMITS, type=amount("params"), metavar="2M")
    min_map: float | None = option(
        "the fastest that has this mAP50-95 on the validation images", None, group=_LIMITS, type=_share, metavar="0.6"
    )
    costs: str | None = option(
        "where latency comes from, such as a board (default: ONNX Runtime on this machine's CPU)",
        None,
        group=_LIMITS,
        metavar="YAML",
        advanced=True,
    )
    threads: int | None = option(
        "of ONNX Runtime where it is timed (default: PyTorch's number)", None, group=_LIMITS, type=cores, advanced=True
    )

    hours: float | None = option("time for all of it (1)", None, group=_TIME, type=positive_float)
    quick: bool = option("a small run, to see what comes of it", False, group=_TIME)
    epochs: int | None = option(
        "epochs of each training, in place of --hours (a finetuning: half of them)",
        None,
        group=_TIME,
        type=positive_int,
    )
    trials: int | None = option(
        "archs that the search rates (by the time)", None, group=_TIME, type=archs, advanced=True
    )

    imgsz: int | None = option(
        "side of the images, a multiple of the stride (default: by the data, at most 640)",
        None,
        group=_MORE,
        type=side,
    )
    sizes: list[int] = option(
        "sides that are searched (default: three around the limit)",
        [],
        group=_MORE,
        nargs="+",
        type=side,
        metavar="SIDE",
        advanced=True,
    )
    batch: int = option("images to a batch", 16, group=_MORE, type=batch_size)
    finalists: int = option("archs of the front that are finetuned", 3, group=_MORE, type=positive_int, advanced=True)
    equal_time: bool = option(
        "also train each plain network for as long as all that searching takes; not within --hours",
        False,
        group=_MORE,
        advanced=True,
    )
    fidelity: int = option(
        "tell how the supernet ranks so many archs, each trained alone as long as it was; not within --hours",
        0,
        group=_MORE,
        type=natural,
        advanced=True,
    )
    share: float = option(
        "of the images, for validation and for test, where the data have none",
        0.15,
        group=_MORE,
        type=fraction,
        advanced=True,
    )
    seed: int = option("fixes splits, weights and what is searched", 0, group=_MORE, type=seed)
    device: str = device_option(_MORE)
    precision: str = option(
        "of the trainings; auto: 16-mixed on CUDA",
        "auto",
        group=_MORE,
        choices=["auto", "32", "16-mixed", "bf16-mixed"],
        advanced=True,
    )
    plugin: list[str] = field(default_factory=list)

    @property
    def limits(self) -> dict[str, float]:
        """Name of a cost to its limit, where there is one."""
        given = {"latency": self.max_latency, "flops": self.max_flops, "params": self.max_params}
        return {name: limit for name, limit in given.items() if limit is not None}
