#!/usr/bin/env python3
"""Search a YOLOv5-style backbone with a one-shot strategy and write a full detector."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from experiments.oneshot.options import Options
from experiments.run.cli import add_plugin_option, add_run_options, run_or_resume, start_script
from experiments.run.early import check_search
from experiments.run.folder import new_run
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse_unfit
from experiments.run.registry import KINDS


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Options)
    add_plugin_option(parser)
    add_run_options(parser, "runs/oneshot_nas", resumes=True)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    args = parse_args(make_parser(), argv)
    for name, value in KINDS["task"][args.task].defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(args: argparse.Namespace) -> None:
    def work(options: Options, run: Any, resume: bool) -> None:
        if options.ui is None and options.trials == 1 and "," not in options.strategy:
            from experiments.oneshot.search import search

            search(options, run, resume)
        else:
            from experiments.oneshot import ui as oneshot_ui

            oneshot_ui.search(options, run, resume)

    refuse_unfit(args, Options)
    if not args.resume:
        check_search(args)
    run_or_resume(args, Options, work, new_run)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
