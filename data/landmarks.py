"""Images with points: one call gives the two halves that a search trains on, and a validation set.

A set is a YAML:

    format: wflw            # or pts, csv: see `landmark_files`
    train: list_98pt_rect_attr_train.txt
    val: list_98pt_rect_attr_test.txt
    images: WFLW_images     # what the names in lists are below; the YAML's folder unless said
    normalise: [60, 72]     # the two points whose distance an error is a share of; known for 68, 98 and 106 points
    crop: 1.2               # side of the square that is cut out around the points; null: the image as a whole
    flip: [1, 0, 2]         # the number that each point has in the mirrored image; without it nothing is mirrored
    rotate: 30              # degrees, of augmentation

or the name of a set that is built in: `digits-landmarks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import ConfigDict, Field
from sklearn.datasets import load_digits
from torch import Tensor

from models.documents import is_file, read_yaml
from models.errors import InputError
from models.schemas import Schema

from .classify import grey
from .classify_sets import LANDMARKS
from .images import UnreadableImageError, read_rgb
from .landmark_files import Marked, read_marked
from .places import PROJECT, direct, listed
from .seeded import SeededDataset
from .split import stratified

# Outer corners of the eyes (WFLW's 98, 300W's 68), and those of the 106 of JD-landmark: what NME is normalised by.
NORMALISED_BY = {106: (35, 93), 98: (60, 72), 68: (36, 45)}
_SCALE, _SHIFT = 0.1, 0.05  # of augmentation, shares of the side
_GREY = (114, 114, 114)


class LandmarkYaml(Schema):
    """A YAML of a set of landmarks."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["wflw", "pts", "csv"]
    train: str
    val: str
    images: str = "."
    normalise: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    crop: Annotated[float, Field(ge=1, le=10)] | None = 1.2
    flip: list[int] | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] = 30.0


@dataclass(frozen=True)
class Source:
    """A whole split: `draw(i, side)` gives an image (side, side, 3) uint8 and its points (K, 2) in pixels of that."""

    draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    number: int
    num_points: int
    angles: Sequence[tuple[float, ...] | None]
    flip: tuple[int, ...] | None
    rotate: float


