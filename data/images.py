"""Reading image files: strictly, upright and in RGB."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, features

from models.documents import exists, is_file

# AVIF and JPEG 2000 where this Pillow was built with them; of a GIF the first picture.
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
    | {suffix for suffix, codec in ((".avif", "avif"), (".jp2", "jpg_2000")) if features.check(codec)}
)
# Those of other pictures, which are counted where they lie among images.
UNREAD = (
    frozenset(
        {
            ".arw",
            ".avif",
            ".cr2",
            ".cr3",
            ".dng",
            ".exr",
            ".hdr",
            ".heic",
            ".heif",
            ".jp2",
            ".jxl",
            ".nef",
            ".orf",
            ".pfm",
        }
        | {".psd", ".raf", ".raw", ".rw2", ".svg", ".tga"}
    )
    - SUFFIXES
)

_EXIF_ORIENTATION = 0x0112
_T = TypeVar("_T")
_R = TypeVar("_R")


class UnreadableImageError(Exception):
    """An image file that is missing, corrupt or truncated. The message is the reason, without the path."""


def list_images(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def unread_in(folder: Path) -> Counter[str]:
    """How many pictures below `folder` have a suffix that is not read, by suffix."""
    return Counter(p.suffix.lower() for p in folder.rglob("*") if p.suffix.lower() in UNREAD and p.is_file())


def image_shape(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, upright, from the header alone. Raises UnreadableImageError."""
    _check_file(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Orientations 5 to 8 lie on their side.
            # The base class's method: PNG's own decodes the whole image to look for EXIF behind the pixels.
            turned = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1) >= 5
            return (width, height) if turned else (height, width)
    except Exception as error:  # Pillow's plug-ins raise nearly anything on a bad file
        raise UnreadableImageError(_reason(error)) from error


def read_rgb(path: Path, at_least: int = 0) -> np.ndarray:
    """The image as uint8 (height, width, 3), upright. Raises UnreadableImageError, for a truncated file too.

    at_least: both sides may be decoded smaller than the file's, but never below this many pixels (0: full size).
        JPEG files are then scaled while they are decoded, which is several times faster.
    """
    _check_file(path)
    try:
        with Image.open(path) as image:
            if at_least:
                image.draft("RGB", (at_least, at_least))
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # more than 8 bits a pixel: convert() would clip, not scale
                return np.repeat(_in_8_bits(np.asarray(upright))[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def is_constant(image: np.ndarray) -> bool:
    """Whether an image is of one colour, as one is whose values were not meant as they were read."""
    return bool((image == image[:1, :1]).all())


def _in_8_bits(grey: np.ndarray) -> np.ndarray:
    """Grey values of any range as uint8 (height, width).

    16 bits are divided by 256, and floats from 0 to 1 multiplied by 255. Values that use neither range (10, 12 or 14
    bits of 16, degrees, signed numbers) are stretched from the image's least to its greatest.
    """
    is_float = grey.dtype.kind == "f"
    if is_float and not np.isfinite(grey).all():
        raise UnreadableImageError("holds values that are not finite")
    low, high = float(grey.min()), float(grey.max())
    if is_float and low >= 0 and high <= 1:
        return (grey * 255).round().astype(np.uint8)
    if not is_float and low >= 0 and 1 << 15 <= high < 1 << 16:
        return (grey.astype(np.int64) >> 8).astype(np.uint8)
    if high == low:
        return np.zeros(grey.shape, np.uint8)
    return ((grey.astype(np.float64) - low) * (255 / (high - low))).round().astype(np.uint8)


def in_threads(work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """`[work(item) for item in items]` on a few threads: decoding releases the interpreter's lock."""
    with ThreadPoolExecutor(min(8, cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _check_file(path: Path) -> None:
    if exists(path) and not is_file(path):  # to open a pipe waits for ever
        raise UnreadableImageError("not a file")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image file"
    return " ".join(str(error).split()) or type(error).__name__
