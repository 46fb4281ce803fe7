"""Random draws that are a pure function of (seed, epoch, index), whatever the number of workers.

A run that is interrupted and resumed at an epoch's start then sees the very images of the uninterrupted one.
"""

from collections.abc import Iterator, Sized
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import distributed
from torch.utils.data import Dataset, Sampler

T_co = TypeVar("T_co", covariant=True)


class SeededDataset(Dataset[T_co]):
    """Items draw from `rng(index)`. `set_epoch` comes before the loader is iterated (`EpochSampler` does it)."""

    def __init__(self, seed: int):
        self.seed = seed
        # In shared memory: workers that live longer than an epoch (persistent_workers) see the change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch[0] = epoch

    def rng(self, index: int) -> np.random.Generator:
        """A fresh generator for the item `index` of this epoch."""
        return np.random.default_rng([self.seed, self.epoch, index])


class _Seeded(Protocol):
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...


class EpochSampler(Sampler[int]):
    """Shuffles by (seed, epoch) and tells the data set the epoch.

    In a distributed run each process has its share, if it is `shared`: shares of a batch make up the batch of a single
    process.

    Lightning calls `set_epoch` of a loader's sampler by itself; a loop of one's own calls it once an epoch:
    `DataLoader(data.train, sampler=EpochSampler(data.train, seed))`.

    epoch: the first. Lightning 2.6 lets workers begin on a resumed epoch before it calls `set_epoch`, so that a module
        builds its loader in `train_dataloader()` with `EpochSampler(data.train, seed, self.trainer.current_epoch)`.
    """

    def __init__(self, dataset: _Seeded | Any, seed: int = 0, epoch: int = 0, shared: bool = True):
        self.dataset, self.seed, self.epoch, self.shared = dataset, seed, epoch, shared

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.dataset.set_epoch(self.epoch)
        rank, world = _process() if self.shared else (0, 1)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.dataset)).tolist()
        return iter(order[rank : len(self) * world : world])

    def __len__(self) -> int:
        return len(self.dataset) // (_process()[1] if self.shared else 1)


class InOrder(Sampler[int]):
    """All items as they lie; in a distributed run, process r of W has items r, r + W, …"""

    def __init__(self, dataset: Sized):
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        rank, world = _process()
        return iter(range(rank, len(self.dataset), world))

    def __len__(self) -> int:
        rank, world = _process()
        return len(range(rank, len(self.dataset), world))


def _process() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
