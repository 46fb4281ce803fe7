#!/usr/bin/env python3
"""Measure a detector on a data set: COCO's mAP over all classes and each, and its speed. Or subnets of a supernet."""

from __future__ import annotations

import argparse
import sys

from data.classify_sets import BUILT_IN, check_set
from experiments.inference.options import OF_DETECTORS, OF_RUN, Validation
from experiments.run.cli import add_plugin_option, add_run_options, add_trust_option, start_script
from experiments.run.early import check_detection_set, check_weights
from experiments.run.folder import RunFolder
from experiments.run.help import Parser
from experiments.run.options import add_options, made, parse_args, refuse, refuse_unfit
from models.files import kind_of


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Validation, what=parser.add_mutually_exclusive_group(required=True))
    add_plugin_option(parser)
    add_run_options(parser, "runs/val")
    add_trust_option(parser)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Validation)
    run = RunFolder(args.project, args.name, args.exist_ok)
    if args.supernet is not None:
        refuse(args, (*OF_RUN, *OF_DETECTORS), "the subnets of --supernet are measured as its run measures")
        RunFolder.resume(args.supernet)  # says what is wrong at once
        from experiments.supernets.subnets import measure_subnets

        with run.held():
            measure_subnets(made(Validation, args), run)
        return
    kind = kind_of(args.weights)
    if kind != "detector":
        refuse(args, OF_DETECTORS, f"is of detectors, and {args.weights} is of another kind: {kind}")
    args.data = args.data or BUILT_IN[kind]
    check_weights(args)
    if kind != "landmarks":
        (check_set if kind == "classifier" else check_detection_set)(args.data)
    from experiments.inference.validate import validate

    with run.held():
        validate(made(Validation, args), run)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
