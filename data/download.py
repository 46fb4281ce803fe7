"""Downloads that fail in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.errors import InputError

T = TypeVar("T")


def download(name: str, root: Path, fetch: Callable[[], T], hint: str = "") -> T:
    """`fetch()`, which downloads `name` to `root` unless it is there. Raises InputError when it cannot."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:  # no network, no space, a wrong checksum
        advice = f"put it below {root.resolve()} by hand" + (f" {hint}" if hint else "")
        raise InputError(f"{name}: could not be downloaded ({' '.join(str(error).split())}); {advice}") from error
