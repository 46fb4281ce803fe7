"""A table of latencies, block by block, that is measured once on a device and composed for every arch.

As in FBNet (Wu et al. 2019, arXiv:1812.03443, section 3.2): the latency of a network is the sum of its blocks', of
which there are few, where networks are without number. This measures all blocks of a space:

    python -m experiments.costs.latency_table --cfg models/yolov5n_nas.yaml --imgsz 320 --out table.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.documents import exists, read_json
from models.errors import InputError
from models.files import write_text
from models.schemas import LatencyFile

from ..run.cli import add_plugin_option, natural, positive_int, run_script, seed, side, threads
from .timing import REPEATS, WARM_UP, check_threads, median_ms, synchronized, torch_threads

if TYPE_CHECKING:
    from torch import nn

    from spaces.cost_block import Block

_WARM_UP, _REPEATS = WARM_UP, REPEATS
_SAVED_EVERY = 20


class LatencyTable:
    """Latencies (ms) of blocks for one image, in PyTorch's eval mode, as they are built: nothing fused or compiled.

    What is not in the table yet is measured, where the table is of this device. A table of another device serves as
    long as nothing is missing in it.

    Parameters
    ----------
    path
        JSON; read if there is one, and written by `save`. None: kept nowhere.
    device, threads
        What is measured on: ``cpu`` or ``cuda``, and the number of threads; by default the file's, or PyTorch's own.
    report
        Told of every measurement: key and latency.

    Attributes
    ----------
    made_on
        Device, threads and PyTorch version of the measurements.
    milliseconds
        Key of a block, which can be read, to its latency by submodule.
    used
        Keys of the blocks that were asked for.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        report: Callable[[str, float], None] | None = None,
    ) -> None:
        import torch

        check_threads(threads)
        self.path = None if path is None else Path(path)
        self.device, self.report = device, report
        self.made_on: dict[str, Any] = {}
        self.milliseconds: dict[str, dict[str, float]] = {}
        self.used: set[str] = set()
        self._unsaved = 0
        self._measured: dict[str, Block] = {}
        if self.path is not None and exists(self.path):
            self._read(self.path)
        self.threads = threads or self.made_on.get("threads") or torch.get_num_threads()
        self.here = {"device": device_name(device), "threads": self.threads, "torch": torch.__version__}
        self.made_on = self.made_on or self.here

    def _read(self, path: Path) -> None:
        what = f"{path}: not a table of latencies"
        try:
            content = read_json(path)
        except InputError as e:
            raise InputError(f"{what}: {str(e).removeprefix(f'{path}: ')}") from None
        found = LatencyFile.of(content, what)
        self.made_on = {"device": found.device, "threads": found.threads, "torch": found.torch}
        self.milliseconds = found.milliseconds

    def parts(self, block: Block) -> dict[str, float]:
        """Milliseconds of a block by submodule, each without those within it.

        Raises
        ------
        InputError
            If it is missing in a table of another device, number of threads or PyTorch.
        """
        key = block.key
        self.used.add(key)
        if key not in self.milliseconds:
            if other := [k for k, v in self.here.items() if self.made_on[k] != v]:
                raise InputError(
                    f"{self.path}: was measured with {other[0]} {self.made_on[other[0]]}, this is "
                    f"{self.here[other[0]]}, and it lacks '{key}': complete it where it was made, or name a new file"
                )
            self._measured[key] = block
            self.milliseconds[key] = self._measure_parts(block)
            if self.report:
                self.report(key, sum(self.milliseconds[key].values()))
            self._unsaved += 1
            if self._unsaved >= _SAVED_EVERY:
                self.save()
        return self.milliseconds[key]

    def measure_again(self) -> None:
        """Once more measure all blocks that were measured; the quicker time stays, the other was disturbed."""
        for key, block in self._measured.items():
            parts = self._measure_parts(block)
            if sum(parts.values()) < sum(self.milliseconds[key].values()):
                self.milliseconds[key] = parts
                self._unsaved += 1

    def _measure_parts(self, block: Block) -> dict[str, float]:
        module, x = block.build(), block.feed(self.device)
        total = self.measure(module, x)
        # Looking at the parts takes time itself, so only their shares are taken from there.
        watch = _Watch(module, self._synchronize)
        self.measure(module, x)
        shares = watch.stop()
        return {name: round(total * share, 6) for name, share in shares.items()}

    def measure(self, module: nn.Module, x: Any) -> float:
        """Median latency (ms) of `module` in eval mode on the input `x`, after warming up."""
        import torch

        module = module.to(self.device).eval()
        with torch.inference_mode(), torch_threads(self.threads):
            return median_ms(synchronized(lambda: module(x), self.device), _WARM_UP, _REPEATS)

    def _synchronize(self) -> None:
        from ..run.device import synchronize

        synchronize(self.device)

    def save(self) -> None:
        """Write the file, if there is anything new."""
        if self.path is None or not self._unsaved:
            return
        made_on = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in self.made_on.items()]
        blocks = [f" {json.dumps(key)}: {json.dumps(parts)}" for key, parts in self.milliseconds.items()]
        lines = [*made_on, '"milliseconds": {\n' + ",\n".join(blocks) + "\n}"]
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")
        self._unsaved = 0


