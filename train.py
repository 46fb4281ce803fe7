#!/usr/bin/env python3
"""Train a detector on your own data, from a YAML or from weights. Or finetune a classifier that a search left."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from data.classify_sets import BUILT_IN
from experiments.run.cli import add_plugin_option, add_run_options, run_or_resume, start_script
from experiments.run.early import check_more_epochs, check_teacher, check_training
from experiments.run.folder import new_run
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse, refuse_unfit
from experiments.training.options import OF_DETECTORS, Options
from models.files import kind_of


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Options)
    add_plugin_option(parser)
    add_run_options(parser, "runs/train", resumes=True)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    args.weights = args.weights or None  # YOLOv5's --weights '' is from scratch
    refuse_unfit(args, Options)
    kind = "detector" if args.weights is None else kind_of(args.weights)
    classifies = kind != "detector"
    if classifies:
        refuse(args, OF_DETECTORS, f"is of detectors, and {args.weights} is of another kind: {kind}")
    args.data = args.data or BUILT_IN[kind]
    args.imgsz = args.imgsz or (None if classifies else 640)
    args.optimizer = args.optimizer or ("adamw" if classifies else "sgd")
    if not args.resume:
        (check_teacher if classifies else check_training)(args)

    def work(options: Options, run: Any, resume: bool) -> None:
        if resume and "epochs" in args.given:
            check_more_epochs(run, options.epochs)
        from experiments.training.train import train

        train(options, run, resume, _slice_of)

    run_or_resume(args, Options, work, new_run)


def _slice_of(supernet: str, arch: str) -> Any:
    from experiments.supernets.subnets import start_of_slice

    return start_of_slice(supernet, arch)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
