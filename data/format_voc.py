"""Pascal VOC: an XML an image in Annotations/, images in JPEGImages/, splits as lists in ImageSets/Main/.

Coordinates are pixel numbers that start at 1 and include the last (VOC2012 development kit, section 3), so that
the edges of a box are xmin - 1 and xmax. Objects marked difficult are left out; a detection on one
counts as false, which VOC's own evaluation does not do.
"""

from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from models.errors import InputError

from .detect_index import Record
from .report import Report

_LISTS = {"train": ("train", "trainval"), "val": ("val", "test"), "test": ("test",)}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "ImageSets" / "Main").is_dir()


def entries(root: Path) -> dict[str, Any]:
    """The splits of a folder, by the lists that are there."""
    main = root / "ImageSets" / "Main"
    found: dict[str, Any] = {}
    for split, lists in _LISTS.items():
        name = next((name for name in lists if (main / f"{name}.txt").is_file()), None)
        if name:
            found[split] = name
    return found


def class_names(entry: Any, root: Path, where: str) -> tuple[str, ...]:
    """The objects' names in a split's XML files, sorted."""
    names = set()
    for image_id in _image_ids(entry, root, where):
        file = _annotation(root, image_id)
        if file.is_file():
            names |= {_text(obj, "name", file, number) for number, obj in enumerate(_objects(file), 1)}
    if not names:
        raise InputError(f"{where}: {root / 'Annotations'} names no objects for the images of {entry!r}")
    return tuple(sorted(names))


def records(entry: Any, root: Path, where: str, names: tuple[str, ...], report: Report) -> list[Record]:
    """The images of a split. entry: the name of a list in ImageSets/Main/."""
    class_of = {name: k for k, name in enumerate(names)}
    found = []
    for image_id in _image_ids(entry, root, where):
        record = Record(_image(root, image_id), [], [], in_pixels=True)
        found.append(record)
        file = _annotation(root, image_id)
        if not file.is_file():
            report.missing_labels += 1
            continue
        for number, obj in enumerate(_objects(file), 1):
            name = _text(obj, "name", file, number)
            if name not in class_of:
                raise InputError(f"{file}: object {number}: {name!r} is none of {', '.join(names)} (nc={len(names)})")
            if obj.findtext("difficult", "0").strip() == "1":
                report.skipped += 1
                continue
            record.classes.append(class_of[name])
            record.boxes.append(_box(obj, file, number))
    return found


def _image_ids(entry: Any, root: Path, where: str) -> list[str]:
    listing = root / "ImageSets" / "Main" / f"{entry}.txt"
    if not listing.is_file():
        raise InputError(f"{where}: {entry!r} should name a list in ImageSets/Main/, but {listing} is not there")
    ids = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    if not ids:
        raise InputError(f"{where}: {listing} lists no images")
    return ids


def _image(root: Path, image_id: str) -> Path:
    names = [root / "JPEGImages" / f"{image_id}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG")]
    return next((path for path in names if path.is_file()), names[0])


def _annotation(root: Path, image_id: str) -> Path:
    return root / "Annotations" / f"{image_id}.xml"


def _objects(file: Path) -> list[ElementTree.Element]:
    try:
        return ElementTree.parse(file).getroot().findall("object")
    except ElementTree.ParseError as error:
        raise InputError(f"{file}:{error.position[0]}: not XML ({error})") from error


def _text(obj: ElementTree.Element, tag: str, file: Path, number: int) -> str:
    text = (obj.findtext(tag) or "").strip()
    if not text:
        raise InputError(f"{file}: object {number}: has no <{tag}>")
    return text


def _box(obj: ElementTree.Element, file: Path, number: int) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(_text(obj, f"bndbox/{corner}", file, number)) for corner in _CORNERS)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{file}: object {number}: bndbox should hold numbers ({error})") from error
    if not all(map(isfinite, (x1, y1, x2, y2))):
        raise InputError(f"{file}: object {number}: bndbox holds a number that is not finite")
    if x2 <= x1 or y2 <= y1:
        return x1, y1, x2, y2  # a click without a drag, not an object of one pixel: no area
    return x1 - 1, y1 - 1, x2, y2
