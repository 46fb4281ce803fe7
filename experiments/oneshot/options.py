"""Options of a one-shot search. Loads no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Literal

from ..run import registry
from ..run.cli import (
    amount,
    archs,
    batch_size,
    fraction,
    natural,
    not_negative,
    port,
    positive_float,
    positive_int,
    processes,
    seed,
    share,
    side,
)
from ..run.options import device_option, logger_option, option, scale_option
from ..training.options import Devices, Learning

PLAIN = ("plain", "none")  # limits that are no numbers
_COSTS, _AFTERWARDS = "costs of the detector", "training afterwards"
_TAUGHT = "bignas and ofa"
_TARGETS = ("target_flops", "target_params", "target_latency")
_LATENCY = ("max_latency", "target_latency")


def strategies(text: str) -> str:
    """Type of ``--strategy``."""
    for name in text.split(","):
        if name not in registry.names("oneshot"):
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(registry.names('oneshot'))}")
    return text


@dataclass(frozen=True, kw_only=True)
class Options(Learning, Devices):
    """Options of a one-shot search; `oneshot_nas.py --help` explains them."""

    strategy: str = option("{names}; several by commas with --ui", "darts", kind="oneshot", type=strategies)
    task: str = option("classify is a proxy of detection", "classify", kind="task")
    cfg: str = option("YAML of the search space", "models/yolov5n_nas.yaml")
    scale: str | None = scale_option()
    space: str | None = option(
        "lay choices over a plain --cfg: elastic, or a policy's YAML; or, without --cfg, a space of NNI "
        "(nni:MobileNetV3)",
        None,
        metavar="POLICY",
    )
    upstream_form: bool = option(
        "only archs that take no more than YOLOv5's own modules and arguments", False, advanced=True
    )
    detector: str | None = option(
        "YAML that gives neck, head and classes (default: --cfg's own; without any, a classifier)", None, advanced=True
    )
    data: str = option(
        "classify: digits (default), cluttered-digits, fashion-mnist, cifar10, cifar100, imagenette, tinyimagenet, "
        "or a folder; "
        "detect: digits-detect (default), bccd, a data YAML, or a folder; landmarks: digits-landmarks, or a YAML",
        None,
    )
    data_root: str | None = option(
        "where data sets lie or are downloaded to (default: datasets/)", None, of="task", advanced=True
    )
    epochs: int = option("epochs over the training split", 10, type=positive_int)
    batch: int = option("batch size (detect: 16, others: 64)", None, type=batch_size)
    imgsz: int = option(
        "side of the images, a multiple of the stride (classify: 64, detect: 320, landmarks: 112)", None, type=side
    )
    weights: str | None = option(
        "what the supernet begins with: detector.pt, a YOLOv5 checkpoint, or the folder of another search of the space",
        None,
        metavar="FILE",
    )
    arch_share: float | None = option(
        "share of the training images that the architecture sees (0.5; spos, fairnas, cream, bignas, ofa: 0.2)",
        None,
        type=fraction,
        advanced=True,
    )
    arch_lr: float = option(
        "learning rate of alphas, controller or meta network (Adam)",
        0.01,
        type=positive_float,
        of="strategy",
        advanced=True,
    )
    point_loss: str = option("of landmarks: squares, or wing", "l2", of="task", choices=["l2", "wing"], advanced=True)
    pose: float = option(
        "of landmarks: how much more an image counts whose pose is turned away, where the data say so",
        1.0,
        of="task",
        type=not_negative,
        advanced=True,
    )
    seed: int = option("fixes data, weights and the arch that is found", 0, type=seed)
    device: str = device_option()
    logger: list[str] = logger_option()
    plugin: list[str] = field(default_factory=list)

    derive: Literal["probable", "perturb"] = option(
        "how the arch is decided: by the probabilities, or by measuring what the loss is without each value (DARTS-PT)",
        "probable",
        of="strategy",
        group="strategies",
        choices=["probable", "perturb"],
        advanced=True,
    )
    relax: Literal["softmax", "dirichlet"] = option(
        "of darts: a mixture by a softmax, or drawn from a Dirichlet distribution (DrNAS)",
        "softmax",
        of="strategy",
        group="strategies",
        choices=["softmax", "dirichlet"],
        advanced=True,
    )
    arch_update: Literal["gradient", "reinforce"] = option(
        "of proxyless", "gradient", of="strategy", group="strategies", choices=["gradient", "reinforce"], advanced=True
    )
    population: int = option(
        "archs a generation, of the search of spos, fairnas, bignas and ofa",
        50,
        of="strategy",
        group="strategies",
        type=archs,
        advanced=True,
    )
    board: int = option(
        "of cream: paths that others learn from at most",
        10,
        of="strategy",
        group="strategies",
        type=positive_int,
        advanced=True,
    )
    generations: int = option(
        "generations of that search", 20, of="strategy", group="strategies", type=positive_int, advanced=True
    )

    subnets: str = option("subnets of a step", "max,random,random,min", of="strategy", group=_TAUGHT, advanced=True)
    sampler: str = option(
        "of the random ones, see docs/supernets.md", "uniform", of="strategy", group=_TAUGHT, advanced=True
    )
    phases: str | None = option(
        "of ofa: YAML of what is opened when (default: the paper's)",
        None,
        of="strategy",
        group=_TAUGHT,
        metavar="YAML",
        advanced=True,
    )
    distill: str = option(
        "what the others learn from the largest: kl, alpha, mimic or none",
        "auto",
        of="strategy",
        group=_TAUGHT,
        advanced=True,
    )
    distill_rows: list[int] = option(
        "rows whose features are distilled too",
        [],
        of="strategy",
        group=_TAUGHT,
        type=int,
        nargs="*",
        metavar="ROW",
        advanced=True,
    )
    teacher: str | None = option(
        "weights, or a run's folder, to learn from in place of the largest",
        None,
        of="strategy",
        group=_TAUGHT,
        metavar="FILE",
        advanced=True,
    )
    dropout: float = option("of the largest subnet", 0.0, of="strategy", group=_TAUGHT, type=share, advanced=True)
    drop_path: float = option("of the largest subnet", 0.0, of="strategy", group=_TAUGHT, type=share, advanced=True)
    distill_boxes: Literal["ciou", "l1"] = option(
        "distance of boxes from the teacher's",
        "ciou",
        of="strategy",
        group=_TAUGHT,
        choices=["ciou", "l1"],
        advanced=True,
    )

    max_flops: float | str | None = option(
        "no result has more flops; plain: than the plain network (default without a limit, but for bignas, ofa); none",
        None,
        group=_COSTS,
        type=amount("flops", *PLAIN),
        metavar="4.5G",
    )
    max_params: float | str | None = option(
        "no result has more params; plain: than the plain network",
        None,
        group=_COSTS,
        type=amount("params", *PLAIN),
        metavar="2M",
    )
    max_latency: float | None = option(
        "no result has more latency; measured here, unless --costs tells it",
        None,
        group=_COSTS,
        type=amount("latency"),
        metavar="8ms",
    )
    target_flops: float | None = option(
        "steer the search to that many flops", None, group=_COSTS, type=amount("flops"), metavar="4G", advanced=True
    )
    target_params: float | None = option(
        "steer the search to that many params", None, group=_COSTS, type=amount("params"), metavar="1.8M", advanced=True
    )
    target_latency: float | None = option(
        "steer the search to that latency",
        None,
        group=_COSTS,
        type=amount("latency"),
        metavar="7ms",
        advanced=True,
    )
    target_weight: float = option(
        "weight of the target beside the loss", 1.0, of=_TARGETS, group=_COSTS, type=positive_float, advanced=True
    )
    costs: str | None = option(
        "where latency comes from: providers, tables among them, or a pool of servers (default: a table made here)",
        None,
        of=_LATENCY,
        group=_COSTS,
        metavar="YAML",
        advanced=True,
    )
    latency_table: str | None = option(
        "short for a table in --costs: latency by block, measured; made or completed where it is missing",
        None,
        of=_LATENCY,
        group=_COSTS,
        metavar="JSON",
        advanced=True,
    )
    cost_imgsz: int = option(
        "side of the images that FLOPs and latency are meant for", 640, group=_COSTS, type=side, advanced=True
    )

    finetune: int | None = option(
        "epochs that the result is trained, on all training images (default: as many as --epochs)",
        None,
        group=_AFTERWARDS,
        type=natural,
    )
    baseline: bool = option("compare it with no other networks", True, group=_AFTERWARDS)
    retrain: str | None = option(
        "what all networks that are trained begin with: noise or --weights, or the supernet's weights "
        "(inherited with --weights, bignas and ofa, else scratch)",
        None,
        group=_AFTERWARDS,
        choices=["scratch", "inherited", "both"],
        advanced=True,
    )
    random_archs: int = option(
        "random archs that are trained to compare with",
        3,
        of="baseline",
        group=_AFTERWARDS,
        type=natural,
        metavar="R",
        advanced=True,
    )
    seeds: int = option(
        "trainings of each network, from as many seeds; from 2 on differences have intervals",
        1,
        group=_AFTERWARDS,
        type=positive_int,
        metavar="K",
        advanced=True,
    )

    ui: int | None = option(
        "search as trials of an NNI experiment, at 127.0.0.1:PORT",
        None,
        group="web UI",
        type=port,
        metavar="PORT",
    )
    trials: int = option(
        "searches of each strategy there, from as many seeds", 1, group="web UI", type=archs, advanced=True
    )
    concurrency: int = option("searches at a time there", 1, of="ui", group="web UI", type=processes, advanced=True)
