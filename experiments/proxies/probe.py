"""A task's batch of training images, on which networks are scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from models.network import Network

from ..run import registry
from ..tasks.task import SearchTask
from .base import Proxy


class Probe:
    """Scores networks on the first batch that the task's weights would be trained with.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    """

    def __init__(self, task: SearchTask, device: str = "cpu") -> None:
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        evaluator = task.evaluator(accelerator="cpu", devices=1, **dict.fromkeys(quiet, False))
        self.task, self.device, self._module = task, device, evaluator.module
        batch = next(iter(evaluator.train_dataloaders))
        self._batch = move_data_to_device(batch, torch.device(device))

    def score(self, proxy: str, cfg: Mapping[str, Any]) -> float:
        """The score of a frozen YAML by the proxy of that name, with fresh weights."""
        score: Proxy = registry.load("proxy", proxy)
        network = self.task.network(cfg).to(self.device)
        self._module.set_model(network)
        return float(score(network, self._module.inputs(self._batch), self._loss))

    def _loss(self, network: Network) -> Tensor:
        self._module.set_model(network)
        loss: Tensor = self._module.training_step(self._batch, 0)
        return loss
