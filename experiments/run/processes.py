"""What the processes of a distributed run have to agree on; in a single process nothing happens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Set each tensor to its mean over all processes, which give them in the same order."""
    own = list(tensors)
    if not own or not (distributed.is_available() and distributed.is_initialized()):
        return
    together = torch.cat([t.flatten() for t in own])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for t, mean in zip(own, together.split([t.numel() for t in own]), strict=True):
        t.copy_(mean.view_as(t))
