"""What the Lightning modules of the tasks share: a network that is set, not made."""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import nn

# Batch norm statistics for a rating, of which a search makes a thousand; a measurement takes them from all batches.
RATING_BATCHES = 8


class TaskModule(pl.LightningModule):
    """The losses and measurements of the network that it is given.

    Attributes
    ----------
    sums_loss
        Whether a batch's loss is a sum over its images, not their mean.
    regresses
        Whether the network's outputs are numbers that are to be met, not logits.
    """

    sums_loss: ClassVar[bool] = False
    regresses: ClassVar[bool] = False
    _model: Any
    _judged: tuple[nn.Module, ...] = ()

    @property
    def model(self) -> Any:
        return self._model

    def set_model(self, model: nn.Module) -> None:
        """Set the network to train."""
        self._model = model

    def judge(self, network: nn.Module) -> None:
        """Validate this one, in eval mode, in place of the one that is trained."""
        self._judged = (network,)  # in a tuple it is no part of this module, nor of its checkpoints

    def validated_network(self) -> Any:
        """The network that is validated."""
        return self._judged[0] if self._judged else self.model

    def forward(self, x: Any) -> Any:
        return self.model(x)
