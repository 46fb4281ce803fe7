#!/usr/bin/env python3
"""Search a YOLOv5-style backbone with a one-shot strategy and write a full detector."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from experiments.run.cli import (
    add_budget_options,
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

STRATEGIES = ["darts", "darts-2nd", "gumbel", "proxyless", "enas", "spos", "fairnas", "bignas"]

OF_BIGNAS = (
    *("subnets", "sampler", "distill", "distill_rows", "distill_boxes", "teacher", "dropout", "drop_path"),
    *("clip", "clip_by", "lr_floor", "weight_decay"),
)
DEFAULTS = {
    "classify": {"data": "digits", "imgsz": 64, "batch": 64},
    "detect": {"data": "digits-detect", "imgsz": 320, "batch": 16},
}


def strategies(text: str) -> str:
    """Type of ``--strategy``."""
    for name in text.split(","):
        if name not in STRATEGIES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STRATEGIES)}")
    return text


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--strategy", type=strategies, default="darts", help=f"{', '.join(STRATEGIES)}; several by commas with --ui")
    add("--task", default="classify", choices=["classify", "detect"], help="the classification proxy, or detection")
    add("--cfg", default="models/yolov5n_nas.yaml", help="YAML of the search space")
    add("--space", metavar="POLICY", help="lay choices over a plain --cfg: elastic, or a policy's YAML")
    add(
        "--detector",
        help="YAML that gives neck, head and classes (default: --cfg's own; without any, a classifier)",
    )
    add(
        "--data",
        help="classify: digits (default), fashion-mnist, cifar10, imagenette, tinyimagenet, or a folder; "
        "detect: digits-detect (default), bccd, a data YAML, or a folder",
    )
    add("--data-root", help="where data sets lie or are downloaded to (default: datasets/)")
    add("--epochs", type=positive_int, default=10, help="epochs over the training split")
    add("--batch", type=positive_int, help="batch size (classify: 64, detect: 16)")
    add("--imgsz", type=positive_int, help="side of the images, a multiple of the stride (classify: 64, detect: 320)")
    add("--lr", type=positive_float, default=0.001, help="learning rate of the weights (Adam; detect: AdamW)")
    add("--arch-lr", type=positive_float, default=0.01, help="learning rate of alphas or controller (Adam)")
    add("--seed", type=seed, default=0, help="fixes data, weights and the arch that is found")
    add("--device", default="auto", help="auto, cpu or cuda")
    add_plugin_option(parser)
    group = parser.add_argument_group("strategies")
    add = group.add_argument
    add("--arch-update", default="gradient", choices=["gradient", "reinforce"], help="of proxyless")
    add(
        "--population",
        type=positive_int,
        default=50,
        help="archs a generation, of the search of spos, fairnas and bignas",
    )
    add("--generations", type=positive_int, default=20, help="generations of that search")
    group = parser.add_argument_group("bignas")
    add = group.add_argument
    add("--subnets", default="max,random,random,min", help="subnets of a step")
    add("--sampler", default="uniform", help="of the random ones, see docs/supernets.md")
    add("--distill", default="auto", help="what the others learn from the largest: kl, alpha, mimic or none")
    add("--distill-rows", type=int, nargs="*", default=[], metavar="ROW", help="rows whose features are distilled too")
    add("--teacher", metavar="FILE", help="weights, or a run's folder, to learn from in place of the largest")
    add("--dropout", type=share, default=0.0, help="of the largest subnet")
    add("--drop-path", type=share, default=0.0, help="of the largest subnet")
    add("--clip", type=positive_float, help="what gradients are clipped to")
    add("--clip-by", default="norm", choices=["norm", "value"], help="their norm, or every value")
    add("--distill-boxes", default="ciou", choices=["ciou", "l1"], help="distance of boxes from the teacher's")
    add("--lr-floor", type=positive_float, default=0.05, help="share of --lr that it decays to; 1: constant")
    add("--weight-decay", type=not_negative, help="never of batch norms and biases (default: that of the task)")
    add_budget_options(parser)
    group = parser.add_argument_group("training afterwards")
    add = group.add_argument
    add(
        "--retrain",
        default="scratch",
        choices=["scratch", "inherited", "both"],
        help="weights that the result starts from",
    )
    add("--random-archs", type=natural, default=3, metavar="R", help="random archs that are trained to compare with")
    add("--no-baseline", dest="baseline", action="store_false", help="train nothing after the search")
    group = parser.add_argument_group("web UI")
    add = group.add_argument
    add("--ui", type=positive_int, metavar="PORT", help="search as trials of an NNI experiment, at 127.0.0.1:PORT")
    add("--trials", type=positive_int, default=1, help="searches of each strategy there, from as many seeds")
    add("--concurrency", type=positive_int, default=1, help="searches at a time there")
    add_run_options(parser, "runs/oneshot_nas", resumes=True)
    args = parse_args(parser, argv)
    for name, value in DEFAULTS[args.task].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(args: argparse.Namespace) -> None:
    from experiments.oneshot.search import Options, search

    def work(options: Options, run: Any, resume: bool) -> None:
        if options.ui is None and options.trials == 1 and "," not in options.strategy:
            search(options, run, resume)
        else:
            from experiments.oneshot import ui as oneshot_ui

            oneshot_ui.search(options, run, resume)

    if "bignas" not in args.strategy.split(","):
        refuse(args, OF_BIGNAS, "is of --strategy bignas")
    if args.ui is None:
        refuse(args, ["concurrency"], "is of --ui")
    run_or_resume(args, Options, work)


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
