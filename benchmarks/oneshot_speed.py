"""One-shot search beside NNI's own, and single paths beside plain networks: ``python -m benchmarks.oneshot_speed``.

Each peer is a process of its own, with the evaluator, batches and threads of the others, and makes a step when it is
told to. A round is one step of each, so that what else the machine does hits them alike. A process's memory is the
peak of its resident set beyond what it was before its network was built: weights, gradients, optimisers, activations.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Peer, what it is to be compared with, and what is aimed at: step time and memory over the other's.
PEERS = {
    "nni": ("NNI's DARTS", None, ()),
    "darts": ("our DARTS", "nni", (0.6, 0.6)),
    "plain": ("plain network", None, ()),
    "single": ("the same as a single path", "plain", (1.05, None)),
}
TASKS = {"classify": (64, 64), "detect": (320, 16)}  # side, batch: what oneshot_nas.py takes by itself
SAMPLING_LIMIT_MS = 0.2
WARMUP = 2
PAGE = "oneshot_speed.md"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg", default="models/yolov5n_nas.yaml", help="space (models/yolov5n_nas.yaml)")
    add("--task", choices=TASKS, nargs="+", default=list(TASKS), help="what is searched on (both)")
    add("--imgsz", type=int, help="side of the images (classify: 64, detect: 320)")
    add("--batch", type=int, help="images a batch (classify: 64, detect: 16)")
    add("--threads", type=int, default=2, help="of PyTorch (2)")
    add("--steps", type=int, default=15, help="rounds that are measured, after two that are not (15)")
    add("--seed", type=int, default=0, help="of the arch of the single path (0)")
    add("--write", action="store_true", help=f"write benchmarks/{PAGE} too")
    add("--peer", choices=[*PEERS, "sampling"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# A peer's process.


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def batches(args: argparse.Namespace, task: str) -> Any:
    """Random images; with a class each, or with 8 boxes each."""
    import torch

    from data import Batch
    from spaces.nni_compat import DataLoader

    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, 3, args.imgsz, args.imgsz)
    if task == "classify":
        images = torch.rand(shape, generator=generator)
        found: list[Any] = [(images, torch.randint(10, (args.batch,), generator=generator))]
    else:
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        boxes = torch.rand(8 * args.batch, 4, generator=generator) * 0.4 + torch.tensor([0.3, 0.3, 0.05, 0.05])
        index = torch.arange(args.batch).repeat_interleave(8)[:, None]
        labels = torch.randint(10, (len(index), 1), generator=generator)
        found = [Batch(pixels, torch.cat((index, labels, boxes), 1).float(), ())]
    return DataLoader(found * 8, batch_size=None, num_workers=0)


def on_command() -> Any:
    """A Lightning callback that makes a step for each line of stdin, and prints what it took in seconds."""
    import pytorch_lightning as pl

    class OnCommand(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if not sys.stdin.readline():
                sys.exit()
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            print(json.dumps(time.perf_counter() - self.start), flush=True)

    return OnCommand()


def nnis_darts() -> Any:
    """NNI's strategy, on bottlenecks as they are without the fused operations."""
    import torch

    from spaces.blocks import MixedBottleneck
    from spaces.nni_compat import nni

    class Plain(MixedBottleneck):
        def _masked(self, hidden: Any, x: Any) -> Any:
            channels = torch.arange(self.cv1.conv.out_channels)
            weights = [torch.as_tensor(p) * (channels < width) for width, p in hidden.items()]
            return self.cv2(self.cv1(x) * torch.stack(weights).sum(0).view(1, -1, 1, 1))

    return nni.nas.strategy.DARTS(mutation_hooks=[Plain.mutate])


def run_peer(args: argparse.Namespace) -> None:
    """Make steps as long as there are commands; then print the memory in MB."""

    import torch

    from experiments import strategies
    from experiments.run.lightning import quiet_lightning
    from experiments.tasks.evaluator import Classification, Detection
    from models.classifier import Classifier
    from models.detector import Model
    from models.grammar import read_config
    from spaces import NASBACKBONE, NASDETECTOR, Space

    quiet_lightning()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    (task,) = args.task
    space = Space(args.cfg)
    arch = space.sample(random.Random(args.seed))
    if args.peer == "sampling":
        print(json.dumps(1000 * sampling_seconds(NASBACKBONE(args.cfg, 10))))
        return
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer: dict[str, Any] = {"accelerator": "cpu", "max_epochs": -1, "limit_val_batches": 0}
    trainer |= {"callbacks": [on_command()], **dict.fromkeys(quiet, False)}
    loaders = {"train_dataloaders": batches(args, task), "val_dataloaders": batches(args, task)}
    if task == "classify":
        evaluator: Any = Classification(**loaders, **trainer)
    else:
        evaluator = Detection([str(i) for i in range(10)], args.imgsz, **loaders, **trainer)
    before = resident_mb()
    if args.peer == "plain":
        plain = Classifier if task == "classify" else Model
        network: Any = plain(read_config(space.freeze(arch), 10))
    else:
        strategy = {"nni": nnis_darts, "darts": strategies.DARTS, "single": strategies.SPOS}[args.peer]()
        network = strategy.mutate_model((NASBACKBONE if task == "classify" else NASDETECTOR)(args.cfg, 10))
        evaluator = strategy.mutate_evaluator(evaluator)
        if args.peer == "single":
            values = evaluator.module.choices
            evaluator.module.paths = lambda: iter([[values[label].index(arch[label]) for label in values]])
    try:
        evaluator.evaluate(network)
    finally:
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before), flush=True)


