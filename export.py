#!/usr/bin/env python3
"""Write a detector or classifier as ONNX or OpenVINO, compared with it before the file is there."""

from __future__ import annotations

import argparse
import sys

from experiments.run.cli import add_plugin_option, parse_args, positive_int, refuse, run_script


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--weights", required=True, help="detector.pt, classifier.pt, or a YOLOv5 checkpoint")
    add("--format", default="onnx", choices=["onnx", "openvino"], help="openvino needs the package openvino")
    add("--output", help="file to write; None: beside the weights, with the suffix .onnx or .xml")
    add("--imgsz", type=positive_int, help="side of the images in pixels; None: as trained, or 640")
    add("--opset", type=int, default=17, help="of the ONNX file")
    add("--batch", type=batch, default="dynamic", help="images at a time: a number, or dynamic")
    add("--nms", action="store_true", help="non-maximum suppression in the graph, with the next three")
    add("--conf", type=float, default=0.25, help="detections have more than this confidence")
    add("--iou", type=float, default=0.45, help="of two boxes that overlap more, the less confident goes")
    add("--max-det", type=positive_int, default=300, help="most detections of an image")
    add("--source", nargs="+", help="images to compare with: files, folders or patterns; None: random ones")
    add_plugin_option(parser)
    return parse_args(parser, argv)


def batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 or dynamic, got {value}")
    return value


def main(args: argparse.Namespace) -> None:
    from experiments.inference.export import Options, export

    if not args.nms:
        refuse(args, ("conf", "iou", "max_det"), "is of --nms")
    export(Options(**{k: v for k, v in vars(args).items() if k in Options.__dataclass_fields__}))


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
