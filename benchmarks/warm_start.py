"""What a checkpoint is worth to a supernet: ``python -m benchmarks.warm_start --strategy bignas --seeds 3``.

A plain YOLOv5n is trained on BCCD; it is the checkpoint. A supernet that begins with it is trained for a fifth of the
epochs of one that begins with noise, and both are measured on the validation images: largest, plain and smallest slice,
batch norm statistics taken anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ARCHS = ("max", "upstream", "min")
# Strategy to the space that it is for, and its options: the search after a training is not what is measured.
STRATEGIES: dict[str, tuple[str, list[str]]] = {
    "bignas": ("models/yolov5n_bignas.yaml", []),
    "darts": ("models/yolov5n_nas.yaml", []),
    "spos": ("models/yolov5n_nas.yaml", ["--population", "4", "--generations", "1"]),
}


def run(script: str, folder: Path, name: str, *args: object) -> Path:
    """The folder of a run, made unless it is there."""
    path = folder / name
    if not (path / "results.json").exists():
        command = [sys.executable, f"{script}.py", *map(str, args), "--project", str(folder), "--name", name]
        subprocess.run([*command, "--exist-ok"], check=True, stdout=subprocess.DEVNULL)
    return path


def slices(folder: Path, name: str, args: argparse.Namespace) -> dict[str, float]:
    """mAP50-95 of a trained supernet's slices."""
    given = ["--supernet", folder / name, "--arch", *ARCHS, "--device", args.device]
    rows = json.loads((run("val", folder, f"{name}-slices", *given) / "results.json").read_text())
    return {row["subnet"]: row["calibrated"] for row in rows}


def at_the_start(task: Any, weights: str, num_drawn: int) -> dict[str, Any]:
    """mAP50-95 of the checkpoint and of the largest slice before any step; of random ones, ordered and not.

    All but what is said to be as it lies with batch norm statistics taken anew, as every slice is rated.
    """
    import random
    import statistics

    import pytorch_lightning as pl

    from experiments.supernets.subnets import cut_out
    from experiments.supernets.warm import read_weights
    from spaces import CostModel, Sizes, make_supernet
    from spaces.channel_order import order_channels
    from spaces.warm_start import warm_start

    given = read_weights(weights, task)
    found: dict[str, Any] = {}
    for ordered in (False, True):
        pl.seed_everything(0, verbose=False)
        supernet = make_supernet(task.space())
        start = warm_start(supernet, given.cfg, given.state, given.names, task.sample())
        if ordered:
            order_channels(supernet, start)
        space = supernet.space
        largest, plain = Sizes(CostModel(space, 256)).largest, space.upstream()
        name = "ordered" if ordered else "unordered"
        for arch, of in ((plain, "upstream"), (largest, "max")):
            subnet = cut_out(supernet, task, arch)
            found[f"{of} as it lies, {name}"] = task.measure(subnet, calibrated=False)
            found[f"{of}, {name}"] = task.measure(subnet)
        rng = random.Random(0)
        drawn = [task.measure(cut_out(supernet, task, space.sample(rng))) for _ in range(num_drawn)]
        found[f"{num_drawn} random, {name}"] = statistics.fmean(drawn)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--strategy", default="bignas", choices=[*STRATEGIES])
    add("--cfg", help="space that holds YOLOv5n (default: the strategy's)")
    add("--data", default="bccd")
    add("--imgsz", type=int, default=128)
    add("--checkpoint-epochs", type=int, default=60, help="of the plain network")
    add("--epochs", type=int, default=30, help="of the supernet that begins with noise")
    add("--seeds", type=int, default=3)
    add("--drawn", type=int, default=20, help="random slices of the supernet before its training")
    add("--device", default="cpu")
    add("--folder", default="runs/warm_start", help="what is in it is not done again")
    args = parser.parse_args()
    cfg, own = STRATEGIES[args.strategy]
    args.cfg = args.cfg or cfg

    from experiments.oneshot.options import Options
    from experiments.oneshot.report import difference
    from experiments.run.lightning import quiet_lightning
    from experiments.run.options import made
    from experiments.tasks.task import open_task

    quiet_lightning()
    folder = Path(args.folder)
    common = ["--data", args.data, "--imgsz", args.imgsz, "--device", args.device]
    weights = run("train", folder, "plain", "--cfg", "models/yolov5n.yaml", *common, "--epochs", args.checkpoint_epochs)
    search = [*common, "--task", "detect", "--strategy", args.strategy, *own, "--cfg", args.cfg]
    search += ["--cost-imgsz", args.imgsz]
    short = max(args.epochs // 5, 1)
    ways: dict[str, list[Any]] = {
        f"checkpoint, {short} epochs": ["--epochs", short, "--weights", weights / "detector.pt"],
        f"noise, {short} epochs": ["--epochs", short],
        f"noise, {args.epochs} epochs": ["--epochs", args.epochs],
    }
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        for i, (way, given) in enumerate(ways.items()):
            name = f"{args.strategy}-seed{seed}-{i}"
            run("oneshot_nas", folder, name, *search, *given, "--no-baseline", "--seed", seed)
            found.setdefault(way, []).append(slices(folder, name, args))

    options = made(Options, argparse.Namespace(
        task="detect", cfg=args.cfg, data=args.data, imgsz=args.imgsz, batch=16, device=args.device,
        weights=str(weights / "detector.pt"),
    ))  # fmt: skip
    task = open_task(options)[1]
    plain = json.loads((weights / "results.json").read_text())["best"]["map50_95"]
    print(
        f"{args.strategy}, {args.cfg} on {args.data}, {args.imgsz} pixels; torch {version('torch')}, "
        f"{platform.processor() or platform.machine()}\n"
    )
    print(f"Checkpoint: {plain:.4f} mAP50-95.\n\n| before any step | mAP50-95 |\n|---|---|")
    for name, metric in at_the_start(task, options.weights or "", args.drawn).items():
        print(f"| {name} | {metric:.4f} |")
    print(f"\n| begins with | {' | '.join(ARCHS)} |\n|{'---|' * (len(ARCHS) + 1)}")
    for way, rows in found.items():
        means = (sum(r[arch] for r in rows) / len(rows) for arch in ARCHS)
        print(f"| {way} | {' | '.join(f'{m:.4f}' for m in means)} |")
    first, *_, last = found.values()
    for arch in ARCHS:
        print(f"\n{arch}: checkpoint {difference([r[arch] for r in first], [r[arch] for r in last])} than noise")


if __name__ == "__main__":
    main()
