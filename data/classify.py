"""Classification data: one call gives the two halves that a one-shot search trains on, and a validation set.

A one-shot search updates weights on `train` and the architecture on `arch`, a second half of the training data
(DARTS, arXiv:1806.09055, section 2.3 and appendix A.1); `val` judges the result and is seen by neither.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import InputError

from .classify_arrays import cifar10, digits, fashion_mnist
from .classify_files import folder, imagenette, tinyimagenet
from .classify_sets import SETS, check_set, set_folder
from .classify_source import Source
from .cluttered_digits import cluttered_digits
from .seeded import SeededDataset
from .split import stratified

_SETS = dict(zip(SETS, (digits, cluttered_digits, fashion_mnist, cifar10, imagenette, tinyimagenet), strict=True))
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601


def grey(image: Tensor) -> Tensor:
    """RGB (3, H, W) as luma (1, H, W)."""
    return (image * _LUMA).sum(0, keepdim=True)


class ClassificationSplit(SeededDataset[tuple[Tensor, int]]):
    """Items are (float32 (ch, imgsz, imgsz) in [0, 1], label). Augmented by (seed, epoch, index) or not at all."""

    def __init__(self, source: Source, indices: np.ndarray, imgsz: int, ch: int, seed: int, augment: bool):
        super().__init__(seed)
        self.indices = indices  # into the whole set, so that two splits never draw the same augmentation
        self.labels = source.labels[indices]
        self._images, self._imgsz, self._ch = source.images, imgsz, ch
        self._shift = round(source.shift * imgsz) if augment else 0
        self._flip = source.flip and augment

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self._images[int(self.indices[i])].float().div_(255)
        if image.shape[-1] != self._imgsz:
            smaller = image.shape[-1] > self._imgsz
            image = F.interpolate(image[None], (self._imgsz, self._imgsz), mode="bilinear", antialias=smaller)[0]
        if self._shift or self._flip:
            image = self._augment(image, self.rng(int(self.indices[i])))
        if self._ch == 1 and image.shape[0] == 3:
            image = grey(image)
        return image.expand(self._ch, -1, -1), int(self.labels[i])

    def _augment(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        if self._flip and rng.random() < 0.5:
            image = image.flip(-1)
        if self._shift:
            dx, dy = rng.integers(-self._shift, self._shift + 1, 2).tolist()
            # A negative pad crops: the image moves and black fills the gap.
            image = F.pad(image, (dx, -dx, dy, -dy))
        return image


@dataclass(frozen=True)
class ClassificationData:
    """Three disjoint splits, the first two in one (`both`), and the class names, in label order."""

    train: ClassificationSplit
    arch: ClassificationSplit
    both: ClassificationSplit
    val: ClassificationSplit
    names: tuple[str, ...]

    @property
    def nc(self) -> int:
        return len(self.names)


def classification(
    name: str | Path,
    imgsz: int = 64,
    seed: int = 0,
    root: str | Path | None = None,
    ch: int = 3,
    arch_share: float = 0.5,
) -> ClassificationData:
    """Loads a set and splits it, stratified and seeded.

    An official test or validation split is `val`, a fifth of a set without one; of the rest, `arch` has its share and
    `train` the others. `train` and `arch` are augmented alike (shift; flip where a mirror image is of the same
    class), `val` is not.

    Args:
        name: `digits`, `cluttered-digits`, `fashion-mnist`, `cifar10`, `imagenette`, `tinyimagenet`, or a folder of
            images in the layout
            `<class>/…` or `train/<class>/…` with `val/<class>/…` (or `test/…`).
        imgsz: side of the square images, in pixels.
        seed: of the splits and of the augmentation.
        root: where archives are looked for and downloaded to; `datasets/` below the current directory if None.
        arch_share: above 0 and below 1.
        ch: 1 or 3 channels. Grey images are repeated, colour images weighted to luma.

    Raises:
        InputError: unknown name, no data at the place, a failed download, an image that cannot be read.
    """
    if ch not in (1, 3):
        raise InputError(f"ch={ch}: images have 1 channel (grey) or 3 (RGB)")
    if imgsz < 1:
        raise InputError(f"imgsz={imgsz}: the side of an image is 1 pixel or more")
    root = Path("datasets") if root is None else Path(root)
    check_set(name)
    source = _SETS[str(name)](root, imgsz) if name in SETS else folder(set_folder(name), imgsz)

    labels, is_val = source.labels, source.is_val
    if is_val is None:
        train, arch, val = stratified(labels, (0.8 * (1 - arch_share), 0.8 * arch_share, 0.2), seed)
    else:
        rest, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
        train, arch = (rest[half] for half in stratified(labels[rest], (1 - arch_share, arch_share), seed))
    for split, indices in (("train", train), ("arch", arch), ("val", val)):
        if not len(indices):
            raise InputError(f"{name}: {len(labels)} images are too few, none is left for the {split} split")
    return ClassificationData(
        train=ClassificationSplit(source, train, imgsz, ch, seed, augment=True),
        arch=ClassificationSplit(source, arch, imgsz, ch, seed, augment=True),
        both=ClassificationSplit(source, np.sort(np.concatenate((train, arch))), imgsz, ch, seed, augment=True),
        val=ClassificationSplit(source, val, imgsz, ch, seed, augment=False),
        names=source.names,
    )
