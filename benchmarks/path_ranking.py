"""How supernets of single paths rank archs: ``python -m benchmarks.path_ranking --seeds 3``.

`cream` beside `spos` for as many epochs, and beside `spos` for as much time as `cream` takes: of every step it looks at
other paths too. Archs of all FLOPs are trained alone, once for all; then each supernet rates them. Kendall's tau and
regret are `search_subnets.py --fidelity`'s.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .warm_start import run

_FEW = ["--population", "4", "--generations", "1"]  # the search after a training is not what is measured
WAYS: dict[str, tuple[list[str], bool]] = {
    "spos": (["--strategy", "spos", *_FEW], False),
    "spos, longer": (["--strategy", "spos", *_FEW], True),
    "cream": (["--strategy", "cream"], False),
}


def truth_table(fidelity: Path, path: Path) -> Path:
    """What archs reached alone, as ``--truth`` takes it: a column a label, and the mean over trainings."""
    with (fidelity / "fidelity.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table: list[dict[str, Any]] = []
    for row in rows:
        reached = [float(value) for key, value in row.items() if key.startswith("truth.")]
        table.append({**json.loads(row["arch"]), "accuracy": statistics.fmean(reached)})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*table[0]])
        writer.writeheader()
        writer.writerows(table)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg", default="models/yolov5n_nas.yaml")
    add("--data", default="cluttered-digits")
    add("--imgsz", type=int, default=64)
    add("--batch", type=int, default=64)
    add("--epochs", type=int, default=30, help="of a supernet")
    add("--longer", type=float, default=2.5, help="a step of cream takes as long as so many of spos")
    add("--alone", type=int, default=6, help="epochs of an arch that is trained alone")
    add("--archs", type=int, default=20)
    add("--trainings", type=int, default=2, help="of each arch alone, from as many seeds")
    add("--seeds", type=int, default=3, help="supernets of each strategy")
    add("--device", default="cpu")
    add("--folder", default="runs/path_ranking", help="what is in it is not done again")
    args = parser.parse_args()

    from experiments.oneshot.report import difference

    folder = Path(args.folder)
    common = ["--cfg", args.cfg, "--data", args.data, "--imgsz", args.imgsz, "--cost-imgsz", args.imgsz]
    common += ["--batch", args.batch, "--device", args.device, "--no-baseline"]
    # Archs are trained alone for as many epochs as the supernet that they are asked of.
    short = run("oneshot_nas", folder, "short", *common, "--strategy", "spos", *_FEW, "--epochs", args.alone)
    ranked = ["--fidelity", args.archs, "--device", args.device]
    given = ["--supernet", short, *ranked, "--seeds", args.trainings]
    truth = truth_table(run("search_subnets", folder, "truth", *given), folder / "truth.csv")
    found: dict[str, list[dict[str, Any]]] = {}
    epochs: dict[str, int] = {}
    for seed in range(args.seeds):
        for i, (way, (own, is_longer)) in enumerate(WAYS.items()):
            epochs[way] = round(args.epochs * (args.longer if is_longer else 1))
            name = f"{i}-seed{seed}"
            path = run("oneshot_nas", folder, name, *common, *own, "--epochs", epochs[way], "--seed", seed)
            again = run("search_subnets", folder, f"{name}-ranked", "--supernet", path, *ranked, "--truth", truth)
            predictors = json.loads((again / "results.json").read_text())["predictors"]
            found.setdefault(way, []).append(predictors["supernet"])
            found.setdefault("FLOPs", []).append(predictors["flops"])
    print(
        f"{args.cfg} on {args.data}, {args.imgsz} pixels; {args.archs} archs, {args.trainings} trainings of "
        f"{args.alone} epochs each; torch {version('torch')}, {platform.processor() or platform.machine()}\n"
    )
    tops = list(found["cream"][0]["regret"])
    print(f"| ranked by | epochs | tau | tau within bands | {' | '.join(f'regret of {k}' for k in tops)} |")
    print(f"|---|---|---|---|{'---|' * len(tops)}")
    for way, rows in found.items():
        values = [statistics.fmean(r["tau"] for r in rows), statistics.fmean(r["within"] for r in rows)]
        values += [statistics.fmean(r["regret"][k] for r in rows) for k in tops]
        print(f"| {way} | {epochs.get(way, '')} | {' | '.join(f'{v:.3f}' for v in values)} |")
    for other in ("spos", "spos, longer"):
        taus = ([r["tau"] for r in found[way]] for way in ("cream", other))
        print(f"\ntau of cream: {difference(*taus)} than of {other}")


if __name__ == "__main__":
    main()
