"""Classification sets of image files: Imagenette, Tiny ImageNet and any folder of folders."""

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import InputError
from models.text import read_text

from .classify_cifar import cifar, is_cifar
from .classify_source import Images, Source
from .download import download
from .images import UnreadableImageError, image_shape, in_threads, list_images, read_rgb

_log = logging.getLogger(__name__)
_RAM_BYTES = 2 << 30  # decoded images are kept in memory up to here
_SHIFT = 1 / 8
_ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet


def folder(path: Path, imgsz: int) -> Source:
    """A folder in the layout `<class>/…`, or `train/<class>/…` with `val/<class>/…` (or `test/<class>/…`).

    An unpacked archive of Tiny ImageNet or CIFAR is known by its own files.
    """
    if is_cifar(path):
        return cifar(path)
    if (path / "val" / _ANNOTATIONS).is_file():
        return _tinyimagenet(path, imgsz)
    train = path / "train"
    if not train.is_dir():
        names = _class_names(path)
        return _source([(p, k) for k, name in enumerate(names) for p in _images_of(path / name)], names, None, imgsz)
    val = next((path / part for part in ("val", "test") if (path / part).is_dir()), None)
    if val is None:
        raise InputError(f"{path}: has train/ but neither val/ nor test/ beside it")
    names = _class_names(train)
    for name in _class_names(val):
        if name not in names:
            raise InputError(f"{val / name}: class {name!r} has no folder in {train}")
    items = [(p, k) for k, name in enumerate(names) for p in _images_of(train / name)]
    held_out = [(p, k) for k, name in enumerate(names) if (val / name).is_dir() for p in _images_of(val / name)]
    return _source(items, names, held_out, imgsz)


def imagenette(root: Path, imgsz: int) -> Source:
    """Ten easy classes of ImageNet, 13,394 photographs (github.com/fastai/imagenette)."""
    from torchvision.datasets import Imagenette

    px = 160 if imgsz <= 160 else 320  # the short side in the archive
    stock = download("imagenette", root, lambda: Imagenette(str(root), size=f"{px}px", download=True))
    source = folder(root / f"imagenette2-{px}", imgsz)
    return Source(source.images, source.labels, tuple(c[0] for c in stock.classes), source.is_val, _SHIFT, flip=True)


def tinyimagenet(root: Path, imgsz: int) -> Source:
    """Tiny ImageNet, 200 classes, 64x64: the stock archive, unpacked, as `tiny-imagenet-200` in `root`."""
    return _tinyimagenet(root / "tiny-imagenet-200", imgsz)


def _tinyimagenet(home: Path, imgsz: int) -> Source:
    table = home / "val" / _ANNOTATIONS
    if not (home / "train").is_dir() or not table.is_file():
        raise InputError(
            f"{home}: not found or not whole; unpack tiny-imagenet-200.zip there"
            " (train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt)"
        )
    wnids = _class_names(home / "train")
    items = [(p, k) for k, wnid in enumerate(wnids) for p in _images_of(home / "train" / wnid)]
    label_of = {wnid: k for k, wnid in enumerate(wnids)}
    held_out = []
    for number, line in enumerate(read_text(table).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label_of:
            raise InputError(f"{table}:{number}: expected file, tab, wnid (one of the folders of train/), got {line!r}")
        held_out.append((home / "val" / "images" / fields[0], label_of[fields[1]]))
    return _source(items, wnids, held_out, imgsz)


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise InputError(f"{path}: has no class folders; images of class NAME go into {path}/NAME/")
    return names


def _images_of(path: Path) -> list[Path]:
    images = list_images(path)
    if not images:
        raise InputError(f"{path}: holds no images (.jpg, .png, …)")
    return images


def _source(
    items: list[tuple[Path, int]], names: tuple[str, ...], held_out: list[tuple[Path, int]] | None, imgsz: int
) -> Source:
    every = items + (held_out or [])
    paths = [path for path, _ in every]
    files = _Files(paths, imgsz)
    images: Images = files
    if len(paths) * 3 * imgsz * imgsz <= _RAM_BYTES:
        images = torch.stack(in_threads(files.__getitem__, range(len(paths))))  # finds every unreadable image, too
        blank = (images == images[..., :1, :1]).flatten(1).all(1).nonzero()[:, 0].tolist()
        if blank:
            named = ", ".join(str(paths[i]) for i in blank[:3]) + (", …" if len(blank) > 3 else "")
            _log.warning("%d of %d images are of one colour: %s", len(blank), len(paths), named)
    else:
        in_threads(_check_header, paths)
    is_val = None if held_out is None else np.arange(len(every)) >= len(items)
    return Source(images, np.array([k for _, k in every], dtype=np.int64), names, is_val, _SHIFT, flip=True)


class _Files:
    """Decodes on reading: short side to `imgsz`, centre crop, uint8 (3, imgsz, imgsz)."""

    def __init__(self, paths: list[Path], imgsz: int):
        self._paths, self._imgsz = paths, imgsz

    def __getitem__(self, i: int) -> Tensor:
        try:
            rgb = read_rgb(self._paths[i], at_least=self._imgsz)
        except UnreadableImageError as error:
            raise InputError(f"{self._paths[i]}: cannot be read ({error}); replace or delete it") from error
        height, width = rgb.shape[:2]
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        square = Image.fromarray(rgb).resize(
            (self._imgsz, self._imgsz), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _check_header(path: Path) -> None:
    try:
        image_shape(path)
    except UnreadableImageError as error:
        raise InputError(f"{path}: cannot be read ({error}); replace or delete it") from error
