"""A backbone as an image classifier: the proxy that a backbone is searched on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .grammar import Config, read_config
from .network import BuildRow, Network, build_row
from .strides import POOLED


class Classifier(Network):
    """The backbone rows of any YAML, global average pooling and a linear layer. (N, ch, H, W) -> (N, nc) logits.

    Attributes
    ----------
    landmarks
        None, or {"normalise": [a, b]} where outputs are no logits but x0, y0, x1, … in shares of the image's side.
    """

    landmarks: Mapping[str, Any] | None = None

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] | Config,
        nc: int | None = None,
        ch: int | None = None,
        build: BuildRow = build_row,
    ) -> None:
        super().__init__()
        build_classifier(self, cfg, nc, ch, build)

    def forward(self, x: Tensor) -> Tensor:
        return classify(self, x)

    @property
    def imgsz_multiple(self) -> int:
        """What image sizes must be a multiple of: the largest stride of any row."""
        return round(max(r for r in self.reductions() if r < POOLED))


def build_classifier(
    network: Network, cfg: Any, nc: int | None = None, ch: int | None = None, build: BuildRow = build_row
) -> None:
    """Build rows and linear layer into `network`; its width is read from the last backbone row."""
    config = read_config(cfg, nc, ch).backbone()
    if config.nc is None:
        raise InputError(f"{config.file}: the number of classes is missing: give nc")
    if build is build_row:
        config.require_plain()
    network.build(config, build)
    network.add_module("linear", nn.Linear(network.channels[-1], config.nc))


def classify(network: Network, x: Tensor) -> Tensor:
    """(N, ch, H, W) -> (N, nc) logits."""
    given: list[Any] = []
    features = network.run_rows(x, given)
    pooled = torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1)
    try:
        return network.get_submodule("linear")(pooled)
    except RuntimeError:
        network.check_channels(given)
        raise
