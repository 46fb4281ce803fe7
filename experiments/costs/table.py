"""Latency by a look-up table of blocks, composed for every arch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from models.documents import is_file
from models.errors import InputError
from spaces import CostModel, Space
from spaces.space import Arch

from ..run.device import device_of
from .latency_table import LatencyTable


class TableLatency:
    """Milliseconds of an arch as the sum of its blocks', which `experiments.costs.latency_table` measured.

    Parameters
    ----------
    path
        JSON of the table. A table of another device serves as long as it has all blocks of the space; what one of this
        device lacks is measured first, and written.
    device, threads
        Of this machine, for what has to be measured.
    backend
        ``torch`` or ``onnxruntime``, of a table that is made; by default the file's, or ``torch``.
    make
        Make the table where there is none.

    Raises
    ------
    InputError
        If there is no such file, or if blocks are missing in a table of another device.
    """

    name, unit = "latency", "ms"

    def __init__(
        self,
        space: Space,
        imgsz: int,
        path: str,
        device: str = "cpu",
        threads: int | None = None,
        make: bool = False,
        backend: str | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise InputError(f"path: {path!r}: right would be the name of a file")
        if not make and not is_file(path):
            raise InputError(
                f"{path}: no such table of latencies; right would be: "
                f"python -m experiments.costs.latency_table --out {path}"
            )
        table = LatencyTable(path, device_of(device), threads, provider=backend)
        try:
            self.model = CostModel(space, imgsz, table, space.config.is_classifier)
        finally:
            table.save()
        used: dict[str, Any] = {key: table.milliseconds[key] for key in sorted(table.used)}
        if table.correction:
            used["correction"] = [table.scale, table.offset]
        content = json.dumps(used, sort_keys=True).encode()
        self.settings: dict[str, Any] = {
            "space": space.config.raw,
            "imgsz": imgsz,
            **table.made_on,
            "table": hashlib.sha256(content).hexdigest(),
        }

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """Milliseconds of each arch."""
        costs: list[float] = self.model.batch(self.model.indices(archs))["latency"].tolist()
        return costs
