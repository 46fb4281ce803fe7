"""COCO: one JSON a split, boxes as left, top, width, height in pixels, category ids with gaps.

Classes are numbered in the order of category ids, or by name when the data.yaml lists names, which may be some of the
categories. Crowds are not learnt; where AP is measured, detections in them count neither as right nor as wrong. Where
there is no file for validation, every fifth image of the only one is held out for it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from models.classes import read_names
from models.errors import InputError
from models.files import write_text
from models.text import read_text

from .detect_index import HELD_OUT, Ignored, Record
from .outline import of_coco
from .places import PROJECT, Finder, child, find, listed, local
from .report import Report

_SPLIT_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


def entries(root: Path) -> dict[str, Any]:
    """The splits of a folder: JSONs in `annotations/`, `train/` or itself, by their names; so val and test."""
    found: dict[str, Any] = {}
    for split, spellings in _SPLIT_NAMES.items():
        files = [file for name in spellings for files in _jsons(root, name) for file in sorted(files)]
        # Beside instances_*.json COCO ships captions and key points of the same images.
        files = [file for file in files if file.name.lower().startswith("instances")] or files
        if files:
            found[split] = str(files[0].relative_to(root))
    if "val" not in found and (file := found.get("train") or _only_json(root)):
        held_out = {"annotations": file, "held_out": True}
        found |= {"train": held_out | {"held_out": False}, "val": held_out}
    return found


def _only_json(root: Path) -> str | None:
    """The one file of annotations in a folder whose files are named for no split, such as `instances_default.json`."""
    for folder in (child(root, "annotations"), root):
        files = [p for p in folder.iterdir() if _is_json(p)] if folder is not None and folder.is_dir() else []
        files = [p for p in files if p.name.lower().startswith("instances")] or files
        if len(files) == 1 and _is_coco(files[0]):
            return str(files[0].relative_to(root))
    return None


def _is_coco(file: Path) -> bool:
    try:
        content = _load(file)
    except (OSError, InputError):
        return False
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _jsons(root: Path, split: str) -> Iterator[list[Path]]:
    """JSONs that are named for a split, or whose folder is; by place."""
    word = re.compile(rf"(?<![a-z]){split}(?![a-z])")

    def inside(name: str | None) -> list[Path]:
        folder = root if name is None else child(root, name)
        # An exported set may hold hidden files of its tool.
        return [] if folder is None or not folder.is_dir() else [p for p in folder.iterdir() if _is_json(p)]

    yield [p for p in inside("annotations") if word.search(p.stem.lower())]
    yield inside(split)
    yield [p for p in inside(None) if word.search(p.stem.lower())]


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and not path.name.startswith(".") and path.is_file()


def class_names(entry: Any, root: Path, where: str) -> tuple[str, ...]:
    """Names of the categories, in the order of their ids."""
    file, _ = _files(entry, root, where)
    categories = _field(_load(file), "categories", file)
    _once(categories, "category", file)
    # Two categories of one name are one class.
    return tuple(dict.fromkeys(_name(c, file) for c in sorted(categories, key=lambda c: _in_order(c["id"]))))


def ids(entry: Any, root: Path, where: str, names: tuple[str, ...]) -> tuple[dict[str, Any], list[Any]]:
    """The file's own id of each image, by the name of its file as it stands there, and of each class."""
    file, _ = _files(entry, root, where)
    content = _load(file)
    used = {_id(a.get("category_id")) for a in _field(content, "annotations", file)}
    by_name: dict[str, Any] = {}
    for c in _field(content, "categories", file):  # of two of one name, the one that has objects
        name = _name(c, file)
        if name not in by_name or _id(by_name[name]) not in used:
            by_name[name] = c["id"]
    images = {Path(local(i["file_name"])).as_posix(): i["id"] for i in _field(content, "images", file)}
    return images, [by_name.get(name) for name in names]


