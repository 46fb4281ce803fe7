"""Lists of images with points, as the sets of face landmarks have them: WFLW's, 300W's .pts, and a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.documents import is_file, is_folder
from models.errors import InputError
from models.text import read_text

from .images import SUFFIXES

# Behind the coordinates of a row of WFLW: its box, and pose, expression, illumination, make-up, occlusion, blur.
_BOX, _ATTRIBUTES = 4, 6
_ANGLES = 3  # yaw, pitch and roll in degrees, which PFLD's own lists have behind the attributes


@dataclass(frozen=True)
class Marked:
    """An image with its points.

    Attributes
    ----------
    points
        (K, 2) float32, x and y in pixels from the left upper corner; or in shares of the image's sides.
    in_shares
        Which of both.
    angles
        Yaw, pitch and roll in degrees, where the list has them.
    where
        Of the row, for messages.
    """

    image: Path
    points: np.ndarray
    in_shares: bool
    angles: tuple[float, ...] | None
    where: str


def read_marked(kind: str, place: Path, images: Path) -> list[Marked]:
    """All images of a list, or of a folder of .pts.

    Parameters
    ----------
    kind
        ``wflw``, ``pts`` or ``csv``.
    images
        What names of images are below.

    Raises
    ------
    InputError
        A row has other numbers than the first one, or an image is not there; names file and row.
    """
    try:
        found = list(_READERS[kind](place, images))
    except csv.Error as e:
        raise InputError(f"{place}: not CSV: {e}") from None
    if not found:
        raise InputError(f"{place}: no image with points")
    first = found[0]
    for one in found:
        if one.points.shape != first.points.shape:
            raise InputError(f"{one.where}: {len(one.points)} points, but {first.where} has {len(first.points)}")
        if not is_file(one.image):
            raise InputError(f"{one.where}: no image {one.image}")
    return found


def _wflw(place: Path, images: Path) -> Iterator[Marked]:
    """Rows of ``x0 y0 … box attributes name``; or PFLD's, of cropped faces: ``name x0 y0 … attributes angles``."""
    for number, line in enumerate(read_text(place).splitlines(), start=1):
        words, where = line.split(), f"{place}:{number}"
        if not words:
            continue
        begins = not _is_number(words[0])
        name, values = (words[0], words[1:]) if begins else (words[-1], words[:-1])
        behind = _ATTRIBUTES + (_ANGLES if begins else _BOX)
        numbers = _floats(values, where)
        count = len(numbers) - behind
        if count < 4 or count % 2:
            right = "name x0 y0 … 6 attributes 3 angles" if begins else "x0 y0 … 4 of a box, 6 attributes, name"
            raise InputError(f"{where}: {len(numbers)} numbers; right would be {right}")
        angles = tuple(numbers[-_ANGLES:]) if begins else None
        yield Marked(images / name, _points(numbers[:count], where), begins, angles, where)


def _pts(place: Path, images: Path) -> Iterator[Marked]:
    """A folder of NAME.pts, each beside NAME.jpg or .png: 300W's, whose pixels are counted from 1."""
    if not is_folder(place):
        raise InputError(f"{place}: no folder; right would be one of .pts files")
    for file in sorted(place.rglob("*.pts")):
        text = read_text(file)
        inside = text[text.find("{") + 1 : text.rfind("}")] if "{" in text and "}" in text else None
        if inside is None:
            raise InputError(f"{file}: right would be version, n_points and the points in braces, a line each")
        numbers = _floats(inside.split(), str(file))
        if len(numbers) < 4 or len(numbers) % 2:
            raise InputError(f"{file}: {len(numbers)} numbers in braces; right would be x and y of each point")
        beside = [p for p in sorted(file.parent.glob(f"{file.stem}.*")) if p.suffix.lower() in SUFFIXES]
        if not beside:
            raise InputError(f"{file}: no image of this name beside it")
        yield Marked(beside[0], _points(numbers, str(file)) - 1, False, None, str(file))


def _csv(place: Path, images: Path) -> Iterator[Marked]:
    """A header and rows of ``image, x0, y0, x1, y1, …``."""
    reader = csv.reader(io.StringIO(read_text(place)))
    header = next(reader, [])
    if len(header) < 5 or len(header) % 2 == 0:
        raise InputError(f"{place}:1: {len(header)} columns; right would be image, x0, y0, x1, y1 and so on")
    for row in reader:
        where = f"{place}:{reader.line_num}"
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} columns; the header has {len(header)}")
        yield Marked(images / row[0], _points(_floats(row[1:], where), where), False, None, where)


def _points(numbers: list[float], where: str) -> np.ndarray:
    points = np.array(numbers, np.float32).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise InputError(f"{where}: a point that is not finite")
    return points


def _floats(words: list[str], where: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        bad = next(word for word in words if not _is_number(word))
        raise InputError(f"{where}: {bad[:40]!r} is no number") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path, Path], Iterator[Marked]]] = {"wflw": _wflw, "pts": _pts, "csv": _csv}
