"""What the benchmarks of `distill` and `prune` share: scripts that are run, gone on with, or done already; a table."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Of each network, by seed, what was measured.
Rows = Mapping[str, Mapping[int, Mapping[str, float]]]
_ROOT = Path(__file__).resolve().parents[1]
_HOW = ("data", "imgsz", "batch", "device", "precision")
_WHAT = ("split", "cfg", "epochs", "finetune", "steps", "scope", "teacher", "weight")


def add_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Data, sizes and the folder of a benchmark."""
    add = parser.add_argument
    add("--data", default="bccd")
    add("--imgsz", type=int, default=320)
    add("--epochs", type=int, default=100)
    add("--batch", type=int, default=16)
    add("--seeds", type=int, default=3)
    add("--split", default="test", help="what is compared is measured on; digits-detect has val alone")
    add("--device", default="cpu")
    add("--precision", default="32")
    add("--folder", default=folder, help="what is in it is not done again")


class Trainings:
    """Runs of scripts in one folder, of the same options."""

    def __init__(self, args: argparse.Namespace) -> None:
        from models.files import write_text

        self.args, self.folder = args, Path(args.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = self.folder / "asked.json"
        told = {
            k: v
            for k, v in vars(args).items()
            if k in (*_HOW, "cfg", "epochs", "finetune", "steps", "scope", "teacher", "weight")
        }
        if asked.exists() and json.loads(asked.read_text()) != told:
            sys.exit(f"{self.folder} has trainings of other options ({asked}); right would be another --folder")
        write_text(asked, json.dumps(told))

    def train(self, name: str, *options: Any) -> Path:
        """The folder of a training."""
        epochs = () if "--epochs" in options else ("--epochs", self.args.epochs)
        return self._run("train.py", name, "last.ckpt", *epochs, *options)

    def prune(self, name: str, weights: Path, *options: Any) -> Path:
        """The folder of a pruning."""
        return self._run("prune.py", name, "config.yaml", "--weights", weights, *options)

    def _run(self, script: str, name: str, begun: str, *options: Any) -> Path:
        path = self.folder / name
        if not (path / "results.json").exists():
            given = [x for key in _HOW for x in (f"--{key}", getattr(self.args, key))]
            new = [*options, *given, "--project", self.folder, "--name", name, "--exist-ok"]
            words = ["--resume", path] if (path / begun).exists() else new
            print(f"{name} …", file=sys.stderr, flush=True)
            command = [sys.executable, str(_ROOT / script), *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return path

    def test(self, run: Path) -> dict[str, float]:
        """What val.py measures of a run's detector on the images of ``--split``; and its costs."""
        if not (run / "test/results.json").exists():
            words = ["--weights", run / "detector.pt", "--data", self.args.data, "--imgsz", self.args.imgsz]
            words += ["--split", self.args.split, "--device", self.args.device]
            words += ["--project", run, "--name", "test", "--exist-ok"]
            command = [sys.executable, str(_ROOT / "val.py"), *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found, tested = (json.loads((at / "results.json").read_text()) for at in (run, run / "test"))
        costs = found.get("after", found)
        return {"params": costs["params"], "flops": costs["flops"]} | {k: tested[k] for k in ("map50", "map50_95")}

    def table(self, rows: Rows) -> None:
        """Print what was measured, a network a line."""
        args = self.args
        how = f"{args.data} ({args.split}), {args.imgsz} pixels, {args.epochs} epochs, {args.seeds} seeds"
        print(f"{how}; torch {version('torch')}, {args.device} ({platform.processor() or platform.machine()})\n")
        print("| network | parameters | GFLOPs | mAP50-95 (of each seed) | mAP50 |")
        print("|---|---|---|---|---|")
        for name, seeds in rows.items():
            mean = {k: statistics.fmean(s[k] for s in seeds.values()) for k in ("params", "flops", "map50_95", "map50")}
            each = ", ".join(f"{s['map50_95']:.3f}" for s in seeds.values())
            print(
                f"| {name} | {mean['params']:,.0f} | {mean['flops'] / 1e9:.2f} | {mean['map50_95']:.4f} ({each}) | "
                f"{mean['map50']:.4f} |"
            )


def differences(rows: Rows, base: str, names: Sequence[str]) -> None:
    """Print by how much networks are better than another from the same seeds: mAP50-95, with a 95 % interval (t)."""
    from scipy.stats import t

    for name in names:
        seeds = sorted(set(rows[base]) & set(rows[name]))
        if name == base or not seeds:
            continue
        found = [rows[name][seed]["map50_95"] - rows[base][seed]["map50_95"] for seed in seeds]
        mean, around = statistics.fmean(found), ""
        if len(found) > 1:
            half = float(t.ppf(0.975, len(found) - 1)) * statistics.stdev(found) / len(found) ** 0.5
            around = f" [{mean - half:+.4f}, {mean + half:+.4f}]"
        print(f"\n{name} - {base}: {mean:+.4f}{around}, of {len(found)} seeds")
