#!/usr/bin/env python3
"""Measure a detector on a data set: COCO's mAP over all classes and each, and its speed. Or subnets of a supernet."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from experiments.run.cli import (
    add_plugin_option,
    add_run_options,
    natural,
    parse_args,
    positive_int,
    refuse,
    run_script,
)

# What a supernet's run says, and what only detectors have.
OF_RUN = ("data", "imgsz", "batch", "split", "workers")
OF_DETECTORS = ("conf", "iou", "max_det", "save_json")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", help="detector.pt, classifier.pt, a YOLOv5 checkpoint, or model.onnx of export.py")
    what.add_argument("--supernet", metavar="RUN", help="run of oneshot_nas.py: its subnets, on its own data")
    add("--arch", nargs="+", default=["max", "min"], help="of --supernet: max, min, upstream, or arch JSONs")
    add(
        "--data", help="a data.yaml, a folder (YOLO, COCO, VOC), digits-detect (default) or bccd; of classifiers digits"
    )
    add("--imgsz", type=positive_int, help="side of the images in pixels; None: as trained, or 640")
    add("--batch", type=positive_int, default=32, help="images at a time")
    add("--split", default="val", choices=["val", "test", "train"], help="which images")
    add("--conf", type=float, default=0.001, help="detections have more than this confidence")
    add("--iou", type=float, default=0.6, help="of two boxes that overlap more, the less confident goes")
    add("--max-det", type=positive_int, default=300, help="most detections of an image")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--workers", type=natural, default=0, help="processes that load data")
    add("--save-json", action="store_true", help="write predictions.json, as COCO has it")
    add_plugin_option(parser)
    add_run_options(parser, "runs/val")
    return parse_args(parser, argv)


def main(args: argparse.Namespace) -> None:
    from experiments.run.folder import RunFolder
    from models.files import is_classifier

    classifies = args.weights is not None and is_classifier(args.weights)
    if args.supernet is not None:
        refuse(args, (*OF_RUN, *OF_DETECTORS), "the subnets of --supernet are measured as its run measures")
    else:
        refuse(args, ["arch"], "is of --supernet")
    if classifies:
        refuse(args, OF_DETECTORS, f"is of detectors, and {args.weights} is a classifier")
    args.data = args.data or ("digits" if classifies else "digits-detect")
    run = RunFolder(args.project, args.name, args.exist_ok)
    if args.supernet is not None:
        from experiments.supernets.subnets import Options as SubnetOptions
        from experiments.supernets.subnets import measure_subnets

        measure_subnets(_options(SubnetOptions, args), run)
    else:
        from experiments.inference.validate import Options, validate

        validate(_options(Options, args), run)


def _options(kind: Any, args: argparse.Namespace) -> Any:
    return kind(**{k: v for k, v in vars(args).items() if k in kind.__dataclass_fields__})


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
