"""Tells the formats apart: a data.yaml or a folder becomes annotated images a split.

A data.yaml has YOLOv5's keys: `path` (the set's folder), `train`, `val`, `test`, `names` (list, or {0: name, …}) and
`nc`. Paths are looked for below the YAML's folder (that of `train`, `val` and `test` below `path`), below the folder
that one is in, and below the project's. `mirror: false` rules out flips; `kpt_shape: [points, 2 or 3]` says that YOLO's
rows are boxes with key points, not polygons. What `train`, `val` and `test` hold says the format, unless `format`
(yolo, coco, voc) does:

    folder of images, image, pattern, .txt list, list of those  YOLO
    FILE.json, {annotations: FILE.json, images: …}              COCO
    name of a list in ImageSets/Main/                           Pascal VOC (there is a folder Annotations/)
    folder of images with an XML file beside each               Pascal VOC
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import limits
from models.classes import read_names, some, unnamed
from models.documents import exists, is_file, parse_yaml
from models.errors import InputError
from models.text import read_text

from . import format_coco, format_voc, format_yolo
from .detect_index import Record
from .places import PROJECT, child, direct, find, is_foreign, listed
from .report import Report

_log = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parent
_SPLITS = ("train", "val", "test")
DRAWN = ("digits-detect", "digits-segment")  # formats of sets that are drawn, not read
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
    tried = direct(str(source), [Path(), PROJECT, HERE]) if str(source).strip() else []
    path = next((place for place in tried if _exists(place)), None)
    shipped = HERE / f"{source}.yaml"
    if path is None and _exists(shipped):
        path = shipped
    if path is not None and path.is_dir():
        return _from_folder(path, needs)
    if path is not None and path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return _from_yaml(path, needs)
    known = ", ".join(sorted(p.stem for p in HERE.glob("*.yaml")))
    places = f"tried {listed(tried)}" if path is None else f"{path} is neither"
    raise InputError(f"{source}: no such data set; give a data.yaml, a folder, or one of {known}; {places}")


def _exists(place: Path) -> bool:
    return exists(place)


def records(spec: Spec, outlines: bool = False) -> tuple[tuple[str, ...], dict[str, tuple[list[Record], Report]]]:
    """Class names and, for each split there is, its annotated images with a report that was begun.

    outlines: whether objects are to have them, where the format knows any.
    """
    names = class_names(spec)
    splits = {}
    more: dict[str, Any] = {"num_keypoints": _keypoints(spec)} if spec.format == "yolo" else {}
    if spec.format != "voc":
        more["outlines"] = outlines
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


def coco_ids(
    source: str | Path, split: str, names: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[Any]] | None:
    """Ids in a split of a COCO set: of each image by its file's name, and of each class. None for other formats.

    names: of the classes, where they are not the set's own.
    """
    spec = spec_of(source)
    if spec.format != "coco":
        return None
    names = class_names(spec) if names is None else tuple(names)
    return format_coco.ids(spec.entries[split], spec.root, f"{spec.where}: {split}", names)


def _from_yaml(path: Path, needs: Sequence[str]) -> Spec:
    content = parse_yaml(_text(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: should be a mapping with train, val and names")
    entries = {split: content[split] for split in _SPLITS if content.get(split) is not None}
    root = _root(path, content.get("path"), entries)
    kind = content.get("format") or _format_of(entries, root)
    if not entries and kind in ("coco", "voc"):
        entries = _entries(kind, root)
    for split in needs:
        if split not in entries:
            raise InputError(f"{path}: has no {split!r}; it should say where its images are")
    if kind not in (*_FORMATS, *DRAWN):
        raise InputError(f"{path}: format {kind!r} is not one of {', '.join(_FORMATS)}")
    return Spec(str(path), root, kind, entries, _names(path, content), content)


def _text(path: Path) -> str:
    if not is_file(path) or path.stat().st_size > limits.TEXT_BYTES:
        raise InputError(f"{path}: right would be a file of {limits.TEXT_BYTES:,} bytes at most")
    try:
        return read_text(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _from_folder(root: Path, needs: Sequence[str]) -> Spec:
    named = next(
        (p for name in ("data.yaml", "data.yml") if (p := child(root, name)) is not None and p.is_file()), None
    )
    others = [] if named else [p for p in sorted(root.glob("*.y*ml")) if _is_data_yaml(p)]
    if named is not None or len(others) == 1:
        return _from_yaml(named or others[0], needs)
    root = root if named or others else _inside_devkit(root)
    kind = "voc" if format_voc.is_voc(root) else "coco"
    entries = _entries(kind, root)
    if not set(needs) <= set(entries):
        several = f"; it holds {', '.join(p.name for p in others)}: give one of them" if others else ""
        raise InputError(
            f"{root}: not a detection set; it should hold a data.yaml (YOLO), annotations/*train*.json and *val*.json"
            f" (COCO), or Annotations/ and ImageSets/Main/{{train,val}}.txt (Pascal VOC){several}"
        )
    return Spec(str(root), root, kind, entries, None, {})


def _inside_devkit(root: Path) -> Path:
    """The year's folder of VOC's development kit, as it is unpacked: `VOCdevkit/VOC2012`."""
    kit = child(root, "VOCdevkit") or root
    years = [p for p in sorted(kit.glob("VOC[0-9][0-9][0-9][0-9]")) if p.is_dir()]
    if len(years) > 1:
        raise InputError(f"{kit}: holds {', '.join(p.name for p in years)}: give the folder of one of them")
    return years[0] if years else root


def _is_data_yaml(path: Path) -> bool:
    """Whether a YAML in a folder says what is in it; others are of other tools, such as dvc.yaml."""
    try:
        content = parse_yaml(_text(path), path)
    except InputError:
        return False
    return isinstance(content, dict) and "train" in content


def _entries(kind: str, root: Path) -> dict[str, Any]:
    return format_voc.entries(root) if kind == "voc" else format_coco.entries(root)


def _format_of(entries: dict[str, Any], root: Path) -> str:
    train = entries.get("train")
    if isinstance(train, dict) or (isinstance(train, str) and train.lower().endswith(".json")):
        return "coco"
    place = format_yolo.place_of(train, root, "train")[0] if isinstance(train, str) and train.strip() else None
    if place is not None:
        return "voc" if place.is_dir() and format_voc.has_xml(place) else "yolo"
    return "voc" if format_voc.is_voc(root) else "yolo"


def _root(file: Path, path: Any, entries: dict[str, Any]) -> Path:
    """The set's folder. One of another machine may be the YAML's own, if that holds the training images."""
    if path is None:
        return file.parent
    place, tried = find(str(path), [file.parent, Path(), PROJECT], [file.parent], Path.is_dir, where=f"{file}: path")
    if place is not None:
        return place
    train = entries.get("train")
    if is_foreign(str(path)) and (not isinstance(train, str) or exists(file.parent / train)):
        _log.warning("%s: path %s is not here; taken is %s", file, path, file.parent)
        return file.parent
    raise InputError(f"{file}: path {path} is not a folder; tried {listed(tried)}")


def _names(file: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    names, nc = content.get("names"), content.get("nc")
    if nc is not None and (type(nc) is not int or not 1 <= nc <= limits.CLASSES):
        raise InputError(f"{file}: nc is {nc!r}, should be the number of classes, {limits.CLASSES:,} at most")
    if isinstance(names, (list, dict)) and len(names) > limits.CLASSES:
        raise InputError(f"{file}: {len(names):,} names; right would be {limits.CLASSES:,} at most")
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
