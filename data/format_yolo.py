"""YOLO: a text file beside each image, a row a box: class, centre x, y, width, height, normalised.

`images/` in an image's path becomes `labels/` in its label file's. Rows with more numbers are polygons (class,
x1, y1, x2, y2, …), as in the labels of segmentation sets; the box is the one around them. Where the data.yaml has a
`kpt_shape`, they are a box and its key points.
"""

from math import isfinite
from pathlib import Path
from typing import Any

from models.errors import InputError

from .detect_index import Record
from .images import list_images
from .report import Report

_FAR = 2.0  # a normalised coordinate beyond this is surely in pixels
_ROUNDED = 0.01  # so far outside of the image a polygon's point may lie; visibilities of key points are 1 and 2


def records(
    entry: Any, root: Path, where: str, names: tuple[str, ...], report: Report, num_keypoints: int = 0
) -> list[Record]:
    """The images of a split. entry: a folder, a text file that lists images, or a list of those.

    num_keypoints: numbers behind the box in a row of a set of key points.
    """
    paths = [path for part in (entry if isinstance(entry, list) else [entry]) for path in _images(part, root, where)]
    found = []
    for path in paths:
        classes, boxes = _rows(_label_file(path), len(names), report, num_keypoints)
        found.append(Record(path, classes, boxes, in_pixels=False))
    return found


def _images(entry: Any, root: Path, where: str) -> list[Path]:
    if not isinstance(entry, str):
        raise InputError(f"{where}: {entry!r} should be a folder, a .txt list of images, or a list of those")
    place = root / entry
    if not place.exists() and entry.startswith("../"):
        place = root / entry[3:]  # Roboflow's exports count from a folder that is not there
    if place.is_file() and place.suffix == ".txt":
        lines = [line.strip() for line in place.read_text().splitlines()]
        paths = [_listed(line, place, root) for line in lines if line]
    elif place.is_dir():
        paths = list_images(place)
    else:
        raise InputError(f"{where}: {place} is neither a folder nor a .txt list of images")
    if not paths:
        raise InputError(f"{where}: {place} holds no images")
    return paths


def _listed(line: str, listing: Path, root: Path) -> Path:
    """A line is a path from the list's own folder, else from the set's."""
    beside = listing.parent / line
    return beside if beside.exists() else root / line


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _rows(
    path: Path, nc: int, report: Report, num_keypoints: int
) -> tuple[list[int], list[tuple[float, float, float, float]]]:
    classes: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        report.missing_labels += 1
        report.first_missing = report.first_missing or str(path)
        return classes, boxes
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        try:
            label, *values = map(float, fields)
        except ValueError:
            raise InputError(f"{path}:{number}: {line.strip()!r} should be numbers: class x y width height") from None
        if num_keypoints and len(values) == 4 + num_keypoints:
            values = values[:4]
        polygon = not num_keypoints and len(values) >= 6 and len(values) % 2 == 0
        if num_keypoints and len(values) != 4:
            raise InputError(
                f"{path}:{number}: has {len(fields)} numbers, should be {5 + num_keypoints} (kpt_shape) or 5: class "
                "x y width height"
            )
        if len(values) != 4 and not polygon:
            hint = "; of key points, right would be kpt_shape in the data.yaml" if len(values) > 6 else ""
            raise InputError(f"{path}:{number}: has {len(fields)} numbers, should be 5: class x y width height{hint}")
        if not all(map(isfinite, (label, *values))):
            raise InputError(f"{path}:{number}: {line.strip()!r} holds a number that is not finite")
        if max(map(abs, values)) > _FAR:
            raise InputError(f"{path}:{number}: {line.strip()!r} should be shares of the image's size, 0 to 1")
        if polygon and not all(-_ROUNDED <= v <= 1 + _ROUNDED for v in values):
            raise InputError(
                f"{path}:{number}: {line.strip()!r} is read as a polygon, whose points should lie from 0 to 1; of key "
                "points, right would be kpt_shape: [points, 2 or 3] in the data.yaml"
            )
        if label != int(label) or not 0 <= label < nc:
            raise InputError(f"{path}:{number}: class {fields[0]} is not one of 0 to {nc - 1} (nc={nc})")
        classes.append(int(label))
        if polygon:
            boxes.append((min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])))
        else:
            x, y, w, h = values
            boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return classes, boxes
