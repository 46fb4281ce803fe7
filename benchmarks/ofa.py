"""Progressive shrinking beside sandwich training and single paths: ``python -m benchmarks.ofa --seeds 3``.

All are given as many passes, a forward and a backward of a subnet: `bignas` takes four a batch, uniform sampling one,
and `ofa` what its phases say, a third for each look of its teacher. Random archs of the space, the same for all, are
cut out and measured on the validation images, batch norm statistics taken anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .warm_start import run

# By name: options of the search, and passes of a batch, where phases do not say.
WAYS: dict[str, tuple[list[str], float | None]] = {
    "ofa": (["--strategy", "ofa"], None),
    "bignas": (["--strategy", "bignas"], 4.0),
    "uniform": (["--strategy", "bignas", "--subnets", "random", "--distill", "none"], 1.0),
}


def passes_of(phases: Sequence[Any]) -> float:
    """Passes of a batch, on average over the phases."""
    each = [(phase.subnets + (1 / 3 if i else 0)) * phase.share for i, phase in enumerate(phases)]
    return sum(each) / sum(phase.share for phase in phases)


def measured(folder: Path, num: int) -> dict[str, float]:
    """What slices of a supernet reach; kept in its folder."""
    from experiments.supernets.subnets import cut_out, open_supernet
    from spaces import CostModel, Sizes

    path = folder / f"slices-{num}.json"
    if not path.exists():
        supernet, task, _ = open_supernet(folder)
        space, rng = supernet.space, random.Random(0)
        sizes = Sizes(CostModel(space, 256))
        archs = {"largest": sizes.largest, "smallest": sizes.smallest}
        archs |= {str(i): space.sample(rng) for i in range(num)}
        found = {name: task.measure(cut_out(supernet, task, arch)) for name, arch in archs.items()}
        path.write_text(json.dumps(found, indent=2))
    result: dict[str, float] = json.loads(path.read_text())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg", default="benchmarks/mbconv_small.yaml")
    add("--task", default="classify", choices=["classify", "detect"])
    add("--data", default="cluttered-digits")
    add("--imgsz", type=int, default=64)
    add("--batch", type=int, default=64)
    add("--passes", type=int, default=240, help="passes of every training image")
    add("--slices", type=int, default=20, help="random archs that are measured")
    add("--seeds", type=int, default=3)
    add("--phases", help="YAML of phases (default: the strategy's)")
    add("--device", default="cpu")
    add("--folder", default="runs/ofa", help="what is in it is not done again")
    args = parser.parse_args()

    from experiments.oneshot.phases import default_phases, read_phases
    from experiments.oneshot.report import difference
    from experiments.run.lightning import quiet_lightning
    from spaces import Space

    quiet_lightning()
    space, folder = Space(args.cfg), Path(args.folder)
    phases = default_phases(space) if args.phases is None else read_phases(args.phases, space)
    common = ["--task", args.task, "--cfg", args.cfg, "--data", args.data, "--imgsz", args.imgsz, "--no-baseline"]
    common += ["--cost-imgsz", args.imgsz, "--batch", args.batch, "--device", args.device]
    found: dict[str, list[dict[str, float]]] = {}
    epochs: dict[str, int] = {}
    for seed in range(args.seeds):
        for way, (own, passes) in WAYS.items():
            each = passes_of(phases) if passes is None else passes
            epochs[way] = max(round(args.passes / each), 1)
            more = ["--phases", args.phases] if way == "ofa" and args.phases else []
            name = f"{way}-seed{seed}"
            path = run("oneshot_nas", folder, name, *common, *own, *more, "--epochs", epochs[way], "--seed", seed)
            found.setdefault(way, []).append(measured(path, args.slices))
    print(
        f"{args.cfg} on {args.data}, {args.imgsz} pixels, {args.passes} passes of every image; torch "
        f"{version('torch')}, {platform.processor() or platform.machine()}\n"
    )
    drawn = [str(i) for i in range(args.slices)]
    means = {way: [statistics.fmean(r[i] for i in drawn) for r in rows] for way, rows in found.items()}
    print(f"| trained by | epochs | mean of {args.slices} slices | worst of them | largest | smallest |")
    print("|---|---|---|---|---|---|")
    for way, rows in found.items():
        worst = statistics.fmean(min(r[i] for i in drawn) for r in rows)
        ends = (statistics.fmean(r[name] for r in rows) for name in ("largest", "smallest"))
        figures = " | ".join(f"{value:.4f}" for value in (statistics.fmean(means[way]), worst, *ends))
        print(f"| {way} | {epochs[way]} | {figures} |")
    for other in ("bignas", "uniform"):
        print(f"\nofa: {difference(means['ofa'], means[other])} than {other}, in the mean of the slices")


if __name__ == "__main__":
    main()
