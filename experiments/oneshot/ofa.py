"""Once-for-All (Cai et al. 2020, arXiv:1908.09791): the largest network first, then smaller ones step by step.

Phases (`phases`) open the kernels, depths and widths of a space, from the largest values to the smallest. Subnets learn
from labels, and from the largest network as the first phase leaves it. Small kernels are the centre of large ones times
a matrix that is learnt (`spaces.kernel_transform`), and before widths are opened channels are put in the order of their
importance (`spaces.channel_order`).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import InputError
from spaces import Sizes, Space, transform_kernels
from spaces.channel_order import order_channels
from spaces.kinds import RESOLUTION

from ..training.distillation import Distillation
from ..training.schedule import starts_of
from .base import Context
from .bignas import BigNAS, BigNASModule
from .derive import Arch
from .options import Options
from .phases import Phase, counts_of, default_phases, read_phases


class OFAModule(BigNASModule):
    """Subnets of what is open; see `OFA` for the parameters.

    Attributes
    ----------
    phase
        Number of the phase that the training is in, from 0 on; -1 before the first step.
    """

    def __init__(self, *args: Any, phases: Sequence[Phase], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phases, self.phase = list(phases), -1
        self.counts = counts_of(self.phases, self.sizes.cost.space)
        self._is_taught_inside = self._teacher[0] is None
        if self.engine is not None:
            self.engine.phases = [(p.share, p.rate) for p in self.phases]

    def on_train_start(self) -> None:
        super().on_train_start()
        self._batches = int(self.trainer.num_training_batches)
        self._starts = starts_of([p.share for p in self.phases], cast(int, self.trainer.max_epochs) * self._batches)
        if self._is_taught_inside and self._teacher[0] is not None:
            _by_batch(self._teacher[0])  # of a run that is gone on with

    def _distillation_of(self, module: Any) -> Distillation | None:
        found = super()._distillation_of(module)
        if found is not None:
            found.with_labels = True  # section 3.3: soft labels and the hard ones
        return found

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self._iteration = self.current_epoch * self._batches + batch_idx
        while self.phase + 1 < len(self.phases) and self._iteration >= self._starts[self.phase + 1]:
            self._enter(self.phase + 1)
        return super().training_step(batch, batch_idx)

    def _enter(self, phase: int) -> None:
        self.phase = phase
        if self._is_open() and self._teacher[0] is None and self._distillation is not None:
            self._teacher = (_by_batch(self._largest().to(self.device)),)
        if self.phases[phase].sort:
            order_channels(cast(Any, self.model), also=self._beside())
        self._set_subnets()

    def _is_open(self) -> bool:
        return any(count > 1 for count in self.counts[max(self.phase, 0)].values())

    def _set_subnets(self) -> None:
        self.subnets = ["random" if self._is_open() else "max"] * self.phases[max(self.phase, 0)].subnets

    def _largest(self) -> nn.Module:
        """The largest network, of the average of the weights where there is one."""
        whole: Any = self.model if self.engine is None or self.engine.average is None else self.engine.average.network
        network: nn.Module = whole.freeze(self.sizes.largest)
        return network.requires_grad_(False)

    def _beside(self) -> list[Mapping[str, Tensor]]:
        """What goes with the weights, by their names: their gradients, an optimizer's state, and their average."""
        weights = dict(cast(nn.Module, self.model).named_parameters())
        beside: list[Mapping[str, Tensor]] = [{name: w.grad for name, w in weights.items() if w.grad is not None}]
        state = self.weights_optimizer().state
        keys = {
            key for w in weights.values() for key, v in state.get(w, {}).items() if isinstance(v, Tensor) and v.ndim
        }
        beside += [{name: state[w][k] for name, w in weights.items() if k in state.get(w, {})} for k in sorted(keys)]
        if self.engine is not None and self.engine.average is not None:
            beside.append(self.engine.average.network.state_dict())
        return beside

    def archs(self, batch: Any, batch_idx: int) -> list[Arch]:
        """The subnets of a step, uniformly of what is open; all of one resolution, which is drawn too."""
        rng = random.Random(f"{self.sampler.seed} {self._iteration}")
        side = {RESOLUTION: rng.choice(list(self._index[RESOLUTION]))} if RESOLUTION in self._index else {}
        return [{**self.draw(rng), **side} for _ in self.subnets]

    def draw(self, rng: random.Random) -> Arch:
        """An arch of what is open in this phase."""
        drawn = {label: rng.choice(largest_of(self.sizes, label, n)) for label, n in self.counts[self.phase].items()}
        return {**self.sizes.largest, **drawn}

    def watched(self) -> dict[str, Any]:
        return {**super().watched(), "phase": torch.tensor(float(self.phase))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        own = self._teacher[0] if self._is_taught_inside else None
        checkpoint["ofa"] = {
            "phase": self.phase,
            "phases": [asdict(phase) for phase in self.phases],
            "teacher": None if own is None else own.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint["ofa"]
        if saved["phases"] != [asdict(phase) for phase in self.phases]:
            raise InputError("--phases: the run was begun with others; right would be the file as it was then")
        self.phase = saved["phase"]
        if saved["teacher"] is not None:
            teacher = self._largest()
            teacher.load_state_dict(saved["teacher"])
            self._teacher = (teacher,)
        self._set_subnets()


def largest_of(sizes: Sizes, label: str, count: int) -> list[Any]:
    """So many of a decision's values, the largest first."""
    largest = sizes.largest[label]
    return [largest, *(v for v in reversed(sizes.ranked[label]) if v != largest)][:count]


def _by_batch(teacher: nn.Module) -> nn.Module:
    """In eval mode, but batch norms take a batch's statistics, as its students' do; the average's own lag behind."""
    for module in teacher.eval().modules():
        if isinstance(module, _BatchNorm):
            module.training, module.momentum = True, 0.0
    return teacher


class OFA(BigNAS):
    """Progressive shrinking. Within hard limits the supernet is searched afterwards, as by `BigNAS`.

    Parameters
    ----------
    phases
        See `phases`; by default those of the paper, as far as the space has what they open.
    teacher
        In place of the largest network, which is one from the first phase on that opens something.
    distill, distill_boxes, distill_rows, dropout, drop_path, cost, seed, rate, evolution, ratings, budget
        See `BigNAS`; dropout and drop-path are of the phase that trains the largest network alone.
    """

    module_class = OFAModule  # type: ignore[assignment]

    def __init__(self, *, phases: Sequence[Phase] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.phases = phases

    @classmethod
    def check(cls, options: Options, space: Space) -> None:
        if options.phases is not None:
            read_phases(options.phases, space)

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        phases = None if options.phases is None else read_phases(options.phases, context.costs.space)
        return cls(phases=phases, **cls.learning(options, context), **cls.picking(options, context))

    def mutate_model(self, model: Any) -> Any:
        supernet = super().mutate_model(model)
        transform_kernels(supernet)
        space = self.settings["sampler"].space
        self.settings["phases"] = default_phases(space) if self.phases is None else self.phases
        if any(phase.sort for phase in self.settings["phases"]):
            order_channels(copy.deepcopy(supernet))  # what cannot be ordered is said before anything is trained
        return supernet
