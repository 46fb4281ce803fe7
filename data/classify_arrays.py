"""Classification sets that fit in memory as they are: digits, Fashion-MNIST.

Images stay uint8 at their native size and are resized item by item, which is cheaper than it is to hold them large.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from models.errors import InputError

from .classify_source import Source
from .download import download

# Where the Debian package dataset-fashion-mnist installs the four files.
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def digits(root: Path, imgsz: int) -> Source:
    """1,797 handwritten digits of 8x8 pixels (UCI Optical Recognition of Handwritten Digits, in scikit-learn)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # ink is counted 0 to 16
    names = tuple(str(digit) for digit in range(10))
    return Source(torch.from_numpy(images)[:, None], bunch.target.astype(np.int64), names, None, 1 / 16, flip=False)


def fashion_mnist(root: Path, imgsz: int) -> Source:
    """70,000 articles of clothing, 28x28, grey (arXiv:1708.07747).

    Read from `<root>/fashion-mnist`, else from Debian's package `dataset-fashion-mnist`, else downloaded.
    """
    for folder in (root / "fashion-mnist", _DEBIAN_FASHION, root / "FashionMNIST" / "raw"):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            break
    else:
        from torchvision.datasets import FashionMNIST

        hint = "or install the Debian package dataset-fashion-mnist"
        download("fashion-mnist", root, lambda: FashionMNIST(str(root), download=True), hint)
        folder = root / "FashionMNIST" / "raw"
    images, labels = [], []
    for split in ("train", "t10k"):
        pictures, classes = folder / f"{split}-images-idx3-ubyte.gz", folder / f"{split}-labels-idx1-ubyte.gz"
        images.append(_read_idx(pictures, ndim=3))
        labels.append(_read_idx(classes, ndim=1))
        if len(images[-1]) != len(labels[-1]):
            raise InputError(f"{classes}: {len(labels[-1])} labels for the {len(images[-1])} images of {pictures}")
        if labels[-1].max(initial=0) >= len(_FASHION_NAMES):
            raise InputError(f"{classes}: label {labels[-1].max()} is not one of 0 to {len(_FASHION_NAMES) - 1}")
    is_val = np.arange(sum(map(len, labels))) >= len(labels[0])
    pixels = torch.from_numpy(np.concatenate(images))[:, None]
    return Source(pixels, np.concatenate(labels).astype(np.int64), _FASHION_NAMES, is_val, 1 / 16, flip=True)


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """A gzipped IDX file of bytes: magic 00 00 08 ndim, each dimension as a big-endian uint32, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); it should be a gzipped IDX file") from error
    head = 4 + 4 * ndim
    if len(raw) < head or raw[:4] != bytes((0, 0, 8, ndim)):
        raise InputError(f"{path}: not an IDX file of bytes in {ndim} dimension(s)")
    shape = struct.unpack(f">{ndim}I", raw[4:head])
    pixels = np.frombuffer(bytearray(raw), np.uint8, offset=head)
    if pixels.size != np.prod(shape):
        raise InputError(f"{path}: holds {pixels.size} bytes, its header says {'x'.join(map(str, shape))}")
    return pixels.reshape(shape)
