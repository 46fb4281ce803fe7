"""What a sandwich step costs, beside the same subnets as plain networks: ``python -m benchmarks.bignas_step``.

Beside every step of the supernet the same subnets are cut out of it, and each makes a step of its own on the same
batch: forward, detection loss, backward, AdamW. Who comes first alternates: on subnets that are new to the process, the
first has oneDNN make its kernels for their shapes, and the second finds them. Memory is the peak of a process that only
trains the one or the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

WARMUP = 2
SUBNETS = ("max", "random", "random", "min")
# Subnets of several sizes leave holes in glibc's heap, which are no tensors' memory.
HEAPS = {"tensors (freed memory goes back at once)": {"MALLOC_MMAP_THRESHOLD_": "65536"}, "glibc's heap as it is": {}}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--cfg", default="models/yolov5n_bignas.yaml", help="space of detectors")
    parser.add_argument("--imgsz", type=int, default=320, help="side of the images")
    parser.add_argument("--batch", type=int, default=8, help="images a batch")
    parser.add_argument("--steps", type=int, default=12, help="steps that are measured")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"], help="Lightning's")
    parser.add_argument("--only", choices=["supernet", "max"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def batches(args: argparse.Namespace, count: int) -> list[Any]:
    """Random images with 8 random boxes each."""
    import torch

    from data import Batch

    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        shape = (args.batch, 3, args.imgsz, args.imgsz)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        boxes = torch.rand(8 * args.batch, 4, generator=generator) * 0.4 + torch.tensor([0.3, 0.3, 0.05, 0.05])
        index = torch.arange(args.batch).repeat_interleave(8)[:, None]
        labels = torch.randint(0, 80, (len(index), 1), generator=generator)
        found.append(Batch(images, torch.cat((index, labels, boxes), 1).float(), ()))
    return found


def evaluator(args: argparse.Namespace, steps: int, epochs: int, callbacks: Sequence[Any] = ()) -> Any:
    from experiments.tasks.evaluator import Detection
    from spaces.nni_compat import DataLoader

    loader = DataLoader(batches(args, steps), batch_size=None)
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = dict.fromkeys(names, False)
    return Detection(
        [str(i) for i in range(80)],
        args.imgsz,
        train_dataloaders=loader,
        val_dataloaders=loader,
        max_epochs=epochs,
        accelerator="cpu",
        precision=args.precision,
        callbacks=[*callbacks],
        **quiet,
    )


def train(args: argparse.Namespace, distill: str, steps: int, epochs: int, callbacks: Sequence[Any] = ()) -> None:
    """Train a supernet by the strategy itself, on the same subnets in every epoch."""
    import torch

    from experiments.oneshot.samplers import Uniform
    from experiments.strategies import BigNAS
    from spaces import NASDETECTOR
    from spaces.nni_compat import RawFormatModelSpace, SequentialExecutionEngine

    class Again(Uniform):
        def __call__(self, number: int) -> Any:
            return super().__call__(number % (steps * SUBNETS.count("random")))

    torch.manual_seed(0)
    strategy = BigNAS(subnets=SUBNETS, distill=distill, sampler=Again)
    given = RawFormatModelSpace(NASDETECTOR(args.cfg), evaluator(args, steps, epochs, callbacks))
    strategy(given, SequentialExecutionEngine())


def plain_step(network: Any, optimizer: Any, module: Any, batch: Any, precision: str) -> float:
    """Seconds of a step of a plain network."""
    import torch

    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss, _ = module.loss(network(module.network_input(batch.images)), batch.targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def plain(args: argparse.Namespace, raw: Any) -> tuple[Any, Any, Any]:
    from experiments.tasks.detect import DetectionModule
    from models import Model

    network = Model(raw).train()
    module = DetectionModule([str(i) for i in range(80)], args.imgsz)
    module.set_model(network)
    return network, module.configure_optimizers(), module


def measure_steps(args: argparse.Namespace, distill: str) -> dict[str, tuple[float, float, float]]:
    """Medians of the sandwich step, of the sum of plain steps, and of their ratio step by step.

    Of an epoch with new subnets, by who comes first, and of one with the same subnets again.
    """
    import pytorch_lightning as pl

    from spaces import slice_weights

    times: dict[str, list[tuple[float, float]]] = {}

    class Beside(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            self.archs = module.archs(batch, batch_idx)
            if batch_idx % 2:
                self.plain(module, batch)
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            took = time.perf_counter() - self.start
            if not batch_idx % 2:
                self.plain(module, batch)
            said = "known subnets"
            if trainer.current_epoch == 0:
                said = f"new subnets, {'the plain networks' if batch_idx % 2 else 'the supernet'} first"
            if batch_idx >= WARMUP:
                times.setdefault(said, []).append((took, self.together))

        def plain(self, module: Any, batch: Any) -> None:
            self.together = 0.0
            for arch in self.archs:
                network, optimizer, own = plain(args, slice_weights(module.model, arch)[0])
                self.together += plain_step(network, optimizer, own, batch, args.precision)

    train(args, distill, WARMUP + args.steps, 2, [Beside()])
    median = statistics.median
    return {
        said: (median(a for a, _ in t), median(b for _, b in t), median(a / b for a, b in t))
        for said, t in times.items()
    }


def measure_setting(args: argparse.Namespace, count: int = 2000) -> dict[str, float]:
    """Milliseconds of drawing a subnet, and of setting the supernet to it."""
    from experiments.oneshot.bignas import BigNASModule
    from experiments.oneshot.samplers import make_sampler
    from experiments.strategies import BigNAS
    from spaces import NASDETECTOR, CostModel, Sizes, Space

    cost = CostModel(Space(args.cfg), args.imgsz)
    supernet = BigNAS(cost=cost).mutate_model(NASDETECTOR(args.cfg))
    found = {}
    for name in ("uniform", "stage_wise", "compofa", "fair", "flops_bin"):
        sampler = make_sampler(name, Sizes(cost))
        module = BigNASModule(_Nothing(), supernet.active, {}, sampler=sampler)
        times = []
        for number in range(count):
            start = time.perf_counter()
            module.set(sampler(number))
            times.append(time.perf_counter() - start)
        found[name] = 1000 * statistics.median(times)
    return found


def _Nothing() -> Any:  # noqa: N802
    import pytorch_lightning as pl

    return pl.LightningModule()


def peak(args: argparse.Namespace) -> int:
    """Bytes that training adds to a process that has everything imported."""
    import pytorch_lightning as pl
    import torch

    import experiments.oneshot.bignas  # noqa: F401
    from experiments.run.lightning import quiet_lightning
    from spaces import CostModel, Sizes, Space

    quiet_lightning()
    torch.set_num_threads(args.threads)
    made = evaluator(args, 3, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if args.only == "supernet":
        train(args, "auto", 3, 1)
    else:
        space = Space(args.cfg)
        _, _, module = plain(args, space.freeze(Sizes(CostModel(space, args.imgsz)).largest))
        trainer: pl.Trainer = made.trainer
        trainer.fit(module, made.train_dataloaders)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def in_a_process(args: argparse.Namespace, only: str, allocator: dict[str, str]) -> int:
    options = [f"--{k}={getattr(args, k)}" for k in ("cfg", "imgsz", "batch", "threads", "precision")]
    command = [sys.executable, "-m", "benchmarks.bignas_step", f"--only={only}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **allocator})
    return int(json.loads(done.stdout.splitlines()[-1]))


def main(args: argparse.Namespace) -> None:
    if args.only:
        print(json.dumps(peak(args)))
        return
    import torch

    from experiments.run.lightning import quiet_lightning

    torch.set_num_threads(args.threads)
    memory = {
        said: [in_a_process(args, only, allocator) for only in ("max", "supernet")] for said, allocator in HEAPS.items()
    }
    quiet_lightning()
    steps = {distill: measure_steps(args, distill) for distill in ("none", "mimic")}
    setting = measure_setting(args)
    print("# The cost of a sandwich step\n")
    print(f"`python -m benchmarks.bignas_step {' '.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}; ", end="")
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {version('torch')}.\n")
    print(f"{args.cfg}, {args.batch} images of {args.imgsz}, {args.precision}, subnets {', '.join(SUBNETS)};")
    print(f"medians of {args.steps} steps, the same subnets as plain networks taking turns with the supernet,")
    print("on the same batches.\n")
    print("| | sandwich step | sum of plain steps | ratio |\n|---|---|---|---|")
    for distill, epochs in steps.items():
        said = "labels for all" if distill == "none" else "labels and distillation"
        for when, (sandwich, together, share) in epochs.items():
            print(f"| {said}, {when} | {sandwich:.3f} s | {together:.3f} s | {share:.3f} |")
    print("\nPeak memory of training, beyond what the imports take:\n")
    print("| | largest network alone | supernet | ratio |\n|---|---|---|---|")
    for said, (alone, supernet) in memory.items():
        print(f"| {said} | {alone / 2**20:.0f} MiB | {supernet / 2**20:.0f} MiB | {supernet / alone:.3f} |")
    print("\nDrawing a subnet and setting the supernet to it:\n\n| sampler | ms |\n|---|---|")
    for name, ms in setting.items():
        print(f"| {name} | {ms:.3f} |")


if __name__ == "__main__":
    main(parse())
