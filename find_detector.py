#!/usr/bin/env python3
"""Find the best detector for your pictures and your device: one command from pictures with boxes to a file to ship."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from experiments.find.options import Options
from experiments.run.cli import add_plugin_option, add_run_options, run_or_resume, start_script
from experiments.run.early import check_find
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse_unfit


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Options)
    add_plugin_option(parser)
    add_run_options(parser, "runs/find", resumes=True)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    def work(options: Options, run: Any, resume: bool) -> None:
        from experiments.find.find import find

        find(options, run, resume)

    refuse_unfit(args, Options)
    if not args.resume:
        check_find(args)
    run_or_resume(args, Options, work)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
