"""Detection data: one call gives training, validation and test sets from any format."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError

from . import augment, label_maps
from .augment import Hyp
from .canvas import GREY, Letterbox, fit, fitted, pad, to_tensor
from .chosen import chosen
from .detect_index import NOTHING_IGNORED, Index, Outlines, build
from .formats import DRAWN, Spec, class_names, records, spec_of
from .images import UnreadableImageError, in_threads, is_constant, read_rgb
from .outline import MASK_STRIDE, paint
from .report import Report
from .seeded import SeededDataset

_log = logging.getLogger(__name__)
_RAM_BYTES = 2 << 30  # a set's images are kept, decoded and scaled, up to here
_DEFAULT_HYP = Hyp()


class Meta(NamedTuple):
    """Where an image comes from. `letterbox` maps boxes back; None where augmentation leaves no way back."""

    name: str
    shape: tuple[int, int]  # (height, width) of the original
    letterbox: Letterbox | None
    ignored: np.ndarray = NOTHING_IGNORED  # float32 (k, 6): class, x1, y1, x2, y2 in pixels of the original, is a crowd
    outlines: Outlines | None = None  # of the labels and of what is ignored, where masks are asked for
    label_map: np.ndarray | None = None  # uint8 (height, width) of the original, where labels are asked for


class Item(NamedTuple):
    image: Tensor  # uint8 (3, H, W), RGB
    labels: Tensor  # float32 (n, 5): class, centre x, y, width, height, normalised to this tensor
    meta: Meta
    masks: Tensor | None = None  # uint8 (n, H / 4, W / 4), 0 or 1, of every label; or the image's label map (1, …)


class Batch(NamedTuple):
    images: Tensor  # uint8 (N, 3, H, W), RGB
    targets: Tensor  # float32 (M, 6): image in the batch, class, centre x, y, width, height, normalised
    metas: tuple[Meta, ...]
    masks: Tensor | None = None  # uint8 (M, H / 4, W / 4) of every target; or label maps (N, H / 4, W / 4)


def collate(items: Sequence[Item]) -> Batch:
    """For a DataLoader's `collate_fn`."""
    counts = torch.tensor([len(item.labels) for item in items])
    position = torch.arange(len(items), dtype=torch.float32).repeat_interleave(counts)
    targets = torch.cat([position[:, None], torch.cat([item.labels for item in items])], 1)
    masks = None if items[0].masks is None else torch.cat([item.masks for item in items if item.masks is not None])
    return Batch(torch.stack([item.image for item in items]), targets, tuple(item.meta for item in items), masks)


class ImageSource(Protocol):
    """Annotated images by position. Labels as in `Item`, of the original image, as numpy; `ignored` as in `Meta`."""

    @property
    def report(self) -> Report: ...
    @property
    def shapes(self) -> Sequence[tuple[int, int]]: ...
    @property
    def labels(self) -> Sequence[np.ndarray]: ...
    @property
    def ignored(self) -> Sequence[np.ndarray]: ...
    @property
    def outlines(self) -> Sequence[Outlines]: ...
    def name(self, i: int) -> str: ...
    def read(self, i: int) -> np.ndarray:
        """uint8 (height, width, 3) RGB. Raises UnreadableImageError."""

    def drop(self, bad: dict[int, str]) -> None:
        """Takes out images found unreadable, by position and with the reason."""


