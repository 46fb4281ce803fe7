"""What an arch may cost: hard limits and a soft target, on the costs of the whole detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.detector import Model
from models.errors import InputError
from models.grammar import choices_in, read_config
from optimizer.match import join
from spaces import CostModel, Space
from spaces.nas_rows import NASC3Row

from ..run import registry
from .base import CostProvider
from .limits import Limits, Target, cheapest

Arch = dict[str, Any]


class Budget:
    """Limits and target of a search; the strategies' `Budget`.

    Parameters
    ----------
    model
        Costs of the detector that an arch gives.
    limits, target
        Hard and soft.
    latency
        Tells the latency of whole archs, where `model` does not; of those alone that keep the other limits.

    Raises
    ------
    InputError
        If no arch is within the limits; says what the nearest costs.
    """

    def __init__(
        self, model: CostModel, limits: Limits, target: Target | None = None, latency: CostProvider | None = None
    ) -> None:
        self.model, self.limits, self.target = model, limits, target
        self._latency = latency if limits.max_latency is not None else None
        self._composed = limits if self._latency is None else replace(limits, max_latency=None)
        self._cheapest = cheapest(model, self._composed)
        if self._latency is not None:  # the fastest of those that are the least in something
            least = [model.least({name: 1.0}) for name in model.names]
            within = [self._cheapest, *(arch for arch in least if self._composed.fits(model.of(arch)))]
            told = self._latency(within)
            self._cheapest = within[told.index(min(told))]
            costs = {**model.of(self._cheapest), "latency": min(told)}
        else:
            costs = model.of(self._cheapest)
        if limits.any and not limits.fits(costs):
            raise InputError(f"no arch was found that keeps all limits; the nearest has {limits.violated(costs)}")

    def feasible(self, archs: Sequence[Arch]) -> list[bool]:
        """Whether each arch is within the hard limits."""
        full = [{**self._cheapest, **arch} for arch in archs]
        fits = [True] * len(archs)
        if self._composed.any:
            fits = self._composed.fits(self.model.batch(self.model.indices(full))).tolist()
        if self._latency is not None:
            told = iter(self._latency([arch for arch, ok in zip(full, fits, strict=True) if ok]))
            fits = [ok and next(told) <= (self.limits.max_latency or 0) for ok in fits]
        return fits

    def cheapest(self) -> Arch:
        """The cheapest arch of all."""
        return dict(self._cheapest)

    def penalty(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """What the expected costs add to the loss of the architecture; 0 without a target."""
        return torch.zeros(()) if self.target is None else self.target.penalty(self.model.expected(probabilities))


def read_budget(options: Any, model: CostModel, latency: CostProvider | None = None) -> Budget | None:
    """The budget of the options ``max_…``, ``target_…`` and ``target_weight``; None where nothing is asked for."""
    limits = Limits(options.max_flops, options.max_params, max_latency=options.max_latency)
    asked = {name: getattr(options, f"target_{name}") for name in ("flops", "params", "latency")}
    targets = [Target(name, value, options.target_weight) for name, value in asked.items() if value is not None]
    if len(targets) > 1:
        raise InputError(f"--target-{targets[0].name} and --target-{targets[1].name}: a search has one target")
    if targets and options.strategy not in registry.names("oneshot", f"target_{targets[0].name}"):
        raise InputError(
            f"--target-{targets[0].name}: {options.strategy} trains without an architecture to steer; "
            f"its search takes limits, such as --max-{targets[0].name}"
        )
    if latency is not None and options.target_latency is not None:
        raise InputError(
            "--target-latency: steering needs a table, of which the latency is composed block by block; right would be "
            "--costs with provider: table or roofline, or --latency-table"
        )
    target = targets[0] if targets else None
    return Budget(model, limits, target, latency) if limits.any or targets else None


def detector_space(space: Space, detector: Model, own_head: bool) -> Space:
    """The space of whole detectors that a search's archs stand for; its labels are those of `space`.

    Parameters
    ----------
    space
        The space that is searched.
    detector
        What gives neck, head and classes.
    own_head
        Whether that is the head of `space` itself.
    """
    if own_head:
        return Space(read_config(space.config, nc=detector.config.nc))
    plain = read_config(space.freeze(space.upstream()), file=space.config.file)
    raw = join(detector.config, plain.backbone())
    joined = [*raw["backbone"], *raw["head"]]
    multiples = ("depth_multiple", "width_multiple", "channel_multiple")
    as_written = all(getattr(detector.config, m) == getattr(space.config, m) for m in multiples)
    for row in space.config.backbone().rows:
        written = space.config.raw["backbone"][row.index]
        nas_row = space.rows.get(row.index)
        if as_written:
            joined[row.index] = written
        elif nas_row is not None:
            number = nas_row.n if isinstance(nas_row, NASC3Row) else 1
            joined[row.index] = [written[0], number, written[2], [nas_row.c2, *written[3][1:]]]
        elif any(choices_in(row)):
            raise row.error(f"has choices, and {detector.config.file} other multiples: give both the same")
    split = len(raw["backbone"])
    return Space(read_config({**raw, "backbone": joined[:split], "head": joined[split:]}, file=detector.config.file))
