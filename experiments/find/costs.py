"""What networks cost: parameters, FLOPs, and latency as exported, told by whatever tells the latency of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from models.files import write_text
from models.grammar import read_config
from spaces import CostModel, Space

from ..costs.base import CostProvider
from ..costs.config import read_latency
from .phases import Job


def costs_file(job: Job) -> str:
    """The YAML of what tells latency: the user's, or one of ONNX Runtime on this machine."""
    if job.options.costs is not None:
        return job.options.costs
    path = job.path / "costs.yaml"
    if not path.is_file():
        config = {"threads": job.options.threads or torch.get_num_threads()}
        latency = {"provider": "onnxruntime", "hw_config": config}
        content = {"costs": {"latency": latency}, "cache": str(job.path / "latency.db")}
        write_text(path, yaml.safe_dump(content, sort_keys=False))
    return str(path)


class Costs:
    """Of the archs of a space, at a side of the images where the space has no decision on it."""

    def __init__(self, job: Job, space: Mapping[str, Any] | str | Path, imgsz: int, nc: int) -> None:
        self.space = Space(read_config(space, nc=nc))
        self.model = CostModel(self.space, imgsz)
        self._latency: CostProvider = read_latency(costs_file(job))(self.model)

    def of(self, arch: Mapping[str, Any]) -> dict[str, float]:
        """``params``, ``flops``, ``latency`` in ms."""
        counted = self.model.of(arch)
        (latency,) = self._latency([dict(arch)])
        return {"params": counted["params"], "flops": counted["flops"], "latency": latency}
