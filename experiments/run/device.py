"""Devices by the names that options give them."""

from __future__ import annotations

import torch

from models.errors import InputError


def device_of(device: str) -> str:
    """``cpu`` or ``cuda`` (with a number, if it was given) for ``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = None
    if asked is None or asked.type not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: right would be auto, cpu or cuda")
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    return device