def sampling_seconds(space: Any, times: int = 2000) -> float:
    """Median time to draw an arch uniformly and to set a supernet to it."""
    from experiments import strategies

    strategy = strategies.SPOS()
    strategy.mutate_model(space)
    module = strategy.configure_oneshot_module(None)
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        (path,) = module.paths()
        module.take(path)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


# The process that has them make steps by turns.


def start(args: argparse.Namespace, task: str, peer: str) -> subprocess.Popen[str]:
    imgsz, batch = args.imgsz or TASKS[task][0], args.batch or TASKS[task][1]
    options = {"cfg": args.cfg, "task": task, "imgsz": imgsz, "batch": batch, "threads": args.threads, "peer": peer}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.oneshot_speed", "--seed", str(args.seed)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr)


def figures(process: subprocess.Popen[str]) -> Iterator[float]:
    """The numbers that a peer prints; other lines are NNI's or Lightning's."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            yield float(line)
        except ValueError:
            continue


def measure(args: argparse.Namespace, task: str) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each peer's steps, round by round, and its memory in MB."""
    processes = {peer: start(args, task, peer) for peer in PEERS}
    printed = {peer: figures(process) for peer, process in processes.items()}
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for i in range(WARMUP + args.steps):
        for peer, process in processes.items():
            assert process.stdin is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            seconds[peer].append(next(printed[peer]))
        print(f"{task}: round {i + 1} of {WARMUP + args.steps}", file=sys.stderr)
    memory = {}
    for peer, process in processes.items():
        assert process.stdin is not None
        process.stdin.close()
        memory[peer] = next(printed[peer])
        process.wait()
    return {peer: times[WARMUP:] for peer, times in seconds.items()}, memory


def rows(args: argparse.Namespace, task: str) -> Iterator[list[str]]:
    seconds, memory = measure(args, task)
    where = f"{task}, {args.imgsz or TASKS[task][0]} px, batch {args.batch or TASKS[task][1]}"
    for peer, (name, other, aims) in PEERS.items():
        times = seconds[peer]
        ratio = space = "1"
        if other is not None:
            ratios = sorted(own / its for own, its in zip(times, seconds[other], strict=True))
            quarter = len(ratios) // 4
            of_medians = statistics.median(times) / statistics.median(seconds[other])
            ratio = f"**{of_medians:.2f}** ({ratios[quarter]:.2f}-{ratios[-1 - quarter]:.2f}), aim {aims[0]}"
            space = f"**{memory[peer] / memory[other]:.2f}**" + (f", aim {aims[1]}" if aims[1] else "")
        low, median, high = min(times), statistics.median(times), max(times)
        spread = f"{1000 * low:.0f} / {1000 * median:.0f} / {1000 * high:.0f}"
        yield [where, name, spread, ratio, f"{memory[peer]:.0f}", space]


def table(args: argparse.Namespace) -> list[str]:
    head = ["", "peer", "step, ms: least / median / most", "ratio of medians (middle half of rounds)", "memory, MB", ""]
    lines = [head, ["---"] * len(head), *(row for task in args.task for row in rows(args, task))]
    sampling = start(args, "classify", "sampling")
    took = next(figures(sampling))
    sampling.communicate()
    return [
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
        f"Drawing an arch and setting the supernet to it takes {took:.3f} ms (aim: below {SAMPLING_LIMIT_MS} ms).",
    ]


def cpu() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def main(args: argparse.Namespace) -> None:
    if args.peer:
        run_peer(args)
        return
    flags = " ".join(arg for arg in sys.argv[1:] if arg != "--write")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "nni"))
    page = [
        "# Speed of one-shot search",
        "",
        f"{date.today()}. {args.threads} threads, {cpu()}, no GPU; Python {platform.python_version()}, {versions}.",
        "",
        "```bash",
        f"python -m benchmarks.oneshot_speed --write {flags}".rstrip(),
        "```",
        "",
        f"Space: `{args.cfg}`. A step of DARTS is one of the architecture and one of the weights. Each peer is a",
        f"process of its own, and they make their steps by turns, in {args.steps} rounds. Memory is the peak of its",
        "resident set beyond what it was before its network was built.",
        "",
        *table(args),
        "",
        *NOTES,
    ]
    print("\n".join(page))
    if args.write:
        path = Path(__file__).with_name(PAGE)
        path.write_text("\n".join(page) + "\n", encoding="utf-8")


NOTES = """\
Evaluator and batches are the same for all. The detection evaluator hands every network its images channels last, which
is faster for NNI's DARTS too; the classification evaluator does not, and our supernets change the layout by themselves.

## What makes the difference

- The architecture's step computes no gradient of a weight. Where only the mixture's weights want a gradient, that of
  the larger kernel is what the output has beyond the smaller one's.
- A mixture of kernels is one convolution with the mixed kernel.
- Batch normalisation, activations, their mixture and the mask of channels are one operation, which keeps its input and
  computes the rest again in the backward pass.
- Maps of more than 16 pixels are channels last on the CPU.

What was tried and left out: `cv1` and `cv2` of a C3's three widths as one convolution of all their channels. The
narrow convolutions already run at the CPU's peak, and splitting the result costs a copy.""".splitlines()


if __name__ == "__main__":
    main(parse())
