"""One-shot strategies, one file each."""

from .darts import DARTS

__all__ = ["DARTS"]
