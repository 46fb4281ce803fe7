"""Batches at another resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def resized(images: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side), of the same type."""
    if images.shape[-1] == side:
        return images
    scaled = nn.functional.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False)
    return scaled.round_().to(images.dtype) if images.dtype == torch.uint8 else scaled.to(images.dtype)


def resolution_of(network: Any, otherwise: int) -> int:
    """Side of the images that a network is meant for: its YAML's ``resolution``; of a supernet, what is active."""
    if hasattr(network, "space"):
        return network.resolution or otherwise
    side = network.config.raw.get("resolution") if hasattr(network, "config") else None
    return side if isinstance(side, int) else otherwise
