"""Detections on test images, the worst first: what was missed, what is false, what is right."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.ops import box_iou

from data import UnreadableImageError, detection_sources
from data.formats import spec_of

from ..inference.draw import lettering
from .phases import Job

_SHOWN, _SIDE, _LETTERS, _IOU = 12, 360, 11, 0.5
COLOURS = {"right": "#1a9850", "false": "#d73027", "missed": "#f9a602"}


@dataclass(frozen=True)
class Judged:
    """What a detector did on an image: boxes (x1, y1, x2, y2, class, confidence) that are right, false and missed."""

    file: str
    right: list[tuple[float, ...]]
    false: list[tuple[float, ...]]
    missed: list[tuple[float, ...]]


def judge(file: str, detections: Any, objects: Any, conf: float) -> Judged:
    """Pair detections of at least `conf` with objects of their class, the most confident first, at IoU 0.5."""
    found = torch.tensor(detections, dtype=torch.float64).reshape(-1, 6)
    true = torch.tensor(objects, dtype=torch.float64).reshape(-1, 5)
    found = found[found[:, 4] >= conf]
    found = found[(-found[:, 4]).argsort(stable=True)]
    free = [True] * len(true)
    overlap = box_iou(found[:, :4], true[:, 1:])
    right, false = [], []
    for d, row in enumerate(found.tolist()):
        fits = [t for t in range(len(true)) if free[t] and int(true[t, 0]) == int(row[5]) and overlap[d, t] >= _IOU]
        box = (*row[:4], row[5], row[4])
        if fits:
            free[max(fits, key=lambda t: float(overlap[d, t]))] = False
            right.append(box)
        else:
            false.append(box)
    missed = [(*row[1:], row[0], 1.0) for row, is_free in zip(true.tolist(), free, strict=True) if is_free]
    return Judged(file, right, false, missed)


def worst(judged: list[Judged]) -> list[Judged]:
    """By what was missed, then by what is false."""
    return sorted(judged, key=lambda j: (-len(j.missed), -len(j.false), j.file))


def gallery(job: Job, conf: float) -> list[tuple[str, str]]:
    """A caption and a JPEG as a data URL of each image that is shown."""
    rows = json.loads((job.path / "test" / "detections.json").read_text(encoding="utf-8"))
    judged = worst([judge(r["file"], r["detections"], r["objects"], conf) for r in rows])
    names, sources = detection_sources(spec_of(job.data))
    test = sources["test"]
    place = {test.name(i): i for i in range(len(test.shapes))}
    found = []
    for j in judged[:_SHOWN]:
        try:
            image = test.read(place[j.file])
        except UnreadableImageError:
            continue
        said = f"{len(j.missed)} missed, {len(j.false)} false, {len(j.right)} right"
        found.append((f"{j.file.rsplit('/', 1)[-1]}: {said}", _jpeg(drawn(image, j, names))))
    return found


def drawn(image: np.ndarray, judged: Judged, names: Any) -> Image.Image:
    """The image at a side of 360 pixels, with the boxes in their colours."""
    picture = Image.fromarray(image)
    scale = _SIDE / max(picture.size)
    picture = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
    draw, named = ImageDraw.Draw(picture), dict(enumerate(names))
    for kind, boxes in (("right", judged.right), ("false", judged.false), ("missed", judged.missed)):
        for x1, y1, x2, y2, label, conf in boxes:
            corners = [x1 * scale, y1 * scale, max(x2, x1) * scale, max(y2, y1) * scale]
            draw.rectangle(corners, outline=COLOURS[kind], width=2)
            name, font = lettering(named, int(label), _LETTERS)
            text = name if kind == "missed" else f"{name} {conf:.2f}"
            box = draw.textbbox((corners[0], max(corners[1] - 13, 0)), text, font=font)
            draw.rectangle(box, fill=COLOURS[kind])
            draw.text((corners[0], max(corners[1] - 13, 0)), text, fill="white", font=font)
    return picture


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
