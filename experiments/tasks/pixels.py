"""Label maps of images in the pixels of the originals, and the intersection over union of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data import Batch
from data.canvas import Letterbox
from data.label_maps import NONE

from ..run.pictures import picture


def label_map_of(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """The likeliest class of each pixel of an image, uint8 (height, width), from logits (nc, H, W) of its canvas."""
    height, width = letterbox.size
    whole = F.interpolate(logits.float()[None], size=(height, width), mode="bilinear", align_corners=False)
    left, top = letterbox.pad
    h, w = (round(side * ratio) for side, ratio in zip(letterbox.shape, letterbox.ratio[::-1], strict=True))
    image = F.interpolate(
        whole[..., top : top + h, left : left + w], size=letterbox.shape, mode="bilinear", align_corners=False
    )
    return image[0].argmax(0).to(torch.uint8)


def counts_of(logits: Tensor, batch: Batch, order: Sequence[int] | None = None) -> list[Tensor]:
    """Of each image (nc, nc): pixels by their class and by what they were taken for, those without a class left out.

    Parameters
    ----------
    logits
        (N, nc, H, W)
    order
        Class k of the data is class order[k] of the network.
    """
    nc, found = logits.shape[1], []
    if order is not None:
        logits = logits[:, [*order]]
    for of_image, meta in zip(logits, batch.metas, strict=True):
        assert meta.letterbox is not None
        assert meta.label_map is not None
        seen, true = label_map_of(of_image, meta.letterbox).cpu().long(), torch.from_numpy(meta.label_map).long()
        known = true != NONE
        pairs = nc * true[known] + seen[known]
        found.append(torch.bincount(pairs, minlength=nc * nc).view(nc, nc))
    return found


class SemanticMetrics:
    """Mean intersection over union, over all pixels of a data set.

    names: of the classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._counts = torch.zeros(len(names), len(names), dtype=torch.long)
        self._images = 0

    def update(self, counts: Sequence[Tensor]) -> None:
        """What `counts_of` gives of some images."""
        for of_image in counts:
            self._counts += of_image
            self._images += 1

    def compute(self) -> dict[str, Any]:
        """``miou``, mean over the classes that are there or were seen; ``pixel_accuracy``; ``images``; ``classes``.

        Of each class that is there by name ``iou``, ``accuracy`` (share of its pixels that were taken for it) and
        ``pixels``.
        """
        counts = self._counts.double()
        right, true, seen = counts.diagonal(), counts.sum(1), counts.sum(0)
        union = true + seen - right
        iou = right / union
        there = union > 0
        return {
            "miou": float(iou[there].mean()) if bool(there.any()) else float("nan"),
            "pixel_accuracy": float(right.sum() / counts.sum()),
            "images": self._images,
            "classes": {
                self.names[c]: {
                    "iou": float(iou[c]),
                    "accuracy": float(right[c] / true[c]),
                    "pixels": int(true[c]),
                }
                for c in (true > 0).nonzero()[:, 0].tolist()
            },
        }

    def plot_confusion_matrix(self, path: str | Path) -> None:
        """Shares of each class's pixels by what they were taken for."""
        counts = self._counts.double().numpy()
        shares = counts / counts.sum(1, keepdims=True).clip(min=1)
        side = max(4.0, 0.35 * len(self.names) + 2)
        with picture(path, figsize=(side, side), layout="constrained") as figure:
            axes = figure.subplots()
            axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
            ticks = np.arange(len(self.names))
            axes.set_xticks(ticks, self.names, rotation=90)
            axes.set_yticks(ticks, self.names)
            axes.set(xlabel="taken for", ylabel="is")
