"""The anchor-free head beside the anchor-based one: ``python -m benchmarks.heads --imgsz 320 --epochs 100 --seeds 3``.

Each network is trained from scratch by `train.py`, for as many epochs and from as many seeds, on BCCD unless told
otherwise; the epoch is picked on the validation images, what is compared is measured once on the test images. Networks
that do not build here are named and left out. A row of the table is kept as soon as it is there, and trainings that are
done, or half done, are not begun anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

NETWORKS = ("yolov5n.yaml", "yolov5n_dfl.yaml", "yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")


def trained(cfg: str, seed: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """``results.json`` of a training, which is run, or gone on with, unless it is there; ``test`` is that of val.py."""
    name = f"{Path(cfg).stem}-seed{seed}"
    path = folder / name
    if not (path / "results.json").exists():
        command = [sys.executable, "train.py"]
        if (path / "last.ckpt").exists():
            command += ["--resume", str(path)]
        else:
            given = ("data", "imgsz", "epochs", "batch", "device", "precision")
            command += ["--cfg", cfg, *(str(x) for key in given for x in (f"--{key}", getattr(args, key)))]
            command += ["--seed", str(seed), "--project", str(folder), "--name", name, "--exist-ok"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    test = path / "test"
    if not (test / "results.json").exists():
        command = [sys.executable, "val.py", "--weights", str(path / "detector.pt"), "--data", args.data]
        command += ["--imgsz", str(args.imgsz), "--split", "test", "--device", args.device]
        command += ["--project", str(path), "--name", "test", "--exist-ok"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found, tested = (json.loads((at / "results.json").read_text()) for at in (path, test))
    return found | {"test": tested}


def latency_ms(cfg: str, nc: int, args: argparse.Namespace) -> float | None:
    """Of an image as exported, without non-maximum suppression, in ONNX Runtime on one thread; None without it."""
    from experiments.costs.latency import Latency
    from models.errors import InputError
    from models.grammar import read_config
    from spaces import Space

    try:
        return Latency(Space(read_config(cfg, nc=nc)), args.imgsz, "onnxruntime", threads=1)([{}])[0]
    except InputError as e:
        print(f"{cfg}: latency is not measured: {e}", file=sys.stderr)
        return None


def builds(cfg: str) -> bool:
    """Whether a network is there and can be built; if not, why is said."""
    from models import InputError, Model

    try:
        Model(cfg)
    except InputError as e:
        print(f"{cfg}: left out: {e}", file=sys.stderr)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg", nargs="+", default=list(NETWORKS), metavar="YAML")
    add("--data", default="bccd")
    add("--imgsz", type=int, default=320)
    add("--epochs", type=int, default=100)
    add("--batch", type=int, default=16)
    add("--seeds", type=int, default=3)
    add("--device", default="cpu")
    add("--precision", default="32")
    add("--folder", default="runs/heads", help="what is in it is not done again")
    args = parser.parse_args()

    from models.files import write_text

    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked, told = folder / "asked.json", {k: v for k, v in vars(args).items() if k not in ("cfg", "seeds", "folder")}
    if asked.exists() and json.loads(asked.read_text()) != told:
        sys.exit(f"{folder} has trainings of other options ({asked}); right would be another --folder")
    write_text(asked, json.dumps(told))
    networks = [cfg for cfg in args.cfg if builds(cfg)]
    file = folder / "rows.json"
    rows: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for seed in range(args.seeds):  # every network once before any twice
        for cfg in networks:
            results = trained(cfg, seed, args, folder)
            row = rows.setdefault(cfg, {"params": results["params"], "flops": results["flops"], "seeds": {}})
            test = results["test"]
            row["seeds"][str(seed)] = {k: test[k] for k in ("map50_95", "map50")} | {
                "val": results["best"]["map50_95"],
                "epoch": results["best"]["epoch"],
                "minutes": results["minutes"],
            }
            if "ms" not in row:
                row["ms"] = latency_ms(cfg, len(test["classes"]), args)
            write_text(file, json.dumps(rows, indent=1))
    print(
        f"{args.data}, {args.imgsz} pixels, {args.epochs} epochs, {args.seeds} seeds; torch {version('torch')}, "
        f"{args.device} ({platform.processor() or platform.machine()})\n"
    )
    print("| network | parameters | GFLOPs | ms, exported | mAP50-95 (of each seed) | mAP50 | minutes a training |")
    print("|---|---|---|---|---|---|---|")
    for cfg in networks:
        row = rows[cfg]
        seeds = [row["seeds"][str(seed)] for seed in range(args.seeds)]
        mean = {k: statistics.fmean(s[k] for s in seeds) for k in ("map50_95", "map50", "minutes")}
        each = ", ".join(f"{s['map50_95']:.3f}" for s in seeds)
        ms = "" if row["ms"] is None else f"{row['ms']:.1f}"
        print(
            f"| {cfg} | {row['params']:,} | {row['flops'] / 1e9:.2f} | {ms} | {mean['map50_95']:.4f} ({each}) | "
            f"{mean['map50']:.4f} | {mean['minutes']:.1f} |"
        )


if __name__ == "__main__":
    main()
