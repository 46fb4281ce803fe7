"""Moved: see trainer.py."""

from .trainer import interruptible, quiet_lightning

__all__ = ["interruptible", "quiet_lightning"]
