"""A table of latencies, block by block, that is measured once on a device and composed for every arch.

As in FBNet (Wu et al. 2019, arXiv:1812.03443, section 3.2): the latency of a network is the sum of its blocks', of
which there are few, where networks are without number. This measures all blocks of a space:

    python -m experiments.costs.latency_table --cfg models/yolov5n_nas.yaml --imgsz 320 --out table.json

With ``--provider onnxruntime`` blocks are exported, and timed by the runtime that runs the detector in the end.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.documents import exists, read_json
from models.errors import InputError
from models.files import write_text
from models.schemas import LatencyFile

from ..run.cli import add_plugin_option, natural, not_negative, positive_int, run_script, seed, side, threads
from .timing import CLOCKS, REPEATS, WARM_UP, check_threads, synchronized, times_ms, torch_threads

if TYPE_CHECKING:
    from torch import nn

    from spaces.cost_block import Block

    from .exported_block import ExportedBlock

PROVIDERS = ("torch", "onnxruntime")
_WARM_UP, _REPEATS = WARM_UP, REPEATS
_SAVED_EVERY = 20
# Networks by which the sum of exported blocks is corrected, unless --fit says otherwise.
_FITTED = 8


class LatencyTable:
    """Latencies (ms) of blocks for one image.

    By ``torch`` in its eval mode, as they are built: nothing fused or compiled. By ``onnxruntime`` as they are
    exported, batch norms fused, within a chain (`exported_block`).

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
    provider, clock
        One of `PROVIDERS` and of `timing.CLOCKS`; by default the file's, or ``torch`` and ``wall``.
    pause
        Seconds of rest before each measurement, for devices that slow down as they get hot.

    Attributes
    ----------
    made_on
        Device, threads and versions of the measurements.
    milliseconds
        Key of a block, which can be read, to its latency by submodule.
    spread
        Key of a block that was measured to its runs: what nine of ten keep, as a multiple of the median.
    correction
        What makes a network's latency of the sum of its blocks': ``{"scale", "offset" (ms), "networks", "archs"}``, the
        last of which it was found by; None of the sum itself.
    checked
        What was found when composed latencies were compared with measured ones.
    used
        Keys of the blocks that were asked for.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        report: Callable[[str, float], None] | None = None,
        provider: str | None = None,
        clock: str | None = None,
        pause: float = 0.0,
    ) -> None:
        check_threads(threads)
        self.path = None if path is None else Path(path)
        self.report = report
        self.made_on: dict[str, Any] = {}
        self.milliseconds: dict[str, dict[str, float]] = {}
        self.spread: dict[str, float] = {}
        self.correction: dict[str, Any] | None = None
        self.checked: dict[str, Any] | None = None
        self.used: set[str] = set()
        self.pause = pause
        self._unsaved = 0
        self._measured: dict[str, Block] = {}
        self._exported: dict[str, ExportedBlock] = {}
        if self.path is not None and exists(self.path):
            self._read(self.path)
        if provider == "onnxruntime" and device != "cpu":
            raise InputError(f"provider onnxruntime measures on the CPU only, not on {device}")
        self.provider = self._option("provider", provider, PROVIDERS)
        self.device = "cpu" if self.provider == "onnxruntime" else device
        self.clock = self._option("clock", clock, CLOCKS)
        self.threads = self._threads(threads)
        self.here = self._here()
        self.made_on = self.made_on or self.here

    def _read(self, path: Path) -> None:
        what = f"{path}: not a table of latencies"
        try:
            content = read_json(path)
        except InputError as e:
            raise InputError(f"{what}: {str(e).removeprefix(f'{path}: ')}") from None
        found = LatencyFile.of(content, what)
        self.made_on = {"device": found.device, "threads": found.threads, "torch": found.torch}
        if found.provider == "onnxruntime":
            self.made_on |= {"provider": found.provider, "onnxruntime": found.onnxruntime}
        if found.clock != CLOCKS[0]:
            self.made_on |= {"clock": found.clock}
        self.milliseconds, self.checked = found.milliseconds, found.check
        self.correction = None if found.correction is None else found.correction.model_dump()

    def _option(self, name: str, given: str | None, known: Sequence[str]) -> str:
        """As it is given, or the file's, or the first of what there is."""
        if given is not None and given not in known:
            raise InputError(f"{name}: {given!r}: right would be {' or '.join(known)}")
        if not self.made_on:
            return given or known[0]
        file: str = self.made_on.get(name, known[0])
        if given not in (None, file):
            raise InputError(f"{self.path}: was made with {name} {file}, not {given}; right would be a new file")
        return file

    def _threads(self, threads: int | None) -> int:
        import torch

        number: int = threads or self.made_on.get("threads") or torch.get_num_threads()
        if self.clock == "cpu" and number > 1:
            raise InputError(f"--clock cpu is of one thread, and there are {number}; right would be --threads 1")
        return number

    def _here(self) -> dict[str, Any]:
        import torch

        here = {"device": device_name(self.device), "threads": self.threads, "torch": torch.__version__}
        if self.provider == "onnxruntime":
            from importlib.metadata import PackageNotFoundError, version

            try:
                here |= {"provider": self.provider, "onnxruntime": version("onnxruntime")}
            except PackageNotFoundError:
                here |= {"provider": self.provider, "onnxruntime": None}
        return here if self.clock == CLOCKS[0] else {**here, "clock": self.clock}

    @property
    def scale(self) -> float:
        """What the milliseconds of every block are multiplied by."""
        scale: float = self.correction["scale"] if self.correction else 1.0
        return scale

    @property
    def offset(self) -> float:
        """Milliseconds of a network beside its blocks."""
        offset: float = self.correction["offset"] if self.correction else 0.0
        return offset

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
            if other := [k for k, v in self.here.items() if self.made_on.get(k) != v]:
                raise InputError(
                    f"{self.path}: was measured with {other[0]} {self.made_on.get(other[0])}, this is "
                    f"{self.here[other[0]]}, and it lacks '{key}': complete it where it was made, or name a new file"
                )
            self._measured[key] = block
            self.milliseconds[key] = self._measure_parts(block)
            if self.report:
                self.report(key, sum(self.milliseconds[key].values()))
            self._unsaved += 1
            if self._unsaved >= _SAVED_EVERY:
                self.save()
        return {name: self.scale * ms for name, ms in self.milliseconds[key].items()}

    def measure_again(self) -> None:
        """Once more measure all blocks that were measured; the quicker time stays, the other was disturbed."""
        for key, block in self._measured.items():
            parts = self._measure_parts(block)
            if sum(parts.values()) < sum(self.milliseconds[key].values()):
                self.milliseconds[key] = parts
                self._unsaved += 1

    def correct(self, correction: dict[str, Any]) -> None:
        """Take a correction, in place of the one before."""
        self.correction = correction
        self._unsaved += 1

    def note(self, checked: dict[str, Any]) -> None:
        """Take what was found in a comparison, in place of the one before."""
        self.checked = checked
        self._unsaved += 1

    def _measure_parts(self, block: Block) -> dict[str, float]:
        if self.provider == "onnxruntime":
            return self._measure_exported(block)
        module, x = block.build(), block.feed(self.device)
        total = self.measure(module, x, block.key)
        # Looking at the parts takes time itself, so only their shares are taken from there.
        watch = _Watch(module, self._synchronize)
        self.measure(module, x)
        shares = watch.stop()
        return {name: round(total * share, 6) for name, share in shares.items()}

    def _measure_exported(self, block: Block) -> dict[str, float]:
        from .exported_block import ExportedBlock, forget

        if block.key not in self._exported:
            self._exported[block.key] = ExportedBlock(block, self.threads)
        exported = self._exported[block.key]
        total = self._median(exported.run(), block.key, forget)
        return {name: round(total * share, 6) for name, share in exported.shares().items()}

    def measure(self, module: nn.Module, x: Any, key: str | None = None) -> float:
        """Median latency (ms) of `module` in eval mode on the input `x`, after warming up."""
        import torch

        module = module.to(self.device).eval()
        with torch.inference_mode(), torch_threads(self.threads):
            return self._median(synchronized(lambda: module(x), self.device), key)

    def times(self, run: Callable[[], Any], before: Callable[[], Any] | None = None) -> list[float]:
        """Milliseconds of many runs, after a rest and warming up."""
        if self.pause:
            time.sleep(self.pause)
        return times_ms(run, _WARM_UP, _REPEATS, self.clock, before)

    def _median(self, run: Callable[[], Any], key: str | None, before: Callable[[], Any] | None = None) -> float:
        times = self.times(run, before)
        median = statistics.median(times)
        if key is not None and median:
            self.spread[key] = nine_of_ten(times) / median
        return median

    def _synchronize(self) -> None:
        from ..run.device import synchronize

        synchronize(self.device)

    def save(self) -> None:
        """Write the file, if there is anything new."""
        if self.path is None or not self._unsaved:
            return
        said = {**self.made_on, "correction": self.correction, "check": self.checked}
        made_on = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in said.items() if v is not None]
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
    add(
        "--provider",
        choices=PROVIDERS,
        help="what runs the blocks: as they are built, or as they are exported (default: that of --out, or torch)",
    )
    add("--device", default="cpu", help="cpu, cuda, the number of a CUDA device, or mps")
    add("--threads", type=threads, help="threads that compute (default: those of --out, or 1)")
    add(
        "--clock",
        choices=CLOCKS,
        help="on the wall, or of the processor, where others use the machine too (default: that of --out, or wall)",
    )
    add("--pause", type=not_negative, default=0.0, help="seconds of rest before each measurement, against heat")
    add(
        "--rounds",
        type=positive_int,
        default=3,
        help="so often all is measured, one after the other; the quickest stays",
    )
    add(
        "--fit",
        type=natural,
        metavar="N",
        help=f"correct the sum of blocks by N measured networks (default: {_FITTED} with onnxruntime, else 0)",
    )
    add(
        "--check",
        type=natural,
        default=0,
        metavar="N",
        help="compare N random archs' latency with that of their networks; it is written into --out",
    )
    add("--seed", type=seed, default=0, help="of those archs")
    add_plugin_option(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Measure what is missing in the table, and write it; also what there is if it is interrupted."""
    from spaces import CostModel, Space

    from ..run.device import device_of
    from .table_check import Networks, check, fit, why_not_whole

    def report(key: str, latency: float) -> None:
        print(f"{latency:10.3f} ms  {key}", flush=True)

    threads = args.threads or (None if Path(args.out).exists() else 1)
    options = {"provider": args.provider, "clock": args.clock, "pause": args.pause}
    table = LatencyTable(args.out, device_of(args.device), threads, report, **options)
    space = Space(args.cfg)
    why = why_not_whole(space, table.provider)
    if why and (args.fit or args.check):
        raise InputError(f"--{'fit' if args.fit else 'check'}: {why}")
    try:
        CostModel(space, args.imgsz, table, space.config.is_classifier)
        for _ in range(args.rounds - 1):
            table.measure_again()
        said = [f"{args.out}: {len(table.milliseconds)} blocks on {said_of(table)}"]
        if table.spread:
            said.append(f"nine of ten runs of a block keep {statistics.median(table.spread.values()):.2f} x its median")
        print("\n".join(said), flush=True)
        number = args.fit
        if number is None:  # a correction that is there holds on as long as no block is new
            wanted = table.provider == "onnxruntime" and not why and (table.spread or not table.correction)
            number = _FITTED if wanted else 0
        networks = Networks(space, args.imgsz, table, args.rounds, args.seed)
        if number:
            fit(networks, number)
        if args.check:
            check(networks, args.check, args.cfg)
    finally:
        table.save()


def said_of(table: LatencyTable) -> str:
    """What the latencies of a table are those of."""
    made_on = table.made_on
    by = f"PyTorch {made_on['torch']}"
    if table.provider == "onnxruntime":
        by = f"ONNX Runtime {made_on['onnxruntime']}, exported by {by}"
    clock = "the processor's time" if table.clock == "cpu" else "time on the wall"
    return (
        f"{made_on['device']}, {by}; threads: {made_on['threads']}; {clock}, median; one image, input and output in "
        "memory included, NMS not"
    )


def nine_of_ten(times: Sequence[float]) -> float:
    """What nine of ten keep."""
    return sorted(times)[max(math.ceil(0.9 * len(times)) - 1, 0)]


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
