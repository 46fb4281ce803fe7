#!/usr/bin/env python3
"""Search by training every candidate on its own, under NNI's web UI, and write a full detector."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from experiments.run.cli import (
    add_plugin_option,
    add_run_options,
    amount,
    positive_float,
    positive_int,
    run_or_resume,
    run_script,
    seed,
)

STRATEGIES = ["random", "grid", "evolution", "tpe", "rl", "nsga3"]
DEFAULTS = {
    "classify": {"data": "digits", "imgsz": 32, "batch": 64},
    "detect": {"data": "digits-detect", "imgsz": 160, "batch": 16},
}
# Given with --resume, these replace what the run was started with.
OF_RESUME = {"port": 8080, "host": "127.0.0.1", "max_trials": 10, "concurrency": 2}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--strategy", default="random", choices=STRATEGIES, help="multi-trial strategy")
    add("--task", default="classify", choices=["classify", "detect"], help="the classification proxy, or detection")
    add("--cfg", default="models/yolov5n_nas.yaml", help="YAML of the search space")
    add("--detector", help="YAML that gives neck, head and classes; --cfg's own head where it has one")
    add("--data", help="as for oneshot_nas.py (classify: digits, detect: digits-detect)")
    add("--data-root", help="where data sets lie or are downloaded to (default: datasets/)")
    add("--epochs", type=positive_int, default=3, help="epochs that a candidate is trained")
    add("--batch", type=positive_int, help="batch size (classify: 64, detect: 16)")
    add("--imgsz", type=positive_int, help="side of the images, a multiple of the stride (classify: 32, detect: 160)")
    add("--lr", type=positive_float, default=0.001, help="learning rate (Adam; detect: AdamW)")
    add("--seed", type=seed, default=0, help="fixes data, the weights' start and what the strategy draws")
    add("--device", default="auto", help="auto, cpu or cuda")
    add_plugin_option(parser)
    add("--inherit", metavar="RUN", help="start candidates from the supernet of a run of oneshot_nas.py")

    trials = parser.add_argument_group("trials").add_argument
    trials("--max-trials", type=positive_int, help="so many candidates are trained (default: 10)")
    trials("--population", type=positive_int, help="of evolution and nsga3 (by --max-trials, 50 and 10 at most)")
    trials("--concurrency", type=positive_int, help="so many at a time (default: 2)")
    trials("--gpus", type=int, default=0, help="GPUs of each trial; 0 leaves them all visible")
    trials("--threads", type=positive_int, help="CPU threads of each trial (default: cores / concurrency)")
    trials("--config", metavar="YAML", help="machines to train on, see docs/multi-trial.md (default: this one)")

    web = parser.add_argument_group("web UI").add_argument
    web("--port", type=positive_int, help="port of the web UI (default: 8080)")
    web("--host", help="address that it listens on; it has no login (default: 127.0.0.1)")
    web("--view", metavar="RUN", help="show an ended run, given its folder or its experiment's id, and nothing else")

    costs = parser.add_argument_group("costs of the detector").add_argument
    for name, example in (("flops", "4.5G"), ("params", "2M")):
        costs(
            f"--max-{name}",
            type=amount(name),
            metavar=example,
            help=f"no candidate has more {name}; known without a trial",
        )
    costs(
        "--max-latency", type=amount("latency"), metavar="8ms", help="no candidate that is slower is trained; measured"
    )
    costs("--target-latency", type=amount("latency"), metavar="7ms", help="a candidate that is slower is worth less")
    costs("--target-weight", type=positive_float, default=1.0, help="metric lost for a latency twice the target")
    costs(
        "--cost-imgsz", type=positive_int, default=640, help="side of the images that FLOPs and latency are meant for"
    )
    add_run_options(parser, "runs/multi_trial_nas", resumes=True)

    args = parser.parse_args(argv)
    for name, value in DEFAULTS[args.task].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from experiments.multi_trial.search import Options, run_of, search, view

    again = {name: getattr(args, name) for name in OF_RESUME if getattr(args, name) is not None}
    if args.view:
        view(args.view, args.project, again.get("port", 8080), again.get("host", OF_RESUME["host"]))
        return
    for name, value in OF_RESUME.items():
        setattr(args, name, again.get(name, value))
    if args.threads is None:
        args.threads = max(1, (os.cpu_count() or 1) // args.concurrency)
    if args.resume:
        args.resume = run_of(args.resume, args.project)

    def work(options: Options, run: Any, resume: bool) -> None:
        search(replace(options, **again) if resume else options, run, resume)

    run_or_resume(args, Options, work)


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
