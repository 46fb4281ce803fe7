"""The same three small images, written in each format."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("cat", "dog", "cow")
SIZES = {"a": (80, 60), "b": (50, 50), "c": (40, 90)}  # width, height
# stem: (class, x1, y1, x2, y2), edges in pixels. c is background.
BOXES = {"a": [(0, 10, 20, 30, 50), (2, 0, 0, 80, 60)], "b": [(1, 5, 5, 17, 40)], "c": []}


def save(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def yolo_row(box: tuple, size: tuple[int, int]) -> str:
    k, x1, y1, x2, y2 = box
    w, h = size
    return f"{k} {(x1 + x2) / 2 / w:.8f} {(y1 + y2) / 2 / h:.8f} {(x2 - x1) / w:.8f} {(y2 - y1) / h:.8f}"


def yolo(root: Path) -> Path:
    """train: a, b, c; val: a. Returns the data.yaml."""
    for split, stems in (("train", "abc"), ("val", "a")):
        for stem in stems:
            save(root / f"images/{split}/{stem}.png", SIZES[stem])
            label = root / f"labels/{split}/{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(yolo_row(box, SIZES[stem]) + "\n" for box in BOXES[stem]))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnc: 3\nnames: [{', '.join(NAMES)}]\n")
    return root / "data.yaml"


def coco_content(stems: str) -> dict:
    ids = (7, 3, 90)  # neither contiguous nor in order of the classes' names
    order = sorted(range(3), key=lambda k: ids[k])
    return {
        "images": [{"id": 10 + i, "file_name": f"{s}.png"} for i, s in enumerate(stems)],
        "categories": [{"id": ids[k], "name": NAMES[k]} for k in reversed(order)],
        "annotations": [
            {"image_id": 10 + i, "category_id": ids[k], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for i, s in enumerate(stems)
            for k, x1, y1, x2, y2 in BOXES[s]
        ],
    }


def coco(root: Path) -> Path:
    """COCO's own layout. Returns the folder."""
    (root / "annotations").mkdir(parents=True)
    for split, stems in (("train", "abc"), ("val", "a")):
        for stem in stems:
            save(root / f"{split}2017/{stem}.png", SIZES[stem])
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco_content(stems)))
        (root / f"annotations/captions_{split}2017.json").write_text("{}")
    return root


def voc_object(name: str, box: tuple, extra: str = "") -> str:
    x1, y1, x2, y2 = box
    corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def voc(root: Path) -> Path:
    """Returns the folder."""
    for part in ("Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for stem, size in SIZES.items():
        save(root / f"JPEGImages/{stem}.png", size)
        objects = "".join(voc_object(NAMES[k], box) for k, *box in BOXES[stem])
        (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (root / "ImageSets/Main/val.txt").write_text("a\n")
    return root
