#!/usr/bin/env python3
"""Detect in images and videos: pictures with boxes, and labels or JSON where wanted."""

from __future__ import annotations

import argparse
import sys

from experiments.inference.options import Detection
from experiments.run.cli import add_plugin_option, add_run_options, start_script
from experiments.run.early import check_weights
from experiments.run.folder import RunFolder
from experiments.run.options import add_options, made, parse_args, refuse_unfit


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_options(parser, Detection)
    add_plugin_option(parser)
    add_run_options(parser, "runs/detect")
    return parse_args(parser, argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Detection)
    check_weights(args)
    from experiments.inference.predict import predict

    with RunFolder(args.project, args.name, args.exist_ok).held() as run:
        predict(made(Detection, args), run)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
