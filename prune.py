#!/usr/bin/env python3
"""Take the less important channels out of a detector or classifier: a plain YAML and weights again, but smaller."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from data.classify_sets import check_set
from experiments.run.cli import add_plugin_option, add_run_options, run_or_resume, start_script
from experiments.run.early import check_detection_set, check_weights
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse, refuse_unfit
from experiments.training.options import Pruning
from models.errors import InputError
from models.files import is_classifier


def make_parser() -> Parser:
    parser = Parser(__doc__)
    target = parser.add_argument_group("target", "how much is to go; one of these").add_mutually_exclusive_group()
    add_options(parser, Pruning, target=target)
    add_plugin_option(parser)
    add_run_options(parser, "runs/prune", resumes=True)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Pruning)
    if not args.resume:
        _check(args)

    def work(options: Pruning, run: Any, resume: bool) -> None:
        from experiments.training.pruning import prune_file

        prune_file(options, run, resume)

    run_or_resume(args, Pruning, work)


def _check(args: argparse.Namespace) -> None:
    if args.weights is None:
        raise InputError("say what to prune: --weights detector.pt")
    if all(value is None for value in (args.sparsity, args.to_flops, args.to_params, args.to_latency)):
        raise InputError("say how much is to go: --sparsity 0.25, --to-flops, --to-params or --to-latency")
    if args.data is None and (args.epochs or args.method == "taylor"):
        asked = "--epochs" if args.epochs else "--method taylor"
        raise InputError(f"{asked}: needs images; right would be --data")
    check_weights(args, of_levels=False)
    classifies = is_classifier(args.weights)
    if classifies:
        refuse(args, ("hyp", "augment"), f"is of detectors, and {args.weights} is a classifier")
    if args.data is not None:
        (check_set if classifies else check_detection_set)(args.data)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
