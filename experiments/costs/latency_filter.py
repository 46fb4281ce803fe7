"""A limit on the latency that a table tells, under the name that nn-Meter's predictor of the device has in NNI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.documents import is_file
from models.errors import InputError
from spaces import Space

from .table import TableLatency


class LatencyFilter:
    """Whether an arch is fast enough; for ``filter`` of one-shot strategies and ``feasible`` of multi-trial ones.

    NNI asks nn-Meter, which downloads a predictor of each device and knows neither SiLU nor Upsample. Here a table of
    blocks that was measured on the device is read, and the latency of an arch is the sum of its blocks'.

    Parameters
    ----------
    threshold
        In ms: an arch that takes longer does not pass.
    predictor
        Of the device, such as ``cortexA76cpu_tflite21``: its table is the file of that name with ``.json``.
    space
        The YAML's path or mapping, or a model space that was made of one.
    imgsz
        Side of the images, in pixels.
    reverse
        What takes longer passes, and nothing else.
    folder
        Where the table lies; the working folder by default.

    Raises
    ------
    InputError
        There is no such table, or it lacks blocks of the space.
    """

    def __init__(
        self,
        threshold: float,
        predictor: str,
        space: Any,
        imgsz: int = 640,
        reverse: bool = False,
        folder: str | Path = ".",
    ) -> None:
        self.threshold, self.predictor, self.reverse = threshold, predictor, reverse
        path = Path(folder) / (predictor if predictor.endswith(".json") else f"{predictor}.json")
        if not is_file(path):
            raise InputError(
                f"{path}: no such table of latencies, and nn-Meter's predictors are not read; right would be, on that "
                f"device: python -m experiments.costs.latency_table --imgsz {imgsz} --out {path.name}"
            )
        found = getattr(space, "space", space)
        self._table = TableLatency(found if isinstance(found, Space) else Space(found), imgsz, str(path))

    def latency(self, arch: Mapping[str, Any]) -> float:
        """Milliseconds of an arch."""
        return self._table([dict(arch)])[0]

    def __call__(self, arch: Mapping[str, Any]) -> bool:
        return (self.latency(arch) > self.threshold) == self.reverse
