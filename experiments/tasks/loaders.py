"""Who sees which training images of a detection set: weights and architecture never share one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from data import DetectionData, EpochSampler, Item, collate
from models.errors import InputError


def search_loaders(data: DetectionData, batch: int, seed: int) -> dict[str, Any]:
    """``train_dataloaders`` and ``val_dataloaders`` of a search's evaluator.

    Training images are shared out between weights and architecture, so that ``data.val`` stays unseen.
    """
    if len(data.train) < 2:
        raise InputError("a search takes 2 training images or more: one for the weights, one for the architecture")
    weights, arch = halves(len(data.train), seed)
    return {
        "train_dataloaders": _train_loader(Part(data.train, weights), batch, seed),
        "val_dataloaders": _train_loader(Part(data.train, arch), batch, seed),
    }


def halves(num_images: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training images for the weights and for the architecture, as many of each."""
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    half = num_images // 2
    return order[:half], order[half : 2 * half]


def _train_loader(split: Any, batch: int, seed: int) -> Any:
    return DataLoader(
        split,
        batch_size=min(batch, len(split)),
        sampler=EpochSampler(split, seed),
        collate_fn=collate,
        drop_last=True,
        num_workers=0,
    )


class Part(Dataset[Item]):
    """Some images of a training set; mosaics of them show no others."""

    def __init__(self, whole: Any, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Item:
        return self.whole.item(self.indices[i], self.indices)

    def set_epoch(self, epoch: int) -> None:
        self.whole.set_epoch(epoch)
