"""cluttered-digits: a handwritten digit somewhere among pieces of others, after Mnih et al. 2014 (arXiv:1406.6247,
section 4.1, "cluttered translated MNIST"), with scikit-learn's digits.

Where the digit is, its size and its shades vary. In few steps, architectures of one cost differ here by far more than
seeds do, which on the plain digits they do not: what a search finds can be told from what it does not.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits

from .classify_source import Source
from .split import stratified

_SIDE = 64  # pixels
_DIGIT = (28, 52)
_PIECES, _PIECE = 4, 10  # cut out of other digits, and their side
_VIEWS = 4  # drawings of each validation digit
_SEED = 0


@cache
def _drawn() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    bunch = load_digits()
    patterns = (bunch.images / 16).astype(np.float32)
    train, val = stratified(bunch.target, (0.8, 0.2), _SEED)
    order = np.concatenate((train, np.repeat(val, _VIEWS)))
    is_val = np.arange(len(order)) >= len(train)
    rng = np.random.default_rng(_SEED)
    pieces = {True: val, False: train}
    images = np.stack([_draw(patterns, k, pieces[held], rng) for k, held in zip(order, is_val, strict=True)])
    return torch.from_numpy(images)[:, None], bunch.target[order].astype(np.int64), is_val


def cluttered_digits(root: Path, imgsz: int) -> Source:
    """1,797 digits on 64 x 64 pixels, grey; each digit of the validation split is drawn four times.

    Pieces are of digits of the same split.
    """
    images, labels, is_val = _drawn()
    return Source(images, labels, tuple(str(digit) for digit in range(10)), is_val, 1 / 16, flip=False)


def _draw(patterns: np.ndarray, k: int, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Digit `k` among pieces of `others`, uint8 (64, 64)."""
    ink = np.zeros((_SIDE, _SIDE), np.float32)

    def lay(piece: np.ndarray) -> None:
        side = len(piece)
        y, x = rng.integers(0, _SIDE - side + 1, 2)
        spot = ink[y : y + side, x : x + side]
        np.maximum(spot, piece, out=spot)

    def scaled(j: int) -> np.ndarray:
        side = round(np.exp(rng.uniform(*np.log(_DIGIT))))
        return cv2.resize(patterns[j], (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)

    for other in rng.choice(others, _PIECES):
        whole = scaled(other)
        y, x = rng.integers(0, len(whole) - _PIECE + 1, 2)
        lay(whole[y : y + _PIECE, x : x + _PIECE])
    lay(scaled(k))
    paper, shade = rng.uniform(0, 100), rng.uniform(155, 255)
    image = paper + (shade - paper) * ink + rng.normal(0, 6, ink.shape)
    return image.clip(0, 255).astype(np.uint8)
