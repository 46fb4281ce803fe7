"""Options of a search of a supernet, and of a look at a space. Loads no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from ..run import registry
from ..run.cli import amount, archs, batch_size, natural, positive_int, processes, seed, side
from ..run.options import device_option, option, scale_option

_LOOK, _UNTRAINED = "looking at a space", "without a supernet"
_RUN = ("plugin", "trust", "project", "name", "exist_ok")
# What each mode of `search_subnets.py` takes.
MODES = {
    "search": (
        *("supernet", "objectives", "searcher", "trials", "range", "costs", "population", "stride", "predictor"),
        *("upstream_form", "screen", "cfg", "scale", "task", "data", "data_root", "imgsz", "batch"),
        *(
            "baseline",
            "pick",
            "storage",
            "study",
            "workers",
            "seed",
            "device",
            "cost_imgsz",
            "int8",
            "calibrate",
            *_RUN,
        ),
    ),
    "sample_accuracy": (
        *("supernet", "sample_accuracy", "objectives", "range", "costs", "pick", "storage", "study", "workers"),
        *("upstream_form", "seed", "device", "cost_imgsz", "subset", "samples", "int8", "calibrate", *_RUN),
    ),
    "fidelity": ("supernet", "fidelity", "seeds", "truth", "seed", "device", "cost_imgsz", *_RUN),
    "sample_cost": ("supernet", "cfg", "scale", "sample_cost", "range", "seed", "cost_imgsz", "baseline_flops", *_RUN),
    "edf": ("edf", "range", "subset", "samples", "seed", *_RUN),
}
# What --sample-accuracy takes beside --resume.
LOOKED_AT = ("sample_accuracy", "range", "subset", "samples", "seed")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _screen(text: str) -> tuple[str, int]:
    name, _, number = text.partition(":")
    if name not in registry.names("proxy") or not number.isdecimal() or int(number) < 2:
        known = ", ".join(registry.names("proxy"))
        raise argparse.ArgumentTypeError(f"{text!r}: right would be such as naswot:4, of {known}")
    return name, int(number)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a search; `search_subnets.py --help` explains them."""

    supernet: str = option("run of oneshot_nas.py, its folder or a file in it", None, metavar="RUN")
    objectives: list[str] = option(
        "metric (or its name), or with --cfg a proxy; then costs that are to be small, separated by commas",
        ["metric", "flops"],
        type=_names,
        text="metric,flops",
    )
    searcher: str = option("what proposes the archs", "predictor", kind="searcher")
    trials: int = option("archs that are evaluated", 500, type=archs, resumes=True)
    first: list[str] = option(
        "archs that are evaluated before any other: upstream, min, max, or arch JSONs", [], nargs="+", metavar="ARCH"
    )
    range: list[str] = option(
        "no arch outside is evaluated, such as flops=200M:400M; may be repeated",
        [],
        action="append",
        metavar="COST=LOW:HIGH",
    )
    upstream_form: bool = option(
        "only archs that take no more than YOLOv5's own modules and arguments", False, advanced=True
    )
    costs: str | None = option(
        "where more costs come from, such as latency: providers, or a pool of servers", None, metavar="YAML"
    )
    population: int | None = option(
        "archs that begin, of all but tpe, gp, random, grid, coarse-to-fine and rl (by --trials)",
        None,
        of="searcher",
        type=archs,
        advanced=True,
    )
    stride: int | None = option(
        "of grid; by default such that --trials cover the space", None, of="searcher", type=positive_int, advanced=True
    )
    predictor: str = option(
        "model that chooses among proposed archs", "none", choices=["none", "mlp", "gp"], advanced=True
    )
    screen: tuple[str, int] | None = option(
        "of N proposed archs the best by a zero-cost proxy is evaluated, such as naswot:4",
        None,
        of="supernet",
        type=_screen,
        metavar="PROXY:N",
        advanced=True,
    )
    baseline: bool = option("no random search beside the search", True)
    pick: str | None = option(
        "write the detector of knee, flops<=4G or latency<=8ms", None, metavar="WHICH", resumes=True
    )
    storage: str | None = option(
        "sqlite:///…, journal:FILE, postgresql://… or grpc://HOST:PORT (default: study.db of the run)",
        None,
        metavar="URL",
        advanced=True,
    )
    study: str = option("name in the storage; one that is there is worked on together", "subnets", advanced=True)
    int8: bool = option(
        "rate archs, and time them, as ONNX in 8 bits: what export.py --int8 makes of the slice", False, of="supernet"
    )
    calibrate: int = option(
        "of its training images so many are calibrated on, none of those that rate",
        32,
        of="int8",
        type=positive_int,
        advanced=True,
    )
    workers: int = option(
        "processes that evaluate, each on a GPU of its own where there are several", 1, type=processes, advanced=True
    )
    seed: int = option("fixes the archs that are asked for", 0, type=seed)
    device: str = device_option()
    cost_imgsz: int | None = option(
        "side of the images that FLOPs are meant for (default: the supernet's)", None, type=side
    )
    plugin: list[str] = field(default_factory=list)

    cfg: str | None = option("YAML of the space, where there is no supernet", None, group=_UNTRAINED)
    scale: str | None = scale_option(group=_UNTRAINED)
    task: str | None = option(
        "what its networks are for (default: detect where it has a head)",
        None,
        of="cfg",
        kind="task",
        group=_UNTRAINED,
        advanced=True,
    )
    data: str | None = option("training images, as of oneshot_nas.py", None, of="cfg", group=_UNTRAINED)
    data_root: str | None = option(
        "where data sets lie or are downloaded to (default: datasets/)",
        None,
        of="task",
        group=_UNTRAINED,
        advanced=True,
    )
    imgsz: int | None = option(
        "side of the images (classify: 64, detect: 320)", None, of="cfg", group=_UNTRAINED, type=side, advanced=True
    )
    batch: int | None = option(
        "images that a proxy sees (classify: 64, detect: 16)",
        None,
        of="cfg",
        group=_UNTRAINED,
        type=batch_size,
        advanced=True,
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """Options of a look at a space beside those of a search."""

    sample_cost: int | None = option("costs of N random archs", None, group=_LOOK, type=archs, metavar="N")
    sample_accuracy: int | None = option(
        "evaluate N random archs, and report on them as --edf", None, group=_LOOK, type=archs, metavar="N"
    )
    edf: list[str] | None = option(
        "report on the archs of subnets.csv files", None, group=_LOOK, nargs="+", metavar="[NAME=]FILE"
    )
    subset: list[str] = option(
        "a part of the space that stands beside it in the report; may be repeated",
        [],
        group=_LOOK,
        action="append",
        metavar="NAME:LABEL=VALUE[|VALUE],…",
        advanced=True,
    )
    baseline_flops: float | None = option(
        "count the archs near it", None, group=_LOOK, type=amount("flops"), metavar="4.5G", advanced=True
    )
    fidelity: int | None = option(
        "how the supernet ranks N archs, beside what each reaches trained alone",
        None,
        group=_LOOK,
        type=archs,
        metavar="N",
    )
    seeds: int = option("trainings of each of those", 1, group=_LOOK, of="fidelity", type=positive_int, advanced=True)
    truth: str | None = option(
        "CSV of what archs reach, in place of training them",
        None,
        group=_LOOK,
        of="fidelity",
        metavar="FILE",
        advanced=True,
    )
    samples: int = option("bootstrap samples of the report", 10_000, group=_LOOK, type=natural, advanced=True)


@dataclass(frozen=True, kw_only=True)
class FidelityOptions:
    """What `--fidelity` takes of all these; a run is gone on with by ``--resume RUN --fidelity N``."""

    supernet: str
    fidelity: int
    seeds: int = 1
    truth: str | None = None
    seed: int = 0
    device: str = "auto"
    cost_imgsz: int | None = None
    plugin: list[str] = field(default_factory=list)
