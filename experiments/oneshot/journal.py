"""Ratings that outlive the process that made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from models.files import atomic

from .derive import Arch


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Of a state dict, to know it again by."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Journal:
    """A file of ratings: a line that says of what, then one for each arch.

    Parameters
    ----------
    path
        Of the file. What it holds of something else is left behind, as is a line that a kill cut off.
    of
        What is rated.
    """

    def __init__(self, path: Path, of: str) -> None:
        self.path = path
        head, *rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else [""]
        self._known: dict[str, float] = {}
        if head == of:
            for row in rows:
                try:
                    arch, rating = json.loads(row)
                except ValueError:
                    break
                self._known[arch] = rating
        with atomic(path) as temporary:
            known = [json.dumps(row) for row in self._known.items()]
            temporary.write_text("\n".join([of, *known, ""]), encoding="utf-8")

    def remembering(self, rate: Callable[[Arch], float]) -> Callable[[Arch], float]:
        """`rate`, asked only for what is not in the file."""

        def remembered(arch: Arch) -> float:
            key = json.dumps(arch, default=str)
            if key not in self._known:
                self._known[key] = rate(arch)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, self._known[key]]) + "\n")
            return self._known[key]

        return remembered
