"""Refuses tensors that nobody means, before they are made: wherever in a module's constructor that happens."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from . import limits
from .errors import InputError


class SizeGuard(TorchDispatchMode):
    """While it is entered, what is made from nothing (``torch.empty`` and its like) is counted.

    Parameters
    ----------
    most
        Elements between two `row`, and of the parameters of all rows.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self._made, self._tensors, self._parameters = most, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        size = (
            args[0]
            if args and isinstance(args[0], (list, tuple)) and func._schema.arguments[0].name == "size"
            else None
        )
        if size is not None:
            self._made += math.prod(size)
            self._tensors += 1
            if self._made > self.most:
                made = "x".join(map(str, size))
                raise InputError(f"needs a tensor of {made}; a network has {self.most:,} parameters at most")
            if self._tensors > limits.TENSORS:
                raise InputError(f"needs more than {limits.TENSORS:,} tensors")
        return func(*args, **(kwargs or {}))

    def row(self, module: Any) -> None:
        """A row is built: what it made in between is gone, its parameters stay."""
        self._made = 0
        self._parameters += sum(p.numel() for p in module.parameters() if isinstance(p, Tensor))
        if self._parameters > self.most:
            raise InputError(f"with this row there are {self._parameters:,} parameters; {self.most:,} are the most")
