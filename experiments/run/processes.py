"""What the processes of a distributed run have to agree on; in a single process nothing happens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Set each tensor to its mean over all processes, which give them in the same order."""
    own = list(tensors)
    if not own or not _are_several():
        return
    together = torch.cat([t.flatten() for t in own])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for t, mean in zip(own, together.split([t.numel() for t in own]), strict=True):
        t.copy_(mean.view_as(t))


def summed(number: float, device: torch.device) -> float:
    """The sum over all processes of a number of each."""
    if not _are_several():
        return number
    total = torch.tensor(number, device=device)
    distributed.all_reduce(total)
    return total.item()


@torch.no_grad()
def broadcast_buffers(network: nn.Module) -> None:
    """Statistics of batch norms are those of each process's own images: those of the first one become all's."""
    if _are_several():
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def leave() -> None:
    """Go on alone: from here on a process that others were with is a single one."""
    if _are_several():
        distributed.barrier()
        distributed.destroy_process_group()


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