class _Watch:
    """Times every submodule by itself, without those within it, as long as it is watching."""

    def __init__(self, module: nn.Module, synchronize: Callable[[], None]) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._running: list[list[float]] = []
        self._synchronize, self._handles = synchronize, []
        for name, m in module.named_modules():
            self._handles.append(m.register_forward_pre_hook(lambda _, __: self._begin()))
            self._handles.append(m.register_forward_hook(lambda _, __, ___, name=name: self._end(name)))

    def _now(self) -> float:
        self._synchronize()
        return time.perf_counter()

    def _begin(self) -> None:
        self._running.append([self._now(), 0.0])

    def _end(self, name: str) -> None:
        start, within = self._running.pop()
        seconds = self._now() - start
        self._seconds.setdefault(name, []).append(seconds - within)
        if self._running:
            self._running[-1][1] += seconds

    def stop(self) -> dict[str, float]:
        """Stop watching; share of each submodule in the sum of their medians."""
        for handle in self._handles:
            handle.remove()
        medians = {name: statistics.median(seconds) for name, seconds in self._seconds.items()}
        return {name: m / sum(medians.values()) for name, m in medians.items()}


def device_name(device: str) -> str:
    """The processor behind ``cpu`` or ``cuda``, as its maker calls it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.costs.latency_table",
        description="Measure the latency of every block of a space, on this device.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cfg", default="models/yolov5n_nas.yaml", help="YAML of the space")
    add("--imgsz", type=side, default=640, help="side of the images")
    add("--out", default="latency.json", help="JSON that is written; what it has already is kept")
    add("--device", default="cpu", help="cpu, cuda, the number of a CUDA device, or mps")
    add("--threads", type=threads, help="threads of PyTorch (default: those of --out, or 1)")
    add("--rounds", type=positive_int, default=3, help="so often every block is measured, with all others between")
    add(
        "--check",
        type=natural,
        default=0,
        metavar="N",
        help="compare N random archs' latency with that of their networks",
    )
    add("--seed", type=seed, default=0, help="of those archs")
    add_plugin_option(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Measure what is missing in the table, and write it; also what there is if it is interrupted."""
    from spaces import CostModel, Space

    from ..run.device import device_of

    def report(key: str, latency: float) -> None:
        print(f"{latency:10.3f} ms  {key}", flush=True)

    threads = args.threads or (None if Path(args.out).exists() else 1)
    table = LatencyTable(args.out, device_of(args.device), threads, report)
    space = Space(args.cfg)
    try:
        CostModel(space, args.imgsz, table)
        for _ in range(args.rounds - 1):
            table.measure_again()
    finally:
        table.save()
    on = f"{table.made_on['device']}, {table.made_on['threads']} threads, PyTorch {table.made_on['torch']}"
    print(f"{args.out}: {len(table.milliseconds)} blocks on {on}")
    if args.check:
        check(CostModel(space, args.imgsz, table), table, args.check, args.seed)


def check(model: Any, table: LatencyTable, number: int, seed: int) -> tuple[list[float], list[float]]:
    """Print, and return, the latency (ms) of random archs by the table and as measured on their whole networks."""
    import numpy as np
    import torch
    from scipy.stats import kendalltau, spearmanr

    from models.grammar import read_config
    from models.network import Network

    rng = random.Random(seed)
    modelled, measured = [], []
    for _ in range(number):
        arch = model.space.sample(rng)
        network = Network()
        network.build(read_config(model.space.freeze(arch)))
        size = model.space.freeze_resolution(arch) or model.imgsz
        x = torch.zeros(1, model.space.config.ch, size, size, device=table.device)
        modelled.append(float(model.of(arch)["latency"]))
        measured.append(table.measure(network, x))
        print(f"modelled {modelled[-1]:8.2f} ms   measured {measured[-1]:8.2f} ms", flush=True)
    ratio = np.array(modelled) / np.array(measured)
    print(
        f"rank correlation: Spearman {spearmanr(modelled, measured).statistic:.3f}, "
        f"Kendall {kendalltau(modelled, measured).statistic:.3f}; "
        f"modelled / measured: {ratio.mean():.3f} ± {ratio.std():.3f}"
    )
    return modelled, measured


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
