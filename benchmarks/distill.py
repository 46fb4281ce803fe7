"""A detector that learns from a larger one, beside the same without: ``python -m benchmarks.distill --seeds 3``.

The teacher is trained once, by `train.py`; the student from each seed without it, and with it by each way of
``--distill``. Epochs are picked on the validation images, what is compared is measured once on the test images. What is
there is not done again, and what is half done is gone on with.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.trainings import Trainings, add_options, differences

WAYS = ("none", "logits", "features", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--teacher", default="yolov5s.yaml", metavar="YAML")
    add("--cfg", default="yolov5n.yaml", metavar="YAML")
    add("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    add("--weight", type=float, default=1.0, help="of what is learnt from the teacher")
    add_options(parser, "runs/distill")
    args = parser.parse_args()

    done = Trainings(args)
    teacher = done.train("teacher", "--cfg", args.teacher, "--seed", 0)
    rows = {"teacher": {0: done.test(teacher)}}
    for seed in range(args.seeds):  # every way once before any twice
        for way in args.ways:
            name = f"{Path(args.cfg).stem}-{way}"
            more: list[Any] = []
            if way != "none":
                more = ["--teacher", teacher / "detector.pt", "--distill", way, "--distill-weight", args.weight]
            run = done.train(f"{name}-seed{seed}", "--cfg", args.cfg, "--seed", seed, *more)
            rows.setdefault(name, {})[seed] = done.test(run)
    done.table(rows)
    if "none" in args.ways:
        differences(rows, f"{Path(args.cfg).stem}-none", [name for name in rows if name != "teacher"])


if __name__ == "__main__":
    main()
