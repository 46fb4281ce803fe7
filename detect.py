#!/usr/bin/env python3
"""Detect in images and videos: pictures with boxes, and labels or JSON where wanted."""

from __future__ import annotations

import argparse
import sys

from experiments.run.cli import add_plugin_option, add_run_options, positive_int, run_script


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--weights", required=True, help="detector.pt, a YOLOv5 checkpoint, or model.onnx that export.py wrote")
    add("--source", nargs="+", required=True, help="images or videos: files, folders, or patterns such as 'a/*.jpg'")
    add("--imgsz", type=positive_int, help="longer side in pixels; None: as trained, or 640")
    add("--conf", type=float, default=0.25, help="detections have more than this confidence")
    add("--iou", type=float, default=0.45, help="of two boxes that overlap more, the less confident goes")
    add("--max-det", type=positive_int, default=300, help="most detections of an image")
    add("--rect", action="store_true", help="do not pad images to squares: faster; not for ONNX")
    add("--classes", nargs="+", help="only these, by name or by number")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--save-txt", action="store_true", help="write labels/*.txt: class, centre, size as shares, confidence")
    add("--save-json", action="store_true", help="write detections.json")
    add("--no-save", dest="save", action="store_false", help="write no pictures and videos")
    add_plugin_option(parser)
    add_run_options(parser, "runs/detect")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from experiments.inference.predict import Options, predict
    from experiments.run.folder import RunFolder

    options = Options(**{k: v for k, v in vars(args).items() if k in Options.__dataclass_fields__})
    predict(options, RunFolder(args.project, args.name, args.exist_ok))


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
