"""Who sees which training images: weights and architecture never share one. And how images become batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from data import DetectionData, EpochSampler, InOrder, Item, collate
from models.errors import InputError

from ..run import registry

_TRAINED, _RATED = 0.5, 0.2
PARTS = ("weights", "arch", "all")


def make_loader(
    split: Any,
    batch: int,
    *,
    seed: int | None = 0,
    drop_last: bool = True,
    workers: int | None = None,
    world: int = 1,
    cuda: bool = False,
    collate: Callable[..., Any] | None = None,
) -> Any:
    """A loader of a split.

    Parameters
    ----------
    batch
        Images to a batch, over all `world` processes; as many as there are where there are fewer.
    seed
        Of the order; None: as they lie.
    drop_last
        Leave out the last, smaller batch: batch normalisation would take statistics of a few images from it.
    workers
        Processes that load; None: none on the CPU, where they would take the cores, up to 8 a process on CUDA.
    """
    if workers is None:
        workers = min(8, (os.cpu_count() or 1) // world) if cuda else 0
    return DataLoader(
        split,
        batch_size=max(min(batch, len(split)) // world, 1),
        sampler=InOrder(split) if seed is None else EpochSampler(split, seed, shared=world > 1),
        collate_fn=collate,
        drop_last=drop_last,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=cuda,
    )


def part_loader(
    parts: Mapping[str, Any], part: str, options: Any, accelerator: str, seed: int | None, **more: Any
) -> Any:
    """Batches of a part of the training images, this process's share of them; see `SearchTask.loader`."""
    return make_loader(
        parts[part],
        options.batch,
        seed=options.seed if seed is None else seed,
        workers=getattr(options, "workers", 0),
        world=world_of(options),
        cuda=accelerator == "gpu",
        **more,
    )


def world_of(options: Any) -> int:
    """Processes that share a training."""
    return int(getattr(options, "devices", 1) * getattr(options, "num_nodes", 1))


def arch_share(options: Any) -> float | None:
    """Share of the training images that the architecture sees.

    By default it is half of them where the architecture is trained (Liu et al. 2019, section 2.2), and a fifth where
    archs are but rated. None: runs of version 0.2 and before, see `parts_of`.
    """
    if not hasattr(options, "arch_share") or options.arch_share is not None:
        return getattr(options, "arch_share", None)
    strategy = registry.KINDS["oneshot"].get(getattr(options, "strategy", ""))
    return _RATED if strategy is None else strategy.defaults.get("arch_share", _TRAINED)


def parts_of(data: DetectionData, seed: int, share: float | None) -> dict[str, Part]:
    """The training images by who sees them: those of the `weights`, those of the `arch`, and `all`.

    Parameters
    ----------
    share
        That of the architecture, which gets images of every class if that is possible; None: one half, whatever the
        classes, as runs of version 0.2 and before had it.
    """
    number = len(data.train)
    if number < 2:
        raise InputError("a search takes 2 training images or more: one for the weights, one for the architecture")
    weights, arch = halves(number, seed) if share is None else shared_out(data.train.labels, share, seed)
    for part, who in ((weights, "weights"), (arch, "architecture")):
        if not any(len(data.train.labels[i]) for i in part):
            raise InputError(
                f"none of the {len(part)} of {number} training images that are for the {who} has a box; right would be "
                "more images with objects"
            )
    return {name: Part(data.train, part) for name, part in zip(PARTS, (weights, arch, range(number)), strict=True)}


def search_loaders(data: DetectionData, batch: int, seed: int, share: float = 0.5) -> dict[str, Any]:
    """``train_dataloaders`` and ``val_dataloaders`` of a search's evaluator, for scripts.

    Training images are shared out between weights and architecture, so that ``data.val`` stays unseen.
    """
    parts = parts_of(data, seed, share)
    names = {"train_dataloaders": "weights", "val_dataloaders": "arch"}
    return {name: make_loader(parts[part], batch, seed=seed, collate=collate) for name, part in names.items()}


def halves(num_images: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training images for the weights and for the architecture, as many of each."""
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    half = num_images // 2
    return order[:half], order[half : 2 * half]


def shared_out(labels: Sequence[np.ndarray], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the images for the weights and for the architecture, disjoint, all of them.

    Classes are taken from the rarest on, and their images shared out so that the architecture's have its share of each
    class, one at least of a class that has two (iterative stratification, Sechidis et al. 2011).

    Parameters
    ----------
    labels
        Of every image, (n, 5), class first.
    share
        Of the architecture, above 0 and below 1.
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    classes = [{int(c) for c in labels[i][:, 0]} for i in range(len(labels))]
    holders: dict[int, list[int]] = {}
    for i in order:
        for c in classes[i]:
            holders.setdefault(c, []).append(i)
    rest = min(max(round(share * len(order)), 1), len(order) - 1)
    arch: set[int] = set()
    seen: set[int] = set()
    for c in sorted(holders, key=lambda c: (len(holders[c]), c)):
        has = len(arch.intersection(holders[c]))
        wanted = max(round(share * len(holders[c])), min(1, len(holders[c]) - 1))
        free = [i for i in holders[c] if i not in seen]
        # All but the last of the others may be the architecture's: a class that weights never see is not learnt.
        arch.update(free[: max(min(wanted - has, rest - len(arch)), 0)])
        seen.update(holders[c])
    for i in order:  # images without objects, and what rounding left
        if len(arch) < rest and i not in arch and not classes[i]:
            arch.add(i)
    return [i for i in order if i not in arch], [i for i in order if i in arch]


class Part(Dataset[Item]):
    """Some images of a training set; mosaics of them show no others."""

    def __init__(self, whole: Any, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices

    @property
    def imgsz(self) -> int:
        """Side of the images."""
        side: int = self.whole.imgsz
        return side

    @property
    def hyp(self) -> Any:
        """Augmentation; None for none."""
        return self.whole.hyp

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Item:
        return self.whole.item(self.indices[i], self.indices)

    def set_epoch(self, epoch: int) -> None:
        self.whole.set_epoch(epoch)
