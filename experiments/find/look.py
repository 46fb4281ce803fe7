"""What the data are: splits, classes, sizes of images and boxes, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data import UnreadableImageError, detection_sources
from data.formats import spec_of

from ..inference.draw import draw_labels, save_sheet
from ..run.console import say
from ..run.tables import table
from .phases import Job
from .splits import SPLITS, class_notes, open_splits

_MOST_PIXELS, _LEAST_PIXELS, _STEP = 640, 64, 32
_SHOWN, _TILE = 12, 320
# Sides of boxes, in pixels of the network's input, below which little is found.
_SMALL = 8


def look(job: Job) -> dict[str, Any]:
    """Make the splits, and say what is to be known about them."""
    options = job.options
    found = open_splits(options.data, options.share, options.seed, job.path / "data")
    counts, notes = class_notes(found.names, found.pictures)
    train = found.pictures["train"]
    imgsz = options.imgsz or fitting_side([max(p.shape) for p in train])
    sides = np.concatenate(
        [
            np.sqrt(p.labels[:, 3] * p.labels[:, 4]) * np.sqrt(p.shape[0] * p.shape[1]) * imgsz / max(p.shape)
            for p in train
        ]
    )
    small = float((sides < _SMALL).mean())
    if small > 0.2:
        notes.append(
            f"{small:.0%} of the boxes are smaller than {_SMALL} pixels at {imgsz}: a larger --imgsz would help"
        )
    notes = [*found.notes, *notes]
    _picture(job)
    say(
        *notes,
        table(
            ["class", *SPLITS],
            [[name, *map(str, numbers)] for name, numbers in counts.items()][:30],
            f"boxes; images: {', '.join(f'{len(found.pictures[s])} {s}' for s in SPLITS)}",
            left=["class"],
        ),
        f"labels as they are read: {job.run.path / 'labels.jpg'}",
    )
    return {
        "names": list(found.names),
        "images": {s: len(found.pictures[s]) for s in SPLITS},
        "boxes": counts,
        "imgsz": imgsz,
        "box_sides": [round(float(q), 1) for q in np.quantile(sides, (0.1, 0.5, 0.9))],
        "notes": notes,
    }


def fitting_side(sides: list[int]) -> int:
    """Side of a network's input for images with these longer sides: their median, as a multiple of 32."""
    middle = round(float(np.median(sides)) / _STEP) * _STEP
    return min(max(middle, _LEAST_PIXELS), _MOST_PIXELS)


def _picture(job: Job) -> None:
    """``labels.jpg``: some training images with their boxes, to see whether they are right."""
    names, sources = detection_sources(spec_of(job.data))
    source = sources["train"]
    tiles = []
    for i in np.linspace(0, len(source.shapes) - 1, min(_SHOWN, len(source.shapes))).round().astype(int).tolist():
        try:
            image = source.read(i)
        except UnreadableImageError:
            continue
        tiles.append(draw_labels(image, torch.from_numpy(source.labels[i]), dict(enumerate(names))))
    save_sheet(job.path / "labels.jpg", tiles, _TILE)
