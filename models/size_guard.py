"""Refuses tensors that nobody means, before they are made: wherever in a module's constructor that happens."""

from __future__ import annotations

import math
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from .errors import InputError


class SizeGuard(TorchDispatchMode):
    """While it is entered, what is made from nothing (``torch.empty`` and its like) is counted.

    Parameters
    ----------
    most
        Parameters of all rows so far, and elements that are made for the next one.
    tensors
        Of all rows.
    """

    def __init__(self, most: int, tensors: int) -> None:
        super().__init__()
        self.most, self.tensors = most, tensors
        self._made = self._tensors = self._parameters = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        size = (
            args[0]
            if args and isinstance(args[0], (list, tuple)) and func._schema.arguments[0].name == "size"
            else None
        )
        if size is not None:
            self._made += math.prod(size)
            self._tensors += 1
            if (there := self._parameters + self._made) > self.most:
                made = "x".join(map(str, size))
                raise InputError(
                    f"needs a tensor of {made}, with which there are {there:,} numbers; a network has {self.most:,} "
                    "parameters at most"
                )
            if self._tensors > self.tensors:
                raise InputError(f"needs more tensors than the {self.tensors:,} that a network has at most")
        return func(*args, **(kwargs or {}))

    def row(self, module: Any) -> None:
        """A row is built: what it made in between is gone, its parameters stay."""
        self._made = 0
        self._parameters += sum(p.numel() for p in module.parameters())
