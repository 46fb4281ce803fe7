"""COCO: one JSON a split, boxes as left, top, width, height in pixels, category ids with gaps.

Classes are numbered in the order of category ids, or by name when the data.yaml lists names. Crowds are left out.
"""

import json
from math import isfinite
from pathlib import Path
from typing import Any

from models.classes import read_names
from models.errors import InputError

from .detect_index import Record
from .report import Report

_SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def entries(root: Path) -> dict[str, Any]:
    """The splits of a folder: `annotations/*train*.json`, `train/*.json` or `train*.json`; so for val and test."""
    found: dict[str, Any] = {}
    for split, spellings in _SPLIT_NAMES.items():
        for name in spellings:
            patterns = (f"annotations/*{name}*.json", f"{name}/*.json", f"{name}*.json")
            files = [file for pattern in patterns for file in sorted(root.glob(pattern))]
            # Beside instances_*.json COCO ships captions and key points of the same images.
            files = [file for file in files if file.name.startswith("instances")] or files
            if files and split not in found:
                found[split] = str(files[0].relative_to(root))
    return found


def class_names(entry: Any, root: Path, where: str) -> tuple[str, ...]:
    """Names of the categories, in the order of their ids."""
    file, _ = _files(entry, root, where)
    categories = _field(_load(file), "categories", file)
    _once(categories, "category", file)
    # Two categories of one name are one class.
    return tuple(dict.fromkeys(_name(c, file) for c in sorted(categories, key=lambda c: c["id"])))


def ids(entry: Any, root: Path, where: str, names: tuple[str, ...]) -> tuple[dict[str, Any], list[Any]]:
    """The file's own id of each image, by the name of its file as it stands there, and of each class."""
    file, _ = _files(entry, root, where)
    content = _load(file)
    used = {a.get("category_id") for a in _field(content, "annotations", file)}
    by_name: dict[str, Any] = {}
    for c in _field(content, "categories", file):  # of two of one name, the one that has objects
        if by_name.get(name := _name(c, file)) not in used:
            by_name[name] = c["id"]
    images = {Path(i["file_name"]).as_posix(): i["id"] for i in _field(content, "images", file)}
    return images, [by_name.get(name) for name in names]


def records(entry: Any, root: Path, where: str, names: tuple[str, ...], report: Report) -> list[Record]:
    """The images of a split. entry: a JSON file, or {annotations: JSON file, images: folder}."""
    file, folder = _files(entry, root, where)
    content = _load(file)
    class_of = {}
    _once(_field(content, "categories", file), "category", file)
    for category in _field(content, "categories", file):
        if (name := _name(category, file)) not in names:
            raise InputError(f"{file}: category {name!r} is not one of the names {', '.join(names)}")
        class_of[category["id"]] = names.index(name)

    bases = [folder] if folder else _image_folders(file, root, report.split)
    by_image: dict[Any, Record] = {}
    by_path: dict[Path, Record] = {}  # two images of one file are one, with the objects of both
    _once(_field(content, "images", file), "image", file)
    for image in _field(content, "images", file):
        try:
            path = next((b / image["file_name"] for b in bases if (b / image["file_name"]).is_file()), None)
            path = path or bases[0] / image["file_name"]
            by_image[image["id"]] = by_path.setdefault(path, Record(path, [], [], in_pixels=True))
        except (KeyError, TypeError):
            raise InputError(f"{file}: image {image!r} should have id and file_name") from None
    if not by_image:
        raise InputError(f"{file}: lists no images")

    for number, annotation in enumerate(_field(content, "annotations", file)):
        place = f"{file}: annotations[{number}]"
        if annotation.get("iscrowd"):
            report.skipped += 1
            continue
        try:
            x, y, w, h = _numbers(annotation["bbox"])
            image_id, category_id = annotation["image_id"], annotation["category_id"]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{place}: needs image_id, category_id and bbox [left, top, width, height]") from None
        if not all(map(isfinite, (x, y, w, h))):
            raise InputError(f"{place}: bbox {annotation['bbox']} holds a number that is not finite")
        if image_id not in by_image:
            raise InputError(f"{place}: image_id {image_id!r} is not one of the images")
        if category_id not in class_of:
            raise InputError(f"{place}: category_id {category_id!r} is not one of the categories (nc={len(names)})")
        by_image[image_id].classes.append(class_of[category_id])
        by_image[image_id].boxes.append((x, y, x + w, y + h))
    return list(by_path.values())


def _files(entry: Any, root: Path, where: str) -> tuple[Path, Path | None]:
    """The JSON file, and the images' folder if it is named."""
    if isinstance(entry, dict) and "annotations" in entry:
        file, folder = root / str(entry["annotations"]), root / str(entry["images"]) if "images" in entry else None
    elif isinstance(entry, str):
        file, folder = root / entry, None
    else:
        raise InputError(f"{where}: {entry!r} should be a JSON file or {{annotations: FILE.json, images: FOLDER}}")
    if not file.is_file():
        raise InputError(f"{where}: {file} is not there")
    if folder and not folder.is_dir():
        raise InputError(f"{where}: {folder} is not a folder of images")
    return file, folder


def _image_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Where images may lie when no folder is named, likeliest first."""
    year = file.stem.removeprefix("instances_")  # instances_val2017.json -> val2017/
    near = [file.parent] if file.parent.name != "annotations" else []
    named = [base / part for part in (year, *_SPLIT_NAMES[split]) for base in (root, root / "images")]
    return [p for p in (*near, *named, root / "images", root) if p.is_dir()]


def _name(category: dict[str, Any], file: Path) -> str:
    return read_names([category["name"]], f"{file}: category {category['id']!r}")[0]


def _once(items: list[Any], kind: str, file: Path) -> None:
    """InputError if two images, or two categories, have the same id: annotations would be of either."""
    seen: dict[Any, Any] = {}
    for item in items:
        if (id := item.get("id")) in seen and id is not None:
            first, second = (i.get("file_name", i.get("name")) for i in (seen[id], item))
            raise InputError(f"{file}: {kind} id {id!r} is there twice, of {first!r} and of {second!r}")
        seen[id] = item


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list) or any(isinstance(v, bool) for v in values):  # a text would be taken by its letters
        raise TypeError
    return [float(v) for v in values]


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from error


def _field(content: Any, key: str, file: Path) -> list[Any]:
    value = content.get(key) if isinstance(content, dict) else None
    needed = {"id", "name"} if key == "categories" else set()
    if not isinstance(value, list) or not all(isinstance(item, dict) and needed <= set(item) for item in value):
        raise InputError(f"{file}: should have a list {key!r}, as COCO's instances_*.json have")
    return value
