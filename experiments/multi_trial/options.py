"""Options of a multi-trial search, and those of them that its trials take. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..run.cli import (
    amount,
    archs,
    batch_size,
    fraction,
    none_or_processes,
    not_negative,
    port,
    positive_float,
    positive_int,
    processes,
    seed,
    side,
    threads,
)
from ..run.options import device_option, option, scale_option
from ..training.options import Learning

_COSTS = "costs of the detector"


@dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """Options of a trial; `multi_trial_nas.py --help` explains them."""

    task: str = option("classify is a proxy of detection", "classify", kind="task")
    cfg: Any = option("YAML of the search space", "models/yolov5n_nas.yaml")
    scale: str | None = scale_option()
    space: str | None = option("without --cfg, a space of NNI (nni:MobileNetV3)", None, metavar="nni:NAME")
    detector: Any = option(
        "YAML that gives neck, head and classes; --cfg's own head where it has one", None, advanced=True
    )
    data: str = option("as for oneshot_nas.py (classify: digits, detect: digits-detect)", None)
    data_root: str | None = option(
        "where data sets lie or are downloaded to (default: datasets/)", None, of="task", advanced=True
    )
    epochs: int = option("epochs that a candidate is trained", 3, type=positive_int)
    batch: int = option("batch size (detect: 16, others: 64)", None, type=batch_size)
    imgsz: int = option(
        "side of the images, a multiple of the stride (classify: 32, detect: 160, landmarks: 112)", None, type=side
    )
    arch_share: float | None = option(
        "share of the training images that candidates are rated on (0.2)", None, type=fraction, advanced=True
    )
    point_loss: str = option("of landmarks: squares, or wing", "l2", of="task", choices=["l2", "wing"], advanced=True)
    pose: float = option(
        "of landmarks: how much more an image counts whose pose is turned away, where the data say so",
        1.0,
        of="task",
        type=not_negative,
        advanced=True,
    )
    seed: int = option("fixes data, the weights' start and what the strategy draws", 0, type=seed)
    device: str = device_option()
    plugin: list[str] = field(default_factory=list)
    weights: str | None = option(
        "what candidates begin with: detector.pt, a YOLOv5 checkpoint or a supernet's folder, fitted to each",
        None,
        metavar="FILE",
    )
    inherit: str | None = option(
        "start candidates from the supernet of a run of oneshot_nas.py", None, metavar="RUN", advanced=True
    )
    pruner: str = option(
        "end candidates early that fall behind after an epoch: none, or Optuna's median, halving or hyperband",
        "none",
        group="trials",
        choices=["none", "median", "halving", "hyperband"],
    )
    journal: str | None = None  # what `pruner` goes by, made by the search
    threads: int = option(
        "CPU threads of each trial (default: cores / concurrency)", None, group="trials", type=threads, advanced=True
    )
    max_flops: float | None = option(
        "no candidate has more flops; known without a trial",
        None,
        group=_COSTS,
        type=amount("flops"),
        metavar="4.5G",
    )
    max_params: float | None = option(
        "no candidate has more params; known without a trial",
        None,
        group=_COSTS,
        type=amount("params"),
        metavar="2M",
    )
    max_latency: float | None = option(
        "no candidate that is slower is trained; measured",
        None,
        group=_COSTS,
        type=amount("latency"),
        metavar="8ms",
    )
    target_latency: float | None = option(
        "a candidate that is slower is worth less",
        None,
        group=_COSTS,
        type=amount("latency"),
        metavar="7ms",
        advanced=True,
    )
    target_weight: float = option(
        "metric lost for a latency twice the target",
        1.0,
        of="target_latency",
        group=_COSTS,
        type=positive_float,
        advanced=True,
    )
    costs: Any = option(
        "where latency comes from, as for search_subnets.py (default: measured by each trial, in PyTorch)",
        None,
        of=("max_latency", "target_latency"),
        group=_COSTS,
        metavar="YAML",
        advanced=True,
    )
    cost_imgsz: int = option(
        "side of the images that FLOPs and latency are meant for", 640, group=_COSTS, type=side, advanced=True
    )


@dataclass(frozen=True, kw_only=True)
class Options(Training):
    """Options of a multi-trial search; `multi_trial_nas.py --help` explains them."""

    strategy: str = option("multi-trial strategy", "random", kind="multi-trial")
    upstream_form: bool = option(
        "only archs that take no more than YOLOv5's own modules and arguments", False, advanced=True
    )
    max_trials: int = option("so many candidates are trained", 10, group="trials", type=positive_int, resumes=True)
    population: int | None = option(
        "of evolution, nsga3 and predictor (a quarter of --max-trials, 50, 10 and 20 at most)",
        None,
        of="strategy",
        group="trials",
        type=archs,
        advanced=True,
    )
    concurrency: int = option("so many at a time", 2, group="trials", type=processes, resumes=True)
    gpus: int = option(
        "GPUs of each trial; 0 leaves them all visible", 0, group="trials", type=none_or_processes, advanced=True
    )
    config: str | None = option(
        "machines to train on, see docs/multi-trial.md (default: this one)",
        None,
        group="trials",
        metavar="YAML",
        advanced=True,
    )
    port: int = option("port of the web UI", 8080, group="web UI", type=port, resumes=True)
    host: str = option(
        "address that it listens on, unencrypted", "127.0.0.1", group="web UI", resumes=True, advanced=True
    )
