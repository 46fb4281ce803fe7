#!/usr/bin/env python3
"""Search a trained supernet for the front between accuracy and cost, or look at a space before it is trained."""

from __future__ import annotations

import argparse
import sys

from experiments.run.cli import (
    add_plugin_option,
    add_run_options,
    amount,
    natural,
    parse_args,
    positive_int,
    refuse,
    run_script,
    seed,
)

SEARCHERS = [
    *("nsga3", "nsga2", "tpe", "gp", "random", "grid", "evolution", "attentive", "coarse-to-fine", "genetic", "rl")
]

WITH_POPULATION = ["nsga3", "nsga2", "evolution", "attentive", "genetic"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--supernet", metavar="RUN", help="run of oneshot_nas.py, its folder or a file in it")
    add(
        "--objectives",
        type=_names,
        default="metric,flops",
        help="metric (or its name), then costs that are to be small, separated by commas",
    )
    add("--searcher", default="nsga3", choices=SEARCHERS, help="what proposes the archs")
    add("--trials", type=positive_int, help="archs that are evaluated (500)")
    add(
        "--range",
        action="append",
        default=[],
        metavar="COST=LOW:HIGH",
        help="no arch outside is evaluated, such as flops=200M:400M; may be repeated",
    )
    add("--costs", metavar="YAML", help="where more costs come from, such as latency: providers, or a pool of servers")
    add("--population", type=positive_int, help="of nsga2, nsga3, evolution and attentive (by --trials, 50 at most)")
    add("--stride", type=positive_int, help="of grid; by default such that --trials cover the space")
    add("--predictor", default="none", choices=["none", "mlp", "gp"], help="model that chooses among proposed archs")
    add("--no-baseline", dest="baseline", action="store_false", help="no random search beside the search")
    add("--pick", metavar="WHICH", help="write the detector of knee, flops<=4G or latency<=8ms")
    add("--storage", metavar="URL", help="sqlite:///…, journal:FILE or postgresql://… (default: study.db of the run)")
    add("--study", default="subnets", help="name in the storage; one that is there is worked on together")
    add("--workers", type=positive_int, default=1, help="processes that evaluate")
    add("--seed", type=seed, default=0, help="fixes the archs that are asked for")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--cost-imgsz", type=positive_int, help="side of the images that FLOPs are meant for (default: the supernet's)")
    group = parser.add_argument_group("looking at a space")
    add = group.add_argument
    add("--cfg", help="YAML of the space, where there is no supernet yet")
    add("--sample-cost", type=positive_int, metavar="N", help="costs of N random archs")
    add(
        "--sample-accuracy", type=positive_int, metavar="N", help="evaluate N random archs, and report on them as --edf"
    )
    add("--edf", nargs="+", metavar="[NAME=]FILE", help="report on the archs of subnets.csv files")
    add(
        "--subset",
        action="append",
        default=[],
        metavar="NAME:LABEL=VALUE[|VALUE],…",
        help="a part of the space that stands beside it in the report; may be repeated",
    )
    add("--baseline-flops", type=amount("flops"), metavar="4.5G", help="count the archs near it")
    add_plugin_option(group)
    add("--samples", type=natural, default=10_000, help="bootstrap samples of the report")
    add_run_options(parser, "runs/search_subnets")
    add(
        "--resume",
        metavar="RUN",
        help="go on with a run, given its folder; of new options it takes --trials and --pick",
    )
    args = parse_args(parser, argv)
    modes = [name for name in ("sample_cost", "sample_accuracy", "edf") if getattr(args, name)]
    if len(modes) > 1:
        parser.error("--sample-cost, --sample-accuracy and --edf exclude each other")
    args.mode = modes[0] if modes else "search"
    needs = {"search": args.supernet or args.resume, "sample_accuracy": args.supernet or args.resume}
    if not needs.get(args.mode, True):
        parser.error("--supernet is missing: a run of oneshot_nas.py")
    if args.mode == "sample_cost" and not (args.cfg or args.supernet):
        parser.error("--sample-cost needs --cfg or --supernet")
    return args


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main(args: argparse.Namespace) -> None:
    if args.mode == "sample_cost":
        from experiments.supernets.space_costs import report_costs

        report_costs(args)
    elif args.mode == "edf":
        from experiments.supernets.space_report import report_edf

        report_edf(args)
    else:
        from experiments.supernets.search import run

        if args.searcher != "grid":
            refuse(args, ["stride"], "is of --searcher grid")
        if args.searcher not in WITH_POPULATION:
            refuse(args, ["population"], f"is of --searcher {', '.join(WITH_POPULATION)}")
        run(args)


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
