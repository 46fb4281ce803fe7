"""Devices by the names that options give them."""

from __future__ import annotations

import os

import torch

from models.errors import InputError


def device_of(device: str) -> str:
    """``cpu``, ``cuda`` (with a number, if it was given) or ``mps``, for those names, ``auto``, ``cuda:1`` or ``1``.

    ``auto`` is CUDA where there is any, else the CPU.

    Raises
    ------
    InputError
        There is no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.isdecimal():  # as YOLOv5 has it
        device = f"cuda:{device}"
    if all(part.strip().isdecimal() for part in device.split(",")):
        number = len(device.split(","))
        raise InputError(
            f"--device {device}: right would be --devices {number}, of those that CUDA_VISIBLE_DEVICES={device} leaves"
        )
    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        asked = None
    if asked is None or asked.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {device}: right would be auto, cpu, cuda, the number of a CUDA device, or mps")
    if asked.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {device}: this PyTorch sees no such device, which Apple's own processors have")
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    return device


def synchronize(device: str | torch.device) -> None:
    """Wait until a device has done what it was given."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def visible_to_workers(device: str, num_workers: int) -> list[str | None]:
    """What ``CUDA_VISIBLE_DEVICES`` is to be in each of several worker processes.

    Parameters
    ----------
    device
        As `device_of` takes it.

    Returns
    -------
    Worker i has the i-th device of those that this process may use, from the first on again where there are more
    workers than devices. None, which is to leave it alone, where it is the CPU or one device by its number.
    """
    if device_of(device) != "cuda":
        return [None] * num_workers
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    number = torch.cuda.device_count()
    names = given[:number] or [str(i) for i in range(number)]
    return [names[i % len(names)] for i in range(num_workers)]
