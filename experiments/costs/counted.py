"""Costs that are counted: parameters, FLOPs and activations, by the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spaces import CostModel
from spaces.space import Arch

COUNTED = ("params", "flops", "activations")


class Counted:
    """``params``, ``flops`` (2 x MACs) or ``activations`` of the whole network; exact."""

    unit = ""

    def __init__(self, model: CostModel, name: str) -> None:
        self.name, self.model, self._counted = name, model, name
        self.settings: dict[str, Any] = {"space": model.space.config.raw, "imgsz": model.imgsz}

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        costs: list[float] = self.model.batch(self.model.indices(archs))[self._counted].tolist()
        return costs
