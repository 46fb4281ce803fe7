"""Where a supernet lies. Loads no torch."""

from __future__ import annotations

from pathlib import Path


def supernet_folder(path: str) -> Path:
    """The folder of a one-shot run, given itself or a file in it."""
    folder = Path(path)
    return folder.parent if folder.is_file() else folder
