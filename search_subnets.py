#!/usr/bin/env python3
"""Search a trained supernet, or by a zero-cost proxy a space, for the front beside costs; or look at a space."""

from __future__ import annotations

import argparse
import functools
import sys
from contextlib import AbstractContextManager

from experiments.run.cli import add_plugin_option, add_run_options, add_trust_option, run_or_resume, start_script
from experiments.run.folder import RunFolder
from experiments.run.help import Parser
from experiments.run.options import add_options, parse_args, refuse, refuse_others, refuse_unfit
from experiments.supernets.folder import supernet_folder
from experiments.supernets.options import LOOKED_AT, MODES, FidelityOptions, Look, Options
from models.grammar import find_file


def make_parser() -> Parser:
    parser = Parser(__doc__)
    add_options(parser, Options)
    add_options(parser, Look)
    add_plugin_option(parser)
    add_run_options(parser, "runs/search_subnets")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run, given its folder; of new options it takes --trials and --pick",
    )
    add_trust_option(parser)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser()
    args = parse_args(parser, argv)
    modes = [name for name in ("sample_cost", "sample_accuracy", "edf", "fidelity") if getattr(args, name)]
    if len(modes) > 1:
        parser.error("--sample-cost, --sample-accuracy, --edf and --fidelity exclude each other")
    args.mode = modes[0] if modes else "search"
    if args.mode in ("sample_accuracy", "fidelity") and not (args.supernet or args.resume):
        parser.error("--supernet is missing: a run of oneshot_nas.py")
    if args.mode == "search" and bool(args.supernet) + bool(args.cfg) + bool(args.resume) != 1:
        parser.error("right would be one of --supernet, a run of oneshot_nas.py, --cfg, a space, and --resume")
    if args.mode == "sample_cost" and not (args.cfg or args.supernet):
        parser.error("--sample-cost needs --cfg or --supernet")
    return args


def main(args: argparse.Namespace) -> None:
    if not args.resume:
        way = f"--{args.mode.replace('_', '-')}"
        why = "is of looking at a space" if args.mode == "search" else f"is not of {way}"
        refuse_others(args, MODES[args.mode], why)
        refuse_unfit(args, Options)
        if args.supernet is not None:
            RunFolder.resume(supernet_folder(args.supernet))  # says what is wrong at once
        if args.cfg is not None:
            find_file(args.cfg)
    if args.mode == "sample_cost":
        from experiments.supernets.space_costs import report_costs

        with _folder(args) as run:
            report_costs(args, run)
    elif args.mode == "edf":
        from experiments.supernets.space_report import report_edf

        with _folder(args) as run:
            report_edf(args, run)
    elif args.mode == "fidelity":
        run_or_resume(args, FidelityOptions, _fidelity, beside=("fidelity",))
    elif args.mode == "sample_accuracy":
        refuse(args, ["trials"], "is not of --sample-accuracy")
        args.searcher, args.baseline, args.trials = "random", False, args.sample_accuracy
        args.given["trials"] = args.trials
        run_or_resume(args, Options, functools.partial(_rate, args), beside=LOOKED_AT)
    else:
        run_or_resume(args, Options, _search)


def _folder(args: argparse.Namespace) -> AbstractContextManager[RunFolder]:
    return RunFolder(args.project, args.name, args.exist_ok).held()


def _search(options: Options, run: RunFolder, resume: bool) -> None:
    from experiments.supernets.search import search_subnets

    search_subnets(options, run, resume)


def _fidelity(options: FidelityOptions, run: RunFolder, resume: bool) -> None:
    from experiments.supernets.fidelity import report_fidelity

    report_fidelity(options, run)


def _rate(args: argparse.Namespace, options: Options, run: RunFolder, resume: bool) -> None:
    from experiments.supernets.space_report import Subset, report_edf

    for text in args.subset:
        Subset.read(text)  # what is wrong with them is said before the evaluations
    _search(options, run, resume)
    report_edf(args, run)


if __name__ == "__main__":
    sys.exit(start_script(main, parse))
