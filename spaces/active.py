"""What a supernet is set to: one path, or a mixture of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Mixture(NamedTuple):
    """Values of a decision side by side.

    Attributes
    ----------
    weights
        (n,), one for each of the decision's values.
    paths
        Indices of the values that are computed; what the others weigh is taken for zero.
    """

    weights: Tensor
    paths: tuple[int, ...]

    @classmethod
    def of_all(cls, weights: Tensor) -> Mixture:
        return cls(weights, tuple(range(len(weights))))


class Active(dict[str, int | Mixture]):
    """Label to the index of one value, or to a mixture. One instance is shared by all of a supernet's modules.

    A copy of a supernet has an instance of its own, with the path, but not the mixture, of the original.
    """

    def set(self, arch: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> None:
        """Activate the path of an arch, whose values are found in `values`, label to all of the decision's.

        Several inputs are a tuple, or, as a JSON has it, a list.
        """
        for label, value in arch.items():
            self[label] = values[label].index(tuple(value) if isinstance(value, list) else value)

    def __reduce__(self) -> Any:
        return Active, ({k: v for k, v in self.items() if isinstance(v, int)},)

    def __deepcopy__(self, memo: dict[int, Any]) -> Active:
        memo[id(self)] = copied = Active({k: v for k, v in self.items() if isinstance(v, int)})
        return copied