class DetectionSet(SeededDataset[Item]):
    """Letterboxed images, or augmented ones if there is a `hyp`. An item is a function of (seed, epoch, index).

    Images are decoded once, at construction, and kept if they fit in 2 GiB. In a set that is larger they are read
    anew each time, and one that proves unreadable then is warned of and stands in as grey background.

    names: of the classes that labels number.
    finds: what items have besides boxes: of ``masks`` every object needs an outline; of ``labels``, a class for every
        pixel, there are no boxes.
    """

    def __init__(
        self,
        source: ImageSource,
        imgsz: int,
        hyp: Hyp | None = None,
        seed: int = 0,
        names: tuple[str, ...] | None = None,
        finds: str = "boxes",
    ):
        super().__init__(seed)
        self.names = names
        self.imgsz, self.hyp, self.finds = imgsz, hyp, finds
        self._source: Any = source
        if finds == "masks":
            _require_outlines(source)
        self._cache: list[np.ndarray] | None = None
        if sum(3 * h * w for h, w in (fitted(shape, imgsz) for shape in source.shapes)) <= _RAM_BYTES:
            self._cache = self._decode_all()

    @property
    def report(self) -> Report:
        return self._source.report

    @property
    def labels(self) -> Sequence[np.ndarray]:
        """Of every image, float32 (n, 5) as in `Item`, for the original image: what anchors are computed from."""
        return self._source.labels

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of every original image."""
        return self._source.shapes

    def __len__(self) -> int:
        return len(self._source.shapes)

    def __getitem__(self, i: int) -> Item:
        return self.item(i, range(len(self)))

    def item(self, i: int, among: Sequence[int]) -> Item:
        """Item `i`, where augmentation mixes in images of `among` only."""
        name, shape = self._source.name(i), self._source.shapes[i]
        if self.hyp is None:
            scaled, labels = self._fitted(i)
            canvas, box = pad(scaled, shape, self.imgsz)
            labels = augment.moved_by(labels, 1, box.pad)
            outlines = self._source.outlines[i] if self.finds == "masks" else None
            pixels = self._source.label_map(i) if self.finds == "labels" else None
            meta = Meta(name, shape, box, self._source.ignored[i], outlines, pixels)
            return self._made(canvas, labels, meta)
        image, labels = self._augmented(i, self.hyp, self.rng(i), among)
        return self._made(image, labels, Meta(name, shape, None))

    def _made(self, image: np.ndarray, labels: np.ndarray, meta: Meta) -> Item:
        rows = labels[:0] if self.finds == "labels" else labels
        return Item(to_tensor(image), _normalised(rows, image), meta, self._painted(labels, image))

    def _painted(self, labels: np.ndarray, image: np.ndarray) -> Tensor | None:
        """The masks of labels with their frames, or the label map of the images that they are."""
        if self.finds == "boxes":
            return None
        size = [-(-side // MASK_STRIDE) for side in image.shape[:2]]
        if self.finds == "labels":
            whole = np.full(size, label_maps.NONE, dtype=np.uint8)
            for row in labels:
                pixels = self._source.label_map(int(row[9]))
                label_maps.paste(pixels, row[augment.FRAME] / MASK_STRIDE, whole, row[1:5] / MASK_STRIDE)
            return torch.from_numpy(whole)[None]
        found = np.zeros((len(labels), *size), dtype=np.uint8)
        for mask, row in zip(found, labels, strict=True):
            outline = self._source.outlines[int(row[9])].objects[int(row[10])]
            if outline is not None:
                mask[:] = paint(outline, row[augment.FRAME] / MASK_STRIDE, size, row[1:5] / MASK_STRIDE).on(size)
        return torch.from_numpy(found)

    def _augmented(
        self, i: int, hyp: Hyp, rng: np.random.Generator, among: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        image, labels = self._composed(i, hyp, rng, among)
        if rng.random() < hyp.mixup:
            other = among[int(rng.integers(len(among)))]
            image, labels = augment.mixup(image, labels, *self._composed(other, hyp, rng, among), rng=rng)
        image = augment.colour(image, hyp, rng)
        if rng.random() < hyp.fliplr:
            image, labels = augment.flip_left_right(image, labels)
        if rng.random() < hyp.flipud:
            image, labels = augment.flip_up_down(image, labels)
        return image, labels

    def _composed(
        self, i: int, hyp: Hyp, rng: np.random.Generator, among: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A mosaic that begins with image `i`, or that image alone; scaled and shifted."""
        if rng.random() < hyp.mosaic:
            four = rng.permutation([i, *(among[k] for k in rng.integers(len(among), size=3))])
            images, labels = zip(*(self._fitted(int(k)) for k in four), strict=True)
            canvas, rows = augment.mosaic(images, labels, self.imgsz, rng)
        else:
            canvas, rows = self._fitted(i)
        return augment.scale_and_shift(canvas, rows, self.imgsz, hyp, rng)

    def _fitted(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `i` with its longer side at imgsz, and its labels as `augment` has them."""
        labels, readable = self._source.labels[i], True
        if self._cache is not None:
            image = self._cache[i]
        else:
            try:
                image = fit(self._source.read(i), self.imgsz)
            except UnreadableImageError as error:
                _log.warning("%s: cannot be read (%s); taken as background", self._source.name(i), error)
                image = np.full((*fitted(self._source.shapes[i], self.imgsz), 3), GREY, dtype=np.uint8)
                labels, readable = labels[:0], False
        h, w = image.shape[:2]
        rows = labels.astype(np.float64)
        half = rows[:, 3:] / 2
        corners = np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], 1) * [w, h, w, h]
        found = np.concatenate([rows[:, :1], corners], 1)
        if self.finds == "labels":  # the image as one that is moved, cut and painted like an object
            found = np.array([[0, 0, 0, w, h, 0, 0, w, h, i, 0]], dtype=np.float64)[: 1 if readable else 0]
        elif self.finds == "masks":
            numbers = [[0, 0, w, h, i, k] for k in range(len(rows))]
            found = np.concatenate([found, np.array(numbers, dtype=np.float64).reshape(-1, 6)], 1)
        return image, found

    def _decode_all(self) -> list[np.ndarray]:
        images = in_threads(self._decode, range(len(self)))
        bad = {i: image for i, image in enumerate(images) if isinstance(image, str)}
        blank = [i for i, image in enumerate(images) if not isinstance(image, str) and is_constant(image)]
        if blank:
            self.report.constant = len(blank)
            named = ", ".join(self._source.name(i) for i in blank[:3]) + (", …" if len(blank) > 3 else "")
            _log.warning("%s: %d of %d images are of one colour: %s", self.report.split, len(blank), len(images), named)
        if bad:
            self._source.drop(bad)
        return [image for image in images if not isinstance(image, str)]

    def _decode(self, i: int) -> np.ndarray | str:
        try:
            return fit(self._source.read(i), self.imgsz)
        except UnreadableImageError as error:
            return str(error)


@dataclass(frozen=True)
class DetectionData:
    """What is trained and validated on, and the class names, in class order."""

    train: DetectionSet
    val: DetectionSet
    names: tuple[str, ...]

    @property
    def nc(self) -> int:
        return len(self.names)


def detection(
    source: str | Path,
    imgsz: int = 640,
    hyp: Hyp | None = _DEFAULT_HYP,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    single: bool = False,
    finds: str = "boxes",
) -> DetectionData:
    """Opens a detection set: YOLO, COCO or Pascal VOC, told apart by what is there (see `formats`); no test split.

    Args:
        source: a data.yaml, a folder, or the name of a set that has a YAML in this package (`digits-detect`, `bccd`).
        imgsz: longer side of an image on its canvas, in pixels.
        hyp: augmentation of the training set; None for none.
        seed: of the augmentation.
        classes: only these, by name or number, in this order; None for all.
        single: all of them as one class.
        finds: ``boxes``; ``masks`` besides, of the objects' polygons, RLE or pixels; or ``labels``, a class for every
            pixel (see `label_maps`), where objects with outlines stand for themselves and the rest is `background`.

    Raises:
        InputError: nothing there, a label that cannot be understood, more than half of the images corrupt, or, but for
            boxes, an object without an outline. What can be mended is mended and counted in each set's `report`.
    """
    if imgsz < 1:
        raise InputError(f"imgsz={imgsz}: the side of an image is 1 pixel or more")
    spec = spec_of(source)
    if hyp is not None and spec.options.get("mirror") is False:
        hyp = replace(hyp, fliplr=0.0, flipud=0.0)
    names, sources = _found(spec, ["train", "val"], finds, classes, single)
    sets = {
        split: DetectionSet(images, imgsz, hyp if split == "train" else None, seed, names, finds)
        for split, images in sources.items()
    }
    for split in sets.values():
        require_boxes(split, spec.where)
    return DetectionData(sets["train"], sets["val"], names)


def require_boxes(images: DetectionSet, where: str | Path) -> None:
    """InputError if no image has a box, so that nothing can be learnt or measured on them."""
    if any(map(len, images.labels)):
        return
    report = images.report
    looked = f"; the first label file that is missing: {report.first_missing}" if report.first_missing else ""
    raise InputError(f"{where}: there is nothing to find in any image: {report}{looked}")


def detection_split(
    source: str | Path,
    split: str,
    imgsz: int = 640,
    classes: Sequence[str] | None = None,
    single: bool = False,
    finds: str = "boxes",
) -> tuple[DetectionSet, tuple[str, ...]]:
    """One split of a detection set, without augmentation, and the class names. No other split's images are opened.

    Args:
        classes, single, finds: as in `detection`.

    Raises:
        InputError: as `detection`, or there is no such split.
    """
    if imgsz < 1:
        raise InputError(f"imgsz={imgsz}: the side of an image is 1 pixel or more")
    spec = spec_of(source)
    if split not in spec.entries:
        raise InputError(f"{spec.where}: has no {split!r}; right would be one of {', '.join(spec.entries)}")
    names, sources = _found(spec, [split], finds, classes, single)
    return DetectionSet(sources[split], imgsz, names=names, finds=finds), names


def detection_sources(spec: Spec) -> tuple[tuple[str, ...], dict[str, ImageSource]]:
    """Class names and the images of every split there is, as they lie; for who looks at a set as a whole."""
    return _sources(spec, list(spec.entries))


def _found(
    spec: Spec, splits: Sequence[str], finds: str, classes: Sequence[str] | None, single: bool
) -> tuple[tuple[str, ...], Mapping[str, ImageSource]]:
    """Class names and the images of these splits, with what is to be found in them."""
    if finds == "labels" and (maps := label_maps.read_maps(spec, splits)) is not None:
        if classes is not None or single:
            raise InputError(
                f"{spec.where}: --classes and --single-cls are not for label maps; right would be values: in it"
            )
        names, found = maps
        return names, found
    names, sources = chosen(*_sources(spec, splits, finds != "boxes"), classes, single)
    if finds != "labels":
        return names, sources
    for source in sources.values():
        _require_outlines(source)
    if label_maps.BACKGROUND not in names:
        names = (*names, label_maps.BACKGROUND)
    if len(names) > label_maps.NONE:
        raise InputError(
            f"{spec.where}: {len(names)} classes with the background; right would be {label_maps.NONE} at most"
        )
    background = names.index(label_maps.BACKGROUND)
    return names, {split: label_maps.Painted(source, background) for split, source in sources.items()}


def _require_outlines(source: ImageSource) -> None:
    """InputError if an object has none."""
    without = [(i, sum(o is None for o in found.objects)) for i, found in enumerate(source.outlines)]
    if number := sum(n for _, n in without):
        first = next(i for i, n in without if n)
        raise InputError(
            f"{source.report.split}: {number} of {source.report.boxes} objects have a box but no outline, the first in "
            f"{source.name(first)}; right would be polygons (YOLO's rows: class x1 y1 x2 y2 x3 y3 …), COCO's "
            "segmentation, or a YAML whose last row is Detect"
        )


def _sources(
    spec: Spec, splits: Sequence[str], outlines: bool = False
) -> tuple[tuple[str, ...], dict[str, ImageSource]]:
    """Class names and the images of these splits."""
    if spec.format in DRAWN:
        from .digits_detect import CLASS_NAMES, digit_images

        drawn = digit_images(spec.where, spec.entries, spec.options.get("canvas", 320), spec.format)
        return CLASS_NAMES, {split: drawn[split] for split in splits}
    names = class_names(spec)
    asked = replace(spec, names=names, entries={split: spec.entries[split] for split in splits})
    found = records(asked, outlines)[1]
    return names, {split: _Files(build(images, report)) for split, (images, report) in found.items()}


class _Files:
    """The image files of an index."""

    def __init__(self, index: Index):
        self._index = index
        self.report = index.report

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        return self._index.shapes

    @property
    def labels(self) -> Sequence[np.ndarray]:
        return self._index.labels

    @property
    def ignored(self) -> Sequence[np.ndarray]:
        return self._index.ignored

    @property
    def outlines(self) -> Sequence[Outlines]:
        return self._index.outlines

    def name(self, i: int) -> str:
        return str(self._index.paths[i])

    def read(self, i: int) -> np.ndarray:
        return read_rgb(self._index.paths[i])

    def drop(self, bad: dict[int, str]) -> None:
        self._index.drop(bad)


def _normalised(labels: np.ndarray, image: np.ndarray) -> Tensor:
    """class, x1, y1, x2, y2 in pixels to class, centre, size in shares."""
    h, w = image.shape[:2]
    corners = labels[:, 1:5] / [w, h, w, h]
    centre, side = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return torch.from_numpy(np.concatenate([labels[:, :1], centre, side], 1).astype(np.float32))
