"""Tells the formats apart: a data.yaml or a folder becomes annotated images a split.

A data.yaml has YOLOv5's keys: `path` (the set's folder), `train`, `val`, `test`, `names` (list, or {0: name, …}) and
`nc`. `path` is looked for below the YAML's folder, then below the project's. `mirror: false` rules out flips. What
`train`, `val` and `test` hold says the format, unless `format` (yolo, coco, voc) does:

    folder of images, .txt list, list of those      YOLO
    FILE.json, {annotations: FILE.json, images: …}  COCO
    name of a list in ImageSets/Main/               Pascal VOC (there is a folder Annotations/)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.errors import InputError

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


def spec_of(source: str | Path, needs: Sequence[str] = ("train", "val")) -> Spec:
    """Reads a YAML file, a folder, or the name of a YAML in this package (`digits-detect`, `bccd`).

    needs: the splits that it has to have.
    """
    path = Path(source)
    shipped = HERE / f"{source}.yaml"
    if path.is_dir():
        return _from_folder(path, needs)
    if not path.is_file() and shipped.is_file():
        path = shipped
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        known = ", ".join(sorted(p.stem for p in HERE.glob("*.yaml")))
        raise InputError(f"{source}: no such data set; give a data.yaml, a folder, or one of {known}")
    return _from_yaml(path, needs)


def records(spec: Spec) -> tuple[tuple[str, ...], dict[str, tuple[list[Record], Report]]]:
    """Class names and, for each split there is, its annotated images with a report that was begun."""
    names = class_names(spec)
    splits = {}
    for split, entry in spec.entries.items():
        report = Report(split)
        splits[split] = _FORMATS[spec.format].records(entry, spec.root, f"{spec.where}: {split}", names, report), report
    return names, splits


def class_names(spec: Spec) -> tuple[str, ...]:
    """The YAML's class names, or those that the training split's annotations have."""
    if spec.names:
        return spec.names
    if spec.format == "yolo":
        raise InputError(f"{spec.where}: needs names, a list of the classes")
    reader = format_coco if spec.format == "coco" else format_voc
    return reader.class_names(spec.entries["train"], spec.root, f"{spec.where}: train")


def coco_ids(source: str | Path, split: str) -> tuple[dict[str, Any], list[Any]] | None:
    """Ids in a split of a COCO set: of each image by its file's name, and of each class. None for other formats."""
    spec = spec_of(source)
    if spec.format != "coco":
        return None
    return format_coco.ids(spec.entries[split], spec.root, f"{spec.where}: {split}", class_names(spec))


def _from_yaml(path: Path, needs: Sequence[str]) -> Spec:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: should be a mapping with train, val and names")
    root = _root(path, content.get("path"))
    entries = {split: content[split] for split in _SPLITS if content.get(split) is not None}
    kind = content.get("format") or _format_of(entries, root)
    if not entries and kind in ("coco", "voc"):
        entries = _entries(kind, root)
    for split in needs:
        if split not in entries:
            raise InputError(f"{path}: has no {split!r}; it should say where its images are")
    if kind not in (*_FORMATS, "digits-detect"):
        raise InputError(f"{path}: format {kind!r} is not one of {', '.join(_FORMATS)}")
    return Spec(str(path), root, kind, entries, _names(path, content), content)


def _from_folder(root: Path, needs: Sequence[str]) -> Spec:
    named = [root / "data.yaml"] if (root / "data.yaml").is_file() else sorted(root.glob("*.y*ml"))
    if len(named) == 1:
        return _from_yaml(named[0], needs)
    kind = "voc" if format_voc.is_voc(root) else "coco"
    entries = _entries(kind, root)
    if not set(needs) <= set(entries):
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
    if nc is not None and (not isinstance(nc, int) or nc < 1):
        raise InputError(f"{file}: nc is {nc!r}, should be the number of classes")
    if names is None:
        return None if nc is None else tuple(map(str, range(nc)))
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InputError(f"{file}: names should be numbered 0 to {len(names) - 1}, not {[*names]}")
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file}: names should be a list of the classes, or {{0: name, 1: name, …}}")
    if nc is not None and nc != len(names):
        raise InputError(f"{file}: nc is {nc}, but there are {len(names)} names")
    return tuple(map(str, names))