class LandmarkSplit(SeededDataset[tuple[Tensor, Tensor]]):
    """Items are (float32 (ch, imgsz, imgsz) in [0, 1], float32 (2 K + 1)).

    The target is x0, y0, x1, … in shares of the side, and what PFLD's loss is weighed by, Σ (1 - cos) of the pose's
    angles, 0 where none is known. Augmented by (seed, epoch, index) or not at all.
    """

    def __init__(self, source: Source, indices: np.ndarray, imgsz: int, ch: int, seed: int, augment: bool):
        super().__init__(seed)
        self.indices, self._source, self._imgsz, self._ch, self._augmented = indices, source, imgsz, ch, augment

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        k = int(self.indices[i])
        image, points = self._source.draw(k, self._imgsz)
        roll = 0.0
        if self._augmented:
            image, points, roll = self._augment(image, points, self.rng(k))
        turned = [*(self._source.angles[k] or ())]
        if turned:
            turned[-1] += roll
        pose = sum(1 - np.cos(np.radians(angle)) for angle in turned)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div_(255)
        if self._ch == 1:
            pixels = grey(pixels)
        target = np.append(points.reshape(-1) / self._imgsz, pose)
        return pixels, torch.from_numpy(target.astype(np.float32))

    def _augment(
        self, image: np.ndarray, points: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Turned, scaled, shifted and mirrored, and by how many degrees it was turned."""
        side, flip = self._imgsz, self._source.flip
        roll = float(rng.uniform(-1, 1)) * self._source.rotate
        affine = cv2.getRotationMatrix2D((side / 2, side / 2), roll, 1 + rng.uniform(-_SCALE, _SCALE))
        affine[:, 2] = affine[:, 2] + rng.uniform(-_SHIFT, _SHIFT, 2) * side
        image = cv2.warpAffine(image, affine, (side, side), borderValue=_GREY)
        points = points @ affine[:, :2].T + affine[:, 2]
        if flip is not None and rng.random() < 0.5:
            image, points = image[:, ::-1], points[list(flip)] * (-1, 1) + (side - 1, 0)
        return image, points, roll


@dataclass(frozen=True)
class LandmarkData:
    """Three disjoint splits, the first two in one (`both`).

    Attributes
    ----------
    num_points
        K.
    normalise
        Numbers of the points whose distance an error is a share of.
    names
        Of what a network gives: ``x0``, ``y0``, ``x1`` and so on.
    """

    train: LandmarkSplit
    arch: LandmarkSplit
    both: LandmarkSplit
    val: LandmarkSplit
    num_points: int
    normalise: tuple[int, int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{axis}{k}" for k in range(self.num_points) for axis in "xy")


def landmarks(name: str | Path, imgsz: int = 112, seed: int = 0, arch_share: float = 0.5, ch: int = 3) -> LandmarkData:
    """Read a set and share out its training images.

    Parameters
    ----------
    name
        A YAML, or ``digits-landmarks``: the leftmost, rightmost, uppermost and lowest point and the centre of mass of
        scikit-learn's handwritten digits, drawn at any place and size on canvases with noise.
    arch_share
        Of the training images, for the architecture; above 0 and below 1.

    Raises
    ------
    InputError
        There is no such set, or a file of it is not as it should be; names file and row.
    """
    if ch not in (1, 3):
        raise InputError(f"ch={ch}: images have 1 channel (grey) or 3 (RGB)")
    if name == LANDMARKS:
        sources, normalise = {split: _digits(split) for split in ("train", "val")}, (2, 3)
    else:
        sources, normalise = _of_yaml(_place(name))
    train = sources["train"]
    weights, arch = stratified(np.zeros(train.number, int), (1 - arch_share, arch_share), seed)
    for part, indices in (("weights", weights), ("architecture", arch)):
        if not len(indices):
            raise InputError(f"{name}: {train.number} training images are too few, none is left for the {part}")

    def split(source: Source, indices: np.ndarray, augment: bool) -> LandmarkSplit:
        return LandmarkSplit(source, indices, imgsz, ch, seed, augment)

    return LandmarkData(
        train=split(train, weights, True),
        arch=split(train, arch, True),
        both=split(train, np.arange(train.number), True),
        val=split(sources["val"], np.arange(sources["val"].number), False),
        num_points=train.num_points,
        normalise=normalise,
    )


def _place(name: str | Path) -> Path:
    tried = direct(str(name), [Path(), PROJECT]) if str(name).strip() else []
    found = next((p for p in tried if is_file(p)), None)
    if found is None:
        raise InputError(
            f"{name}: no such set of landmarks; right would be {LANDMARKS} or a YAML; tried {listed(tried)}"
        )
    return found


def _of_yaml(file: Path) -> tuple[dict[str, Source], tuple[int, int]]:
    given = LandmarkYaml.of(read_yaml(file), file)
    below = file.parent
    marked = {s: read_marked(given.format, below / getattr(given, s), below / given.images) for s in ("train", "val")}
    number = len(marked["train"][0].points)
    if len(marked["val"][0].points) != number:
        raise InputError(f"{file}: {number} points in train and {len(marked['val'][0].points)} in val")
    normalise = given.normalise or NORMALISED_BY.get(number)
    if normalise is None or normalise[0] == normalise[1] or not all(0 <= k < number for k in normalise):
        raise InputError(
            f"{file}: normalise is {given.normalise}; right would be the numbers of two of the "
            f"{number} points, such as [0, {number - 1}]"
        )
    flip = None if given.flip is None else tuple(given.flip)
    if flip is not None and sorted(flip) != [*range(number)]:
        raise InputError(f"{file}: flip should have each of the numbers 0 to {number - 1} once")
    same = {one.image for one in marked["train"]} & {one.image for one in marked["val"]}
    if same:
        raise InputError(f"{file}: {len(same)} images are in train and in val, the first is {min(same)}")
    return {
        split: Source(_Drawn(rows, given.crop), len(rows), number, [m.angles for m in rows], flip, given.rotate)
        for split, rows in marked.items()
    }, (normalise[0], normalise[1])


class _Drawn:
    """Images of files, cut out around their points."""

    def __init__(self, rows: Sequence[Marked], crop: float | None) -> None:
        self._rows, self._crop = rows, crop

    def __call__(self, i: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        row = self._rows[i]
        try:
            image = read_rgb(row.image)
        except UnreadableImageError as e:
            raise InputError(f"{row.where}: {row.image}: {e}") from None
        height, width = image.shape[:2]
        points = row.points * ((width, height) if row.in_shares else (1, 1))
        low, high = points.min(0), points.max(0)
        if self._crop is None or row.in_shares:  # such images are cut out already
            corner, span = np.zeros(2), np.array([width, height], float)
        else:
            span = np.full(2, max(float((high - low).max()) * self._crop, 2.0))
            corner = (low + high) / 2 - span / 2
        scale = side / span
        affine = np.array([[scale[0], 0, -corner[0] * scale[0]], [0, scale[1], -corner[1] * scale[1]]])
        drawn = cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_LINEAR, borderValue=_GREY)
        return drawn, (points - corner) * scale


_CANVAS, _DIGIT, _INK = 64, (28, 48), 0.5


@cache
def _digits(split: str) -> Source:
    bunch = load_digits()
    own = stratified(bunch.target, (0.8, 0.2), 0)[("train", "val").index(split)]
    patterns = (bunch.images[own] / 16).astype(np.float32)
    rng = np.random.default_rng([0, len(own)])
    drawn = [_draw(pattern, rng) for pattern in patterns]

    def at(i: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        image, points = drawn[i]
        if side != _CANVAS:
            shrinks = side < _CANVAS
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.repeat(image[..., None], 3, 2), points * (side / _CANVAS)

    # Turned, the uppermost point is another one.
    return Source(at, len(own), 5, [None] * len(own), None, 0.0)


def _draw(pattern: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (64, 64), and left, right, top, bottom and centre of the ink, (5, 2)."""
    side = int(rng.integers(_DIGIT[0], _DIGIT[1] + 1))
    digit = cv2.resize(pattern, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    x, y = rng.integers(0, _CANVAS - side + 1, 2)
    ink = np.zeros((_CANVAS, _CANVAS), np.float32)
    ink[y : y + side, x : x + side] = digit
    ys, xs = np.nonzero(ink > _INK)
    ends = []
    for along, across, best in ((xs, ys, xs.min()), (xs, ys, xs.max()), (ys, xs, ys.min()), (ys, xs, ys.max())):
        middle = float(across[along == best].mean())
        ends.append((float(best), middle) if along is xs else (middle, float(best)))
    points = np.array([*ends, (xs.mean(), ys.mean())])
    paper, shade = rng.uniform(0, 100), rng.uniform(155, 255)
    image = paper + (shade - paper) * ink + rng.normal(0, 6, ink.shape)
    return image.clip(0, 255).astype(np.uint8), points
