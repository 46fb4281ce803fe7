"""What keeps two cores busy: loading of mosaics, and two processes of one training.

``python -m benchmarks.training_speed --data bccd``

Images a second of the detection loader with worker processes, beside a pipeline that does per image what YOLOv5's
loader does, in the order in which it does it: read four files (or take them from memory), scale each, paste them on a
canvas of twice the side, warp it by a matrix, cut and filter boxes, look colours up, flip, transpose. And images a
second of a training by two processes of one thread each, beside one process of one thread, on equal batches together.
Peers take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

WARMUP = 2  # batches


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data", default="bccd", help="detection set")
    add("--cfg", default="models/yolov5n.yaml")
    add("--imgsz", type=int, default=320)
    add("--batch", type=int, default=16, help="images, over all processes")
    add("--workers", type=int, default=2, help="of a loader")
    add("--rounds", type=int, default=3)
    add("--epochs", type=int, default=3, help="that a loader gives in a round")
    add("--steps", type=int, default=12, help="of a training in a round")
    add("--only", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def per_image(data: Any, imgsz: int, in_memory: bool) -> Any:
    """A data set that makes each mosaic as YOLOv5's loader does."""
    import cv2
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    from data import Hyp
    from data.canvas import GREY

    hyp, source = Hyp(), data._source
    paths = [source.name(i) for i in range(len(data))]
    boxes = [labels.astype(np.float32) for labels in source.labels]
    kept: dict[int, Any] = {}

    def scaled(i: int) -> Any:
        if i in kept:
            return kept[i]
        image: Any = cv2.imread(paths[i])
        ratio = imgsz / max(image.shape[:2])
        if ratio != 1:
            size = (int(image.shape[1] * ratio), int(image.shape[0] * ratio))
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if in_memory:
            kept[i] = image
        return image

    class PerImage(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> Any:
            rng = np.random.default_rng()
            cx, cy = (int(v) for v in rng.uniform(imgsz / 2, 3 * imgsz / 2, 2))
            canvas: Any = np.full((2 * imgsz, 2 * imgsz, 3), GREY, np.uint8)
            rows = []
            for corner, k in enumerate([i, *rng.integers(len(paths), size=3)]):
                image, labels = scaled(int(k)), boxes[int(k)].copy()
                h, w = image.shape[:2]
                left, top = (cx - w, cx)[corner % 2], (cy - h, cy)[corner // 2]
                x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, 2 * imgsz), min(top + h, 2 * imgsz)
                canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
                x, y, half_w, half_h = labels[:, 1] * w, labels[:, 2] * h, labels[:, 3] * w / 2, labels[:, 4] * h / 2
                labels[:, 1], labels[:, 2] = x - half_w + left, y - half_h + top
                labels[:, 3], labels[:, 4] = x + half_w + left, y + half_h + top
                rows.append(labels)
            labels = np.concatenate(rows)
            np.clip(labels[:, 1:], 0, 2 * imgsz, out=labels[:, 1:])
            # Centre to the origin, scale and rotation, shift: a product of 3 x 3 matrices.
            centre, turn, shift = np.eye(3), np.eye(3), np.eye(3)
            centre[:2, 2] = -imgsz
            turn[:2] = cv2.getRotationMatrix2D((0, 0), 0, rng.uniform(1 - hyp.scale, 1 + hyp.scale))
            shift[:2, 2] = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * imgsz
            matrix = shift @ turn @ centre
            canvas = cv2.warpAffine(canvas, matrix[:2], (imgsz, imgsz), borderValue=(GREY, GREY, GREY))
            corners = np.ones((4 * len(labels), 3))
            corners[:, :2] = labels[:, [1, 2, 3, 4, 1, 4, 3, 2]].reshape(-1, 2)
            corners = (corners @ matrix.T)[:, :2].reshape(len(labels), 8)
            x, y = corners[:, ::2], corners[:, 1::2]
            new = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1).clip(0, imgsz)
            w, h = new[:, 2] - new[:, 0], new[:, 3] - new[:, 1]
            keep = (w > 2) & (h > 2) & (np.maximum(w / (h + 1e-16), h / (w + 1e-16)) < 100)
            labels = np.concatenate([labels[keep, :1], new[keep]], 1)
            gains = rng.uniform(-1, 1, 3) * [hyp.hsv_h, hyp.hsv_s, hyp.hsv_v] + 1
            hue, saturation, value = cv2.split(cv2.cvtColor(canvas, cv2.COLOR_BGR2HSV))
            levels = np.arange(256, dtype=gains.dtype)
            tables = [(levels * gains[0] % 180), (levels * gains[1]).clip(0, 255), (levels * gains[2]).clip(0, 255)]
            channels = zip((hue, saturation, value), tables, strict=True)
            merged = cv2.merge([cv2.LUT(channel, table.astype(np.uint8)) for channel, table in channels])
            canvas = cv2.cvtColor(merged, cv2.COLOR_HSV2BGR)
            centres = np.concatenate(
                [labels[:, :1], (labels[:, 1:3] + labels[:, 3:]) / 2, labels[:, 3:] - labels[:, 1:3]], 1
            )
            centres[:, 1:] /= imgsz
            if rng.random() < hyp.fliplr:
                canvas = np.fliplr(canvas)
                centres[:, 1] = 1 - centres[:, 1]
            image = np.ascontiguousarray(canvas.transpose(2, 0, 1)[::-1])
            targets = torch.zeros(len(centres), 6)
            targets[:, 1:] = torch.from_numpy(centres)
            return torch.from_numpy(image), targets

    return PerImage()


