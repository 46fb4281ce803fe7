#!/usr/bin/env python3
"""Write a detector or classifier as ONNX, OpenVINO or for YOLOv5, compared with it before the file is there."""

from __future__ import annotations

import argparse
import sys

from experiments.inference.options import Export
from experiments.run.cli import add_plugin_option, start_script
from experiments.run.early import check_int8, check_weights
from experiments.run.help import Parser
from experiments.run.options import add_options, made, parse_args, refuse, refuse_unfit


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Export)
    add_plugin_option(parser)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Export)
    if args.format == "yolov5":
        refuse(args, ("opset", "batch", "nms", "int8"), "is of --format onnx or openvino")
    check_weights(args, of_levels=False)
    if args.int8:
        check_int8(args)
    from experiments.inference.convert import convert

    convert(made(Export, args))


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
