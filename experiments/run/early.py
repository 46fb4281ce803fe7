"""What can be refused before torch is loaded, which takes seconds: files that are not there, sizes that do not fit.

Everything is checked again where it is used, and more than here; the messages are the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from pathlib import Path
from typing import Any

from data.classify_sets import check_set
from models.errors import InputError
from models.files import plain_content
from models.grammar import Config, load_yaml, read_config
from models.strides import POOLED, check_imgsz, strides
from spaces.space import Space

from .folder import RunFolder


def check_search(args: argparse.Namespace) -> None:
    """Space, detector, side of the images and data of a new search."""
    check_loggers(getattr(args, "logger", []))
    space = Space(read_config(args.cfg, scale=args.scale))
    if not space.decisions and getattr(args, "space", None) is None:
        raise InputError(nothing_to_search(args))
    config = read_config(space.freeze(space.upstream()), file=space.config.file)
    if args.detector is not None:
        read_config(args.detector)
    for given in (args.costs, getattr(args, "phases", None)):
        if given is not None:
            load_yaml(Path(given))
    if args.task == "classify":
        _check_side(args, config.backbone())
        check_set(args.data)
    elif args.task == "landmarks":
        _check_side(args, config.backbone())
    elif args.task == "detect" and config.has_head:
        _check_side(args, config)
        check_detection_set(args.data)


def nothing_to_search(options: Any) -> str:
    """What is said of a YAML without choices."""
    policy = "--space elastic" if hasattr(options, "space") else "oneshot_nas.py --space elastic"
    return (
        f"{options.cfg}: there is nothing to search, the YAML has no choices; {policy} lays them over any plain YAML, "
        "and models/*_nas.yaml have their own (try yolov5n_nas.yaml)"
    )


def check_training(args: argparse.Namespace) -> None:
    """What a new training of a detector begins with, side of the images and data."""
    check_loggers(args.logger)
    if args.weights is not None and not Path(args.weights).is_file():
        raise InputError(f"--weights {args.weights}: no such file")
    check_teacher(args)
    if args.supernet is not None:
        RunFolder.resume(args.supernet)
    cfg = args.cfg or plain_content(args.weights or "").get("yaml")
    if isinstance(cfg, (str, dict)):
        _check_side(args, read_config(cfg, scale=args.scale, file=str(args.weights)).require_plain())
    if cfg or args.supernet:
        check_detection_set(args.data)


def check_find(args: argparse.Namespace) -> None:
    """What `find_detector.py` begins with: data, weights, space, costs, and options that exclude each other."""
    from data.formats import spec_of

    if args.data is None:
        raise InputError("--data: pictures with boxes are needed; right would be a data.yaml or a folder")
    given = [name for name in ("hours", "quick", "epochs") if name in args.given]
    if len(given) > 1:
        raise InputError(f"--{given[0]} beside --{given[1]}: right would be one of --hours, --quick and --epochs")
    spec_of(args.data, needs=("train",))
    for weights in args.weights:
        if not Path(weights).is_file():
            raise InputError(f"--weights {weights}: no such file")
    if args.cfg is not None:
        Space(args.cfg)
    if args.costs is not None:
        load_yaml(Path(args.costs))


def check_teacher(args: argparse.Namespace) -> None:
    """The file of what is to be learnt from."""
    if args.teacher is not None and not Path(args.teacher).is_file():
        raise InputError(f"--teacher {args.teacher}: no such file")


def check_more_epochs(run: RunFolder, epochs: int) -> None:
    """`InputError` if a run has had so many epochs already."""
    file = run.path / "metrics.csv"
    done = len(file.read_text(encoding="utf-8").splitlines()) - 1 if file.is_file() else 0
    if epochs <= done:
        raise InputError(f"--epochs {epochs}: {run.path} has had {done} epochs; right would be more than {done}")


def check_weights(args: argparse.Namespace, of_levels: bool = True) -> None:
    """The file of a network in use, and side of the images: a multiple of the levels' strides, or of any row's."""
    if not Path(args.weights).is_file():
        raise InputError(f"{args.weights}: no such file")
    cfg = plain_content(args.weights).get("yaml")
    if isinstance(cfg, dict):
        _check_side(args, read_config(cfg, file=str(args.weights)), of_levels)


def check_int8(args: argparse.Namespace) -> None:
    """What an export in 8 bits needs."""
    if args.data is None:
        raise InputError("--int8: needs images to calibrate and to validate on; right would be --data")
    if args.format == "openvino":
        if missing := [name for name in ("nncf", "openvino") if importlib.util.find_spec(name) is None]:
            raise InputError(
                f"--int8 --format openvino: needs the optional package {missing[0]}; right would be: "
                "pip install nncf openvino, or --format onnx, whose INT8 file OpenVINO reads too"
            )
        if args.nms or args.float_rows:
            option = "--nms" if args.nms else "--float-rows"
            raise InputError(f"{option} is not of --int8 --format openvino, but of --int8 --format onnx")
    if not args.max_drop >= 0:
        raise InputError(f"--max-drop {args.max_drop}: right would be 0 or more; 0.01 is a point of mAP50-95")
    check_detection_set(args.data)


def check_loggers(names: list[str]) -> None:
    """`InputError` if a service's package, which is not among the requirements, is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--logger {name}: its package is not installed; right would be: pip install {name}")


def check_detection_set(source: Any) -> None:
    """`InputError` if this is no detection set."""
    from data.formats import spec_of

    spec_of(source)


def _check_side(args: argparse.Namespace, config: Config, of_levels: bool = False) -> None:
    # Modules of a plug-in may have any stride.
    found = None if args.plugin or args.imgsz is None else strides(config)
    if found is None:
        return
    if of_levels and config.has_head:
        found = [found[j] for j in config.rows[-1].sources]
    check_imgsz(args.imgsz, round(max(s for s in found if not math.isnan(s) and s < POOLED)))