def joined(items: Any) -> Any:
    """Batches of `per_image`."""
    import torch

    images, targets = zip(*items, strict=True)
    for i, rows in enumerate(targets):
        rows[:, 0] = i
    return torch.stack(images), torch.cat(targets)


def loading(args: argparse.Namespace) -> dict[str, list[float]]:
    """Images a second of each loader, round by round."""
    import cv2
    from torch.utils.data import DataLoader

    from data import collate, detection
    from experiments.tasks.loaders import make_loader

    cv2.setNumThreads(0)
    data = detection(args.data, args.imgsz).train
    given: dict[str, Any] = {
        "batch_size": args.batch,
        "shuffle": True,
        "drop_last": True,
        "num_workers": args.workers,
        "persistent_workers": args.workers > 0,
        "collate_fn": joined,
    }
    loaders = {
        "ours": make_loader(data, args.batch, workers=args.workers, collate=collate),
        "per image, from files": DataLoader(per_image(data, args.imgsz, False), **given),
        "per image, from memory": DataLoader(per_image(data, args.imgsz, True), **given),
    }
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(args.rounds + 1):
        for name, loader in loaders.items():
            images, start = 0, time.perf_counter()
            for _ in range(args.epochs):
                images += sum(len(batch[0]) for batch in loader)
            if number:  # the first starts the workers, and fills their memory
                found[name].append(images / (time.perf_counter() - start))
    return found


def training(args: argparse.Namespace) -> None:
    """A training by so many processes; the first prints images a second."""
    import pytorch_lightning as pl
    import torch

    from data import collate, detection
    from experiments.run.lightning import make_trainer, quiet_lightning
    from experiments.run.options import made
    from experiments.tasks.detect import DetectionModule
    from experiments.tasks.loaders import make_loader
    from experiments.training.engine import Engine
    from experiments.training.loop import Training
    from experiments.training.options import Options
    from models import Model

    torch.set_num_threads(1)
    quiet_lightning()
    own: Any = {"imgsz": args.imgsz, "batch": args.batch, "devices": args.only, "device": "cpu", "data": args.data}
    options = made(Options, argparse.Namespace(**own))
    data = detection(args.data, args.imgsz)
    took: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            took.append(time.perf_counter())

    network = Model(args.cfg, nc=data.nc)
    learner = Training(DetectionModule(data.names, args.imgsz), network, Engine(options, args.batch))
    loader = make_loader(data.train, args.batch, workers=0, world=args.only, collate=collate)
    steps = min(args.steps + WARMUP, len(loader))
    trainer = make_trainer(
        options,
        "cpu",
        max_epochs=1,
        strategy="ddp" if args.only > 1 else "auto",
        logger=False,
        callbacks=[Clock()],
        enable_progress_bar=False,
        limit_train_batches=steps,
    )
    trainer.fit(learner, loader)
    if trainer.is_global_zero:
        print(json.dumps((len(took) - WARMUP - 1) * args.batch / (took[-1] - took[WARMUP])))


def by_processes(args: argparse.Namespace) -> dict[int, list[float]]:
    """Images a second of a training by one process, and by two."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(args.rounds):
        for number, rates in found.items():
            given = [f"--{name}={getattr(args, name)}" for name in ("data", "cfg", "imgsz", "batch", "steps")]
            command = [sys.executable, "-m", "benchmarks.training_speed", f"--only={number}", *given]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            rates.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main(args: argparse.Namespace) -> None:
    if args.only:
        training(args)
        return
    loaded, trained = loading(args), by_processes(args)
    print("# Loading and training on two cores\n")
    print(f"`python -m benchmarks.training_speed {' '.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}; ", end="")
    print(f"{platform.processor() or platform.machine()}, torch {version('torch')}.\n")
    print(f"{args.data} at {args.imgsz}, batches of {args.batch}; least, median and most of {args.rounds} rounds.\n")
    print("| | images/s | ratio of the medians |\n|---|---|---|")
    rates = [f"mosaics by {args.workers} workers: {name}" for name in loaded]
    rows = [*zip(rates, loaded.values(), [loaded["ours"]] * len(loaded), strict=True)]
    for name, own, ours in rows:
        ratio = statistics.median(ours) / statistics.median(own)
        said = "1" if own is ours else f"ours is {ratio:.2f} times as fast (aim 1.5)"
        print(f"| {name} | {min(own):.0f} / {statistics.median(own):.0f} / {max(own):.0f} | {said} |")
    for number, own in trained.items():
        ratio = statistics.median(own) / statistics.median(trained[1])
        said = "1" if number == 1 else f"{ratio:.2f} (aim 1.7)"
        print(
            f"| {args.cfg} by {number} processes of a thread | {min(own):.2f} / {statistics.median(own):.2f} / "
            f"{max(own):.2f} | {said} |"
        )


if __name__ == "__main__":
    main(parse())
