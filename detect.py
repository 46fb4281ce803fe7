#!/usr/bin/env python3
"""Detect in images and videos: pictures with boxes, and labels or JSON where wanted."""

from __future__ import annotations

import argparse
import sys

from experiments.inference.options import Detection
from experiments.run.cli import add_plugin_option, add_run_options, start_script
from experiments.run.early import check_weights
from experiments.run.folder import RunFolder
from experiments.run.help import Parser
from experiments.run.options import add_options, made, parse_args, refuse_unfit


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Detection)
    add_plugin_option(parser)
    add_run_options(parser, "runs/detect")
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Detection)
    check_weights(args)
    from experiments.inference.predict import predict

    with RunFolder(args.project, args.name, args.exist_ok).held() as run:
        predict(made(Detection, args), run)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
