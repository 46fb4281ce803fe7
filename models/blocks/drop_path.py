"""Drop-path (Huang et al. 2016, arXiv:1603.09382): in training, a residual branch is left out at random."""

from __future__ import annotations

from torch import Tensor


def drop_path(y: Tensor, p: float, training: bool) -> Tensor:
    """A residual branch's output (N, …), zero for a sample with probability `p`, else scaled so that the mean is kept.

    Blocks with a shortcut keep `p` as ``drop_prob``; it is 0 unless a training sets it.
    """
    if p == 0 or not training:
        return y
    kept = y.new_empty(len(y), *[1] * (y.ndim - 1)).bernoulli_(1 - p)
    return y * kept.div_(1 - p)
