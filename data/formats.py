"""Tells the formats apart: a data.yaml or a folder becomes annotated images a split.

A data.yaml has YOLOv5's keys: `path` (the set's folder), `train`, `val`, `test`, `names` (list, or {0: name, …}) and
`nc`. `path` is looked for below the YAML's folder, then below the project's. `mirror: false` rules out flips;
`kpt_shape: [points, 2 or 3]` says that YOLO's rows are boxes with key points, not polygons. What
`train`, `val` and `test` hold says the format, unless `format` (yolo, coco, voc) does:

    folder of images, .txt list, list of those      YOLO
    FILE.json, {annotations: FILE.json, images: …}  COCO
    name of a list in ImageSets/Main/               Pascal VOC (there is a folder Annotations/)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.classes import read_names, some, unnamed
from models.errors import InputError
from models.plain_yaml import load_plain

from . import format_coco, format_voc, format_yolo
from .detect_index import Record
from .report import Report

HERE = Path(__file__).resolve().parent
_SPLITS = ("train", "val", "test")
_FORMATS = {"yolo": format_yolo, "coco": format_coco, "voc": format_voc}


@dataclass(frozen=True)
class Spec:
    """A data.yaml, read, or what stands for one in a folder."""

    where: str  # for messages: the YAML file or the folder
    root: Path
    format: str
    entries: dict[str, Any]  # split: what the YAML says
    names: tuple[str, ...] | None
    options: dict[str, Any]  # every key of the YAML


def spec_of(source: str | Path) -> Spec:
    """Reads a YAML file, a folder, or the name of a YAML in this package (`digits-detect`, `bccd`)."""
    path = Path(source)
    shipped = HERE / f"{source}.yaml"
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file() and shipped.is_file():
        path = shipped
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        known = ", ".join(sorted(p.stem for p in HERE.glob("*.yaml")))
        raise InputError(f"{source}: no such data set; give a data.yaml, a folder, or one of {known}")
    return _from_yaml(path)


def records(spec: Spec) -> tuple[tuple[str, ...], dict[str, tuple[list[Record], Report]]]:
    """Class names and, for each split there is, its annotated images with a report that was begun."""
    names = class_names(spec)
    splits = {}
    more: dict[str, Any] = {"num_keypoints": _keypoints(spec)} if spec.format == "yolo" else {}
    for split, entry in spec.entries.items():
        report, where = Report(split), f"{spec.where}: {split}"
        splits[split] = _FORMATS[spec.format].records(entry, spec.root, where, names, report, **more), report
    return names, splits


def class_names(spec: Spec) -> tuple[str, ...]:
    """The YAML's class names, or those that the training split's annotations have."""
    if spec.names:
        return spec.names
    nc = spec.options.get("nc")
    if spec.format == "yolo":
        if nc is None:
            raise InputError(f"{spec.where}: needs names, a list of the classes")
        return unnamed(nc)
    reader = format_coco if spec.format == "coco" else format_voc
    found = reader.class_names(spec.entries["train"], spec.root, f"{spec.where}: train")
    if nc is not None and nc != len(found):
        raise InputError(f"{spec.where}: nc is {nc}, but the training annotations have {len(found)}: {some(found)}")
    return found


def coco_ids(source: str | Path, split: str) -> tuple[dict[str, Any], list[Any]] | None:
    """Ids in a split of a COCO set: of each image by its file's name, and of each class. None for other formats."""
    spec = spec_of(source)
    if spec.format != "coco":
        return None
    return format_coco.ids(spec.entries[split], spec.root, f"{spec.where}: {split}", class_names(spec))


def _from_yaml(path: Path) -> Spec:
    try:
        content = load_plain(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: should be a mapping with train, val and names")
    root = _root(path, content.get("path"))
    entries = {split: content[split] for split in _SPLITS if content.get(split) is not None}
    kind = content.get("format") or _format_of(entries, root)
    if not entries and kind in ("coco", "voc"):
        entries = _entries(kind, root)
    for split in ("train", "val"):
        if split not in entries:
            raise InputError(f"{path}: has no {split!r}; it should say where its images are")
    if kind not in (*_FORMATS, "digits-detect"):
        raise InputError(f"{path}: format {kind!r} is not one of {', '.join(_FORMATS)}")
    return Spec(str(path), root, kind, entries, _names(path, content), content)


def _from_folder(root: Path) -> Spec:
    named = [root / "data.yaml"] if (root / "data.yaml").is_file() else sorted(root.glob("*.y*ml"))
    if len(named) == 1:
        return _from_yaml(named[0])
    kind = "voc" if format_voc.is_voc(root) else "coco"
    entries = _entries(kind, root)
    if not {"train", "val"} <= set(entries):
        raise InputError(
            f"{root}: not a detection set; it should hold a data.yaml (YOLO), annotations/*train*.json and *val*.json"
            " (COCO), or Annotations/ and ImageSets/Main/{train,val}.txt (Pascal VOC)"
        )
    return Spec(str(root), root, kind, entries, None, {})


def _entries(kind: str, root: Path) -> dict[str, Any]:
    return format_voc.entries(root) if kind == "voc" else format_coco.entries(root)


def _format_of(entries: dict[str, Any], root: Path) -> str:
    train = entries.get("train")
    if isinstance(train, dict) or (isinstance(train, str) and train.endswith(".json")):
        return "coco"
    if format_voc.is_voc(root) and not (isinstance(train, str) and (root / train).exists()):
        return "voc"
    return "yolo"


def _root(file: Path, path: Any) -> Path:
    if path is None:
        return file.parent
    tried = [file.parent / str(path), HERE.parent / str(path)]
    for place in tried:
        if place.is_dir():
            return place
    raise InputError(f"{file}: path {path} is not a folder, neither {tried[0]} nor {tried[1]}")


def _names(file: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    names, nc = content.get("names"), content.get("nc")
    if nc is not None and (type(nc) is not int or nc < 1):
        raise InputError(f"{file}: nc is {nc!r}, should be the number of classes")
    if names is None:
        return None
    found = read_names(names, str(file))
    if nc is not None and nc != len(found):
        raise InputError(f"{file}: nc is {nc}, but there are {len(found)} names")
    return found


def _keypoints(spec: Spec) -> int:
    """Numbers behind the box in a row of a set of key points; 0 in others."""
    shape = spec.options.get("kpt_shape")
    if shape is None:
        return 0
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not whole or shape[0] < 1 or shape[1] not in (2, 3):
        raise InputError(f"{spec.where}: kpt_shape is {shape!r}; right would be [points, 2] or [points, 3]")
    return int(shape[0] * shape[1])
