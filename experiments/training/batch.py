"""``--batch auto``: the largest batch whose training fits into a GPU's memory, found by trying."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from pytorch_lightning.utilities import move_data_to_device

from models import limits
from models.errors import InputError

from ..run.device import device_of
from ..run.lightning import trainer_options
from .loop import Training

ON_CPU = 16
_SHARE = 0.7  # of the memory that is free: other batches have more boxes, and cuDNN tries other algorithms
_BATCHES = 10  # an epoch has at least, where that leaves ON_CPU images to each
_GIB = 2**30


class Memory(Protocol):
    """Of a device, in bytes."""

    free: int

    def peak(self, step: Callable[[], None]) -> int | None:
        """The most that is taken while `step` runs; None where it does not fit."""


class CudaMemory:
    """Memory of a CUDA device."""

    def __init__(self, device: str) -> None:
        self._device = device
        torch.cuda.empty_cache()
        self.free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)

    def peak(self, step: Callable[[], None]) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            step()
        except torch.cuda.OutOfMemoryError:
            return None
        return torch.cuda.max_memory_reserved(self._device)


def memory_of(device: str) -> Memory | None:
    """The memory that batches are fitted into; None where there is no such thing."""
    return CudaMemory(device) if device.startswith("cuda") else None


def largest_batch(peak: Callable[[int], int | None], room: int, most: int) -> int:
    """The largest number of images whose step takes no more than `room`.

    Powers of two are tried until twice as many do not fit, or would not by the line through the last two; what that
    line says is taken. From 16 on it is a multiple of 8, which CUDA's kernels are made for.

    Parameters
    ----------
    peak
        Bytes that a step with so many images takes; None where they do not fit.
    room
        Bytes.
    most
        Images, at most.

    Raises
    ------
    InputError
        Not even two images fit.
    """
    tried: dict[int, int] = {}
    number, beyond, each = 2, most + 1, 0.0
    while number < beyond:
        taken = peak(number)
        if taken is None or taken > room:
            beyond = number
            break
        if tried:
            each = max((taken - tried[number // 2]) / (number // 2), 0.0)
        tried[number] = taken
        if each and taken + each * number > room:
            break
        number *= 2
    if not tried:
        if most < 2:
            return 1
        raise InputError("--batch auto: not even two images fit into the GPU; right would be less --imgsz")
    *_, last = tried
    more = int((room - tried[last]) / each) if each else 0
    found = min(last + more, beyond - 1)
    return found // 8 * 8 if found >= 16 else found


def chosen_batch(options: Any, training: Training, split: Any, collate: Callable[..., Any]) -> tuple[int, str]:
    """The batch of a training on one device, and a line about it.

    Parameters
    ----------
    split, collate
        The training images, the first of which is trained on again and again; on a copy of the network.
    """
    device = device_of(options.device)
    most = min(max(len(split) // _BATCHES, ON_CPU), len(split), limits.BATCH)
    memory = memory_of(device)
    if memory is None:
        number = min(ON_CPU, most)
        return number, f"batch: {number}; --batch auto tries what fits on CUDA devices alone"
    item = split[0]
    tried: list[int] = []

    def peak(number: int) -> int | None:
        tried.append(number)
        return memory.peak(lambda: _step(options, training, collate([item] * number), device))

    number = largest_batch(peak, int(_SHARE * memory.free), most)
    why = f"tried {', '.join(map(str, tried))} in {memory.free / _GIB:.1f} GiB"
    return number, f"batch: {number} ({why}; {len(split):,} images allow {most})"


def _step(options: Any, training: Training, batch: Any, device: str) -> None:
    """A step of a copy of the training, in new memory, and its average beside it."""
    precision = trainer_options(options, "gpu" if device.startswith("cuda") else "cpu")["precision"]
    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    with torch.random.fork_rng(enabled=True):
        model = copy.deepcopy(training).to(device).train()
        learner: Any = model.learner
        learner.log = lambda *_, **__: None
        average = copy.deepcopy(model.model)
        optimizer = model.configure_optimizers()
        batch = move_data_to_device(batch, torch.device(device))
        if options.multi_scale:
            stride = model.model.imgsz_multiple
            batch = learner.at_side(batch, batch[0].shape[-1] * 3 // (2 * stride) * stride)
        with torch.autocast(torch.device(device).type, kind, enabled=precision != "32-true"):
            lessons = model.lessons
            loss = learner.training_step(batch, 0) if lessons is None else lessons.loss(learner, batch, 0)
        loss.backward()
        optimizer.step()
        del average
