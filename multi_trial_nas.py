#!/usr/bin/env python3
"""Search by training every candidate on its own, under NNI's web UI, and write a full detector."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from experiments.multi_trial.options import Options
from experiments.multi_trial.runs import run_of
from experiments.run.cli import add_plugin_option, add_run_options, run_or_resume, start_script
from experiments.run.early import check_search
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse_others, refuse_unfit
from experiments.run.registry import KINDS


def make_parser() -> Parser:
    parser = Parser(__doc__)
    web = parser.add_argument_group("web UI")
    add_options(parser, Options, **{"web UI": web})
    web.add_argument(
        "--view", metavar="RUN", help="show an ended run, given its folder or its experiment's id, and nothing else"
    )
    add_plugin_option(parser)
    add_run_options(parser, "runs/multi_trial_nas", resumes=True)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    args = parse_args(make_parser(), argv)
    # Candidates are many, and trained at half the side of a one-shot search.
    defaults = KINDS["task"][args.task].defaults
    for name, value in {**defaults, "imgsz": defaults["imgsz"] // 2}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.threads is None:
        args.threads = max(1, (os.cpu_count() or 1) // args.concurrency)
    return args


def main(args: argparse.Namespace) -> None:
    if args.view:
        refuse_others(args, ("view", "port", "host", "project"), "is not of --view")
        from experiments.multi_trial.search import view

        view(args.view, args.project, args.port, args.host)
        return
    refuse_unfit(args, Options)
    if args.resume:
        args.resume = run_of(args.resume, args.project)
    else:
        check_search(args)

    def work(options: Options, run: Any, resume: bool) -> None:
        from experiments.multi_trial.search import search

        search(options, run, resume)

    run_or_resume(args, Options, work, beside=["project"])


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
