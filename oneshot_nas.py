#!/usr/bin/env python3
"""Search a YOLOv5-style backbone with a one-shot strategy and write a full detector."""

from __future__ import annotations

import argparse
import sys

from experiments.cli import positive_float, positive_int, run_script

DEFAULTS = {
    "classify": {"data": "digits", "imgsz": 64, "batch": 64},
    "detect": {"data": "digits-detect", "imgsz": 320, "batch": 16},
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--strategy", default="darts", choices=["darts"], help="one-shot strategy")
    add("--task", default="classify", choices=["classify", "detect"], help="the classification proxy, or detection")
    add("--cfg", default="models/yolov5n_nas.yaml", help="YAML of the search space")
    add("--detector", help="YAML that gives neck, head and classes; --cfg's own head where it has one")
    add(
        "--data",
        help="classify: digits (default), fashion-mnist, cifar10, imagenette, tinyimagenet, or a folder; "
        "detect: digits-detect (default), bccd, a data YAML, or a folder",
    )
    add("--data-root", help="where data sets lie or are downloaded to (default: datasets/)")
    add("--epochs", type=positive_int, default=10, help="epochs over the training split")
    add("--batch", type=positive_int, help="batch size (classify: 64, detect: 16)")
    add("--imgsz", type=positive_int, help="side of the images, a multiple of the stride (classify: 64, detect: 320)")
    add("--lr", type=positive_float, default=0.001, help="learning rate of the weights (Adam)")
    add("--arch-lr", type=positive_float, default=0.01, help="learning rate of the architecture (Adam)")
    add("--seed", type=int, default=0, help="fixes data, weights and the arch that is found")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--plugin", nargs="*", default=[], metavar="FILE", help="Python files that register modules of your own")
    add("--no-baseline", dest="baseline", action="store_false", help="do not train the result and the plain network")
    add("--project", default="runs/oneshot_nas", help="folder of runs")
    add("--name", default="exp", help="name of this run; a number is added where it is taken")
    add("--exist-ok", action="store_true", help="write into the folder of an earlier run of this name")
    add("--resume", metavar="RUN", help="go on with an interrupted run, given its folder; it keeps its options")
    args = parser.parse_args(argv)
    for name, value in DEFAULTS[args.task].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(args: argparse.Namespace) -> None:
    from experiments.oneshot import Options, search
    from experiments.run_folder import RunFolder

    if args.resume:
        run, saved = RunFolder.resume(args.resume)
        options = Options(**saved)
    else:
        options = Options(**{k: v for k, v in vars(args).items() if k in Options.__dataclass_fields__})
        run = RunFolder(args.project, args.name, args.exist_ok)
    try:
        search(options, run, resume=bool(args.resume))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with --resume {run.path}") from None


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
