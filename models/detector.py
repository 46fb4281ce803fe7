"""A YAML as a detector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from .catalog import check_head
from .classes import read_names, unnamed
from .errors import InputError
from .grammar import Config, read_config
from .head import Head
from .network import BuildRow, Network, build_row
from .strides import check_imgsz


class Model(Network):
    """A detector built from a YAML: every row of backbone and head, the last one a `models.head.Head`.

    Parameters
    ----------
    cfg
        Path of a model YAML, or the mapping that it holds.
    nc, ch, anchors
        Classes, input channels and anchors in place of the YAML's own.

    Attributes
    ----------
    names
        Class names by index.
    stride
        (nl,) strides of the head's levels in pixels.
    carried, initialised
        After `optimizer.match_nas`: names of the tensors that came from the search, and of those that did not.
    imgsz_multiple
        What image sizes must be a multiple of: the largest stride of any row, which may be none of the head's.

    Raises
    ------
    InputError
        Names file, row and module of what cannot be built.
    """

    carried: list[str]
    initialised: list[str]

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] | Config,
        nc: int | None = None,
        ch: int | None = None,
        anchors: Any = None,
        build: BuildRow = build_row,
    ) -> None:
        super().__init__()
        config = read_config(cfg, nc, ch, anchors)
        check_head(config)
        if build is build_row:
            config.require_plain()
        self.build(config, build)
        self.names: dict[int, str] = dict(enumerate(unnamed(self.head.nc)))
        if (given := config.raw.get("names")) is not None:
            named = read_names(given, config.file)
            if len(named) == self.head.nc:
                self.names = dict(enumerate(named))
            elif nc is None:
                raise InputError(f"{config.file}: names has {len(named)} classes, but the head has {self.head.nc}")
        reductions = self.reductions()
        self.imgsz_multiple = round(max(r for r in reductions if not math.isnan(r)))
        self.head.set_strides([reductions[j] for j in config.rows[-1].sources])

    @property
    def head(self) -> Head:
        return cast(Head, self.model[-1])

    @property
    def stride(self) -> torch.Tensor:
        return self.head.stride

    def check_imgsz(self, imgsz: int) -> int:
        """`imgsz` if it is a multiple of `imgsz_multiple`, else `InputError` with the nearest ones that are."""
        return check_imgsz(imgsz, self.imgsz_multiple)