def records(
    entry: Any, root: Path, where: str, names: tuple[str, ...], report: Report, outlines: bool = False
) -> list[Record]:
    """The images of a split. entry: a JSON file, {annotations: JSON file, images: folder}, or what `entries` gives.

    outlines: whether to read polygons and RLE.
    """
    file, folder = _files(entry, root, where)
    content = _load(file)
    _once(_field(content, "categories", file), "category", file)
    categories = {_id(c["id"]): _name(c, file) for c in _field(content, "categories", file)}
    # A validation set need not have all of them.
    if report.split == "train" and (unknown := [n for n in names if n not in categories.values()]):
        raise InputError(
            f"{file}: has no category {unknown[0]!r}, which is one of the names; there are "
            f"{', '.join(dict.fromkeys(categories.values()))}"
        )
    class_of = {category: names.index(name) for category, name in categories.items() if name in names}

    bases = [folder] if folder else _image_folders(file, root, report.split)
    search = Finder(bases, bases, str(file))
    by_image: dict[str, Record] = {}
    by_path: dict[Path, Record] = {}  # two images of one file are one, with the objects of both
    _once(_field(content, "images", file), "image", file)
    for image in _field(content, "images", file):
        try:
            name = image["file_name"]
            path = search(name) or bases[0] / local(name)
            by_image[_id(image["id"])] = by_path.setdefault(path, Record(path, [], [], in_pixels=True))
        except (KeyError, TypeError):
            raise InputError(f"{file}: image {image!r} should have id and file_name") from None
    if not by_image:
        raise InputError(f"{file}: lists no images")
    others: set[str] = set()
    if isinstance(entry, dict) and "held_out" in entry:
        if len(by_image) < 2:
            raise InputError(f"{file}: lists one image, and one more is needed to validate on")
        picked = set([*by_image][:: min(HELD_OUT, len(by_image))])
        others = {i for i in by_image if (i in picked) != entry["held_out"]}
        by_image = {i: record for i, record in by_image.items() if i not in others}
        report.note = f"every {HELD_OUT}th image of {file.name} is held out for validation, which has no file"

    annotations = _field(content, "annotations", file)
    for number, annotation in enumerate(annotations):
        place = f"{file}: annotations[{number}]"
        try:
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            if annotation.get("iscrowd") and "bbox" not in annotation:
                report.skipped += 1
                continue
            x, y, w, h = _numbers(annotation["bbox"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{place}: needs image_id, category_id and bbox [left, top, width, height]") from None
        if not all(map(isfinite, (x, y, w, h))):
            raise InputError(f"{place}: bbox {annotation['bbox']} holds a number that is not finite")
        if _id(category_id) not in categories:
            known = f"nc={len(categories)}"
            raise InputError(f"{place}: category_id {category_id!r} is not one of the categories ({known})")
        if (record := by_image.get(_id(image_id))) is None:
            report.orphans += _id(image_id) not in others
            continue
        if (label := class_of.get(_id(category_id))) is None:
            report.others += 1
            continue
        box = (x, y, x + w, y + h)
        outline = of_coco(annotation.get("segmentation")) if outlines else None
        if annotation.get("iscrowd"):
            report.skipped += 1
            record.ignored.append(Ignored(label, box, True, outline))
            continue
        record.outlines.append(outline)
        record.classes.append(label)
        record.boxes.append(box)
    if annotations and report.orphans == len(annotations):
        example = annotations[0]["image_id"]
        raise InputError(f"{file}: no annotation is of one of its images; image_id {example!r} is not one of their ids")
    return [*{id(record): record for record in by_image.values()}.values()]


def write(
    path: str | Path,
    names: Sequence[str],
    images: Sequence[tuple[str, tuple[int, int]]],
    labels: Sequence[np.ndarray],
    ignored: Sequence[np.ndarray],
) -> None:
    """Writes a split's JSON. What is ignored becomes crowds, difficult objects of VOC too.

    images: file and (height, width) of each; labels: of each, as `detect.Item` has them; ignored: as `detect.Meta`.
    """
    found: list[dict[str, Any]] = []

    def add(image_id: int, label: float, box: list[float], crowd: bool) -> None:
        row = {"id": len(found) + 1, "image_id": image_id, "category_id": int(label) + 1, "bbox": box}
        found.append({**row, "area": box[2] * box[3], "iscrowd": int(crowd)})

    for image_id, ((_, (height, width)), rows, regions) in enumerate(zip(images, labels, ignored, strict=True), 1):
        for label, x, y, w, h in rows.tolist():
            add(image_id, label, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], False)
        for label, x1, y1, x2, y2, _ in regions.tolist():
            add(image_id, label, [x1, y1, x2 - x1, y2 - y1], True)
    content = {
        "images": [
            {"id": i, "file_name": name, "height": height, "width": width}
            for i, (name, (height, width)) in enumerate(images, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": found,
    }
    write_text(path, json.dumps(content))


def _id(value: Any) -> str:
    """An id to compare by: some tools write those of images as text and those of annotations as numbers."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _in_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their value, then other text."""
    text = _id(value)
    return (False, int(text), "") if text.isdecimal() else (True, 0, text)


def _files(entry: Any, root: Path, where: str) -> tuple[Path, Path | None]:
    """The JSON file, and the images' folder if it is named."""
    folder = None
    if isinstance(entry, dict) and isinstance(name := entry.get("annotations"), str):
        folder = entry.get("images")
    elif isinstance(entry, str):
        name = entry
    else:
        raise InputError(f"{where}: {entry!r} should be a JSON file or {{annotations: FILE.json, images: FOLDER}}")
    bases = [root, Path(), PROJECT]
    file, tried = find(name, bases, [root], Path.is_file, where=where)
    if file is None:
        raise InputError(f"{where}: {name} is not there; tried {listed(tried)}")
    if folder is None:
        return file, None
    images, tried = find(str(folder), bases, [root], Path.is_dir, where=where)
    if images is None:
        raise InputError(f"{where}: {folder} is not a folder of images; tried {listed(tried)}")
    return file, images


def _image_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Where images may lie when no folder is named, likeliest first."""
    year = re.sub("^instances_", "", file.stem, flags=re.IGNORECASE)  # instances_val2017.json -> val2017/
    near = [file.parent] if file.parent.name.lower() != "annotations" else []
    images = child(root, "images") or root / "images"
    named = [child(base, part) for part in (year, *_SPLIT_NAMES[split]) for base in (root, images)]
    return [*dict.fromkeys(p for p in (*near, *named, images, root) if p is not None and p.is_dir())]


def _name(category: dict[str, Any], file: Path) -> str:
    return read_names([category["name"]], f"{file}: category {category['id']!r}")[0]


def _once(items: list[Any], kind: str, file: Path) -> None:
    """InputError if two images, or two categories, have the same id: annotations would be of either."""
    seen: dict[Any, Any] = {}
    for item in items:
        if "id" not in item:
            continue  # said where it is read
        if (key := _id(item["id"])) in seen:
            first, second = (i.get("file_name", i.get("name")) for i in (seen[key], item))
            raise InputError(f"{file}: {kind} id {item['id']!r} is there twice, of {first!r} and of {second!r}")
        seen[key] = item


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list) or any(isinstance(v, bool) for v in values):  # a text would be taken by its letters
        raise TypeError
    return [float(v) for v in values]


def _load(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error})") from error


def _field(content: Any, key: str, file: Path) -> list[Any]:
    value = content.get(key) if isinstance(content, dict) else None
    needed = {"id", "name"} if key == "categories" else set()
    if not isinstance(value, list) or not all(isinstance(item, dict) and needed <= set(item) for item in value):
        raise InputError(f"{file}: should have a list {key!r}, as COCO's instances_*.json have")
    return value
