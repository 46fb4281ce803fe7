"""What a classification set hands over before it is split."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


class Images(Protocol):
    """Square uint8 images (c, s, s), c = 1 or 3, by position. A tensor (N, c, s, s) is one."""

    def __getitem__(self, i: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Source:
    """A whole set: `images[i]` is of class `names[labels[i]]`."""

    images: Images
    labels: np.ndarray  # (N,) int64
    names: tuple[str, ...]
    is_val: np.ndarray | None  # (N,) bool, the official validation or test images; None: the set has no such split
    shift: float  # augmentation moves an image by up to this share of its side
    flip: bool  # augmentation mirrors left and right
