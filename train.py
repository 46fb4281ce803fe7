#!/usr/bin/env python3
"""Train a detector on your own data, from a YAML or from weights. Or finetune a classifier that a search left."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

from experiments.run.cli import (
    add_plugin_option,
    add_run_options,
    natural,
    not_negative,
    parse_args,
    positive_float,
    positive_int,
    refuse,
    run_or_resume,
    run_script,
    seed,
    share,
)

# A classifier is finetuned by Adam, as a search trains it.
OF_DETECTORS = (
    *("cfg", "supernet", "recipe", "optimizer", "momentum", "cosine", "patience", "hyp", "augment", "autoanchor"),
    *("multi_scale", "precision", "devices", "strategy", "sync_bn"),
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg", help="YAML of the detector; that of --weights where it is left out")
    add(
        "--weights",
        help="detector.pt, a YOLOv5 checkpoint, or a search's classifier.pt, to start from; else from scratch",
    )
    add("--supernet", metavar="RUN", help="begin with a slice of the supernet of a run of oneshot_nas.py, --arch")
    add("--arch", default="max", help="of --supernet: max, min, upstream, or an arch JSON")
    add(
        "--data", help="a data.yaml, a folder (YOLO, COCO, VOC), digits-detect (default) or bccd; of classifiers digits"
    )
    add(
        "--imgsz",
        type=positive_int,
        help="side of the images, a multiple of the stride (640; of classifiers as trained)",
    )
    add("--epochs", type=positive_int, default=100, help="epochs")
    add("--batch", type=positive_int, default=16, help="images to a batch, over all devices")
    add("--recipe", default="auto", choices=["auto", "yolov5"], help="yolov5: its defaults; auto: scaled to the data")
    add("--optimizer", default="sgd", choices=["sgd", "adamw"], help="optimizer")
    add(
        "--lr0",
        type=positive_float,
        help="learning rate after warm-up (sgd: 0.01, adamw and classifiers: 0.001; slices: a tenth)",
    )
    add("--lrf", type=positive_float, default=0.01, help="learning rate at the end, as a share of --lr0")
    add("--momentum", type=share, default=0.937, help="momentum of sgd, first beta of adamw")
    add("--weight-decay", type=not_negative, default=0.0005, help="weight decay at a nominal batch of 64")
    add("--cosine", action="store_true", help="learning rate by a cosine instead of a line")
    add("--patience", type=natural, default=100, help="stop after as many epochs without a better mAP; 0: never")
    add("--hyp", nargs="+", default=[], metavar="NAME=VALUE", help="augmentation, such as mosaic=0.5 mixup=0.1")
    add("--no-augment", dest="augment", action="store_false", help="no augmentation at all")
    add("--no-autoanchor", dest="autoanchor", action="store_false", help="keep the YAML's anchors whatever the data")
    add("--multi-scale", action="store_true", help="vary the side of the images by half, from batch to batch")
    add("--precision", default="auto", choices=["auto", "32", "16-mixed", "bf16-mixed"], help="auto: 16-mixed on CUDA")
    add("--seed", type=seed, default=0, help="fixes weights, order and augmentation")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--devices", type=positive_int, default=1, help="number of devices, or of processes on the CPU")
    add("--strategy", default="auto", help="Lightning's, such as ddp")
    add("--sync-bn", action="store_true", help="batch norm statistics over all CUDA devices")
    add("--workers", type=natural, help="processes that load data (default: 0 on the CPU, up to 8 on CUDA)")
    add_plugin_option(parser)
    add_run_options(parser, "runs/train", resumes=True)
    args = parse_args(parser, argv)
    try:
        args.hyp = {name: float(value) for name, value in (item.split("=", 1) for item in args.hyp)}
    except ValueError:
        parser.error(f"--hyp {' '.join(args.hyp)}: right would be NAME=NUMBER, such as mosaic=0.5")
    return args


def main(args: argparse.Namespace) -> None:
    from experiments.training.train import Options, new_run, train
    from models.files import is_classifier

    classifies = args.weights is not None and is_classifier(args.weights)
    if classifies:
        refuse(args, OF_DETECTORS, f"is of detectors, and {args.weights} is a classifier")
    if args.supernet is None:
        refuse(args, ["arch"], "is of --supernet")
    args.data = args.data or ("digits" if classifies else "digits-detect")
    args.imgsz = args.imgsz or (None if classifies else 640)
    run_or_resume(args, Options, functools.partial(train, slice_of=_slice_of), new_run)


def _slice_of(supernet: str, arch: str) -> Any:
    from experiments.supernets.subnets import start_of_slice

    return start_of_slice(supernet, arch)


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
