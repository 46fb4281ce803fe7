"""BigNAS (Yu et al. 2020, arXiv:2003.11142): one supernet, trained so that its slices need no retraining.

A step trains several subnets on one batch, the largest and the smallest among them (the sandwich rule of Yu and Huang
2019, arXiv:1903.05134); the largest learns from labels, the others from the largest.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from models.catalog import is_head
from models.errors import InputError
from spaces import CostModel, Sizes, gradients_in_place
from spaces.kinds import RESOLUTION

from ..run.processes import average
from ..training.distillation import Distillation, Tap
from .base import Context, OneShot, batch_statistics
from .derive import Arch
from .distillation import FeatureMimic, distillation_of
from .options import Options
from .regularize import Regularization, zero_last_gamma
from .samplers import Sampler, make_sampler
from .spos import SPOS, SinglePathModule
from .teacher import read_teacher

SUBNETS = ("max", "random", "min")
SANDWICH = ("max", "random", "random", "min")
DISTILL = ("auto", "none", "kl", "alpha", "mimic")

# Rows whose output is several maps, or the channels of several.
_SEVERAL = ("Concat", "GhostConv", "SharedTowers")


class BigNASModule(SinglePathModule):
    """Several subnets a step; see `BigNAS` for the parameters.

    Parameters
    ----------
    sampler
        Of the random subnets.
    """

    def __init__(
        self,
        *args: Any,
        sampler: Sampler,
        subnets: Sequence[str] = SANDWICH,
        distill: str = "auto",
        distill_boxes: Literal["ciou", "l1"] = "ciou",
        distill_rows: Sequence[int] = (),
        teacher: nn.Module | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sampler, self.sizes = sampler, sampler.sizes
        # The largest first: the others learn from its outputs.
        self.subnets = sorted(subnets, key=SUBNETS.index)
        self.distill, self.distill_boxes, self.distill_rows = distill, distill_boxes, tuple(distill_rows)
        self._teacher = (teacher,)  # in a tuple it is no part of this module, nor of its checkpoints
        self.dropout, self.drop_path = dropout, drop_path
        decisions = self.sizes.cost.space.decisions
        self._index = {label: {v: i for i, v in enumerate(d.values)} for label, d in decisions.items()}
        self.best: Arch | None = dict(self.sizes.largest)

    # A step

    def on_train_start(self) -> None:
        super().on_train_start()
        self._regularization = Regularization(self.model, self.dropout, self.drop_path)
        self._distillation = self._distillation_of(cast(Any, self.training_module))
        self._features = FeatureMimic(self.distill_rows) if self.distill_rows and self._distillation else None
        for row in self.distill_rows:
            self._check_row(row)
        if self._teacher[0] is not None:
            self._teacher[0].to(self.device).eval()

    def _check_row(self, row: int) -> None:
        """`InputError` where a narrower subnet's map is not the first channels of the widest."""
        rows = cast(Any, self.model).config.rows
        # What there is not, `Tap` refuses.
        if 0 <= row < len(rows) and (rows[row].module in _SEVERAL or is_head(rows[row])):
            raise InputError(
                f"--distill-rows {row}: {rows[row].module} gives several maps; right would be a row with one, such as "
                "the C3 behind it"
            )

    def _distillation_of(self, module: Any) -> Distillation | None:
        return distillation_of(module, self.distill, self.distill_boxes)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step_weights(self._losses(batch, batch_idx), batch_idx)

    def backward_alone(self, loss: Tensor, **kwargs: Any) -> None:
        with gradients_in_place() if self.trainer.world_size == 1 else nullcontext():
            super().backward_alone(loss, **kwargs)

    def set(self, arch: Arch) -> None:
        """Set the supernet to the path of a whole arch, whose values are the space's own."""
        self.active.update({label: self._index[label][value] for label, value in arch.items()})

    def archs(self, batch: Any, batch_idx: int) -> list[Arch]:
        """The subnets of a step."""
        count = self.subnets.count("random")
        drawn = [self.sampler.candidates(self.global_step * count + i) for i in range(count)]
        fixed = {"max": self.sizes.largest, "min": self.sizes.smallest}
        common: Arch = {}
        if RESOLUTION in self._index and self._compares_maps():
            # As in OFA (arXiv:1908.09791), all subnets of a step see the same images: their maps are compared.
            rng = random.Random(f"{self.sampler.seed} {RESOLUTION} {self.global_step}")
            side = drawn[0][0][RESOLUTION] if drawn else rng.choice(list(self._index[RESOLUTION]))
            common = {RESOLUTION: side}
        picked = (self._picked([{**arch, **common} for arch in archs], batch, batch_idx) for archs in drawn)
        return [{**fixed[kind], **common} if kind in fixed else next(picked) for kind in self.subnets]

    def _compares_maps(self) -> bool:
        return self._features is not None or (self._distillation is not None and self._distillation.of_maps)

    def _picked(self, candidates: list[Arch], batch: Any, batch_idx: int) -> Arch:
        """Which of the archs that were drawn is trained."""
        if len(candidates) == 1:
            return candidates[0]
        losses = torch.stack([self._loss_now(arch, batch, batch_idx) for arch in candidates])
        average([losses])  # processes have seen different images, and are to train the same subnet
        return candidates[self.sampler.pick(losses.tolist())]

    @torch.no_grad()
    def _loss_now(self, arch: Arch, batch: Any, batch_idx: int) -> Tensor:
        """Label loss of a subnet, which leaves no trace in the batch norms' statistics."""
        self.set(arch)
        with batch_statistics(self.model):
            return self.loss(self._at_side(batch, arch), batch_idx, None).double()

    def _at_side(self, batch: Any, arch: Arch) -> Any:
        return cast(Any, self.training_module).at_side(batch, arch[RESOLUTION]) if RESOLUTION in arch else batch

    def _losses(self, batch: Any, batch_idx: int) -> Iterator[Tensor]:
        """Loss of each subnet, whose graph is the one in memory."""
        batch = self.seen(batch, batch_idx)
        taught: dict[int | None, tuple[Any, list[Tensor]]] = {}
        largest: tuple[Any, list[Tensor]] | None = None
        for kind, arch in zip(self.subnets, self.archs(batch, batch_idx), strict=True):
            seen = self._at_side(batch, arch)
            self.set(arch)  # before the teacher looks: the side of its images is the one that is active
            if self._teacher[0] is not None and kind != "max" and arch.get(RESOLUTION) not in taught:
                taught[arch.get(RESOLUTION)] = self._outputs(self._teacher[0], seen)
            lesson = taught.get(arch.get(RESOLUTION), largest)
            if kind == "max" or lesson is None or self._distillation is None:
                with (
                    self._regularization.on() if kind == "max" else nullcontext(),
                    Tap(self.model, self.distill_rows) as tap,
                ):
                    loss = self.loss(seen, batch_idx, "train" if kind == "max" else kind)
                if kind == "max":
                    largest = _detached(tap)
                del tap
                yield loss
            else:
                yield self._distilled(seen, batch_idx, lesson, kind)

    def _distilled(self, batch: Any, batch_idx: int, lesson: tuple[Any, list[Tensor]], kind: str) -> Tensor:
        """Loss of the subnet that is active against a teacher's output and features."""
        assert self._distillation is not None
        labels: Tensor | float = 0.0
        with Tap(self.model, self.distill_rows) as tap:
            if self._distillation.with_labels:
                labels = self.loss(batch, batch_idx, kind)
            else:
                self.model(cast(Any, self.training_module).inputs(batch))
        loss = self._distillation(tap.output, lesson[0])
        images = len(lesson[0][0]) if self._distillation.of_maps else 1  # a detection loss is a sum over images
        if self._features is not None:
            loss = loss + images * self._features(tap.features, lesson[1])
        self.log(f"distill_{kind}", loss.detach() / images, on_step=False, on_epoch=True, batch_size=1)
        return loss + labels

    @torch.no_grad()
    def _outputs(self, teacher: nn.Module, batch: Any) -> tuple[Any, list[Tensor]]:
        with Tap(teacher, self.distill_rows) as tap:
            teacher(cast(Any, self.training_module).inputs(batch))
        return _detached(tap)


def _detached(tap: Tap) -> tuple[Any, list[Tensor]]:
    output = tap.output
    kept = output.detach() if isinstance(output, Tensor) else [level.detach() for level in output]
    return kept, [f.detach() for f in tap.features]


class BigNAS(SPOS):
    """Sandwich training with in-place distillation. Within hard limits the supernet is searched afterwards.

    Without limits the result is the largest subnet; every other one can be cut out as well (`spaces.slice_weights`).

    Parameters
    ----------
    subnets
        Of a step: ``max``, ``min`` and ``random``, the last as often as wanted.
    sampler
        Of the random ones: see `experiments.oneshot.samplers.make_sampler`, or what makes one of (sizes, seed).
    distill
        What subnets beside the largest learn from: ``kl`` or ``alpha`` of a classifier's outputs, labels and ``mimic``
        of a detector's; ``auto`` is ``kl`` or ``mimic``; ``none``: labels alone, as the largest.
    distill_boxes
        Distance of boxes: ``ciou`` or ``l1``.
    distill_rows
        Rows whose feature maps are distilled too.
    teacher
        A plain network in place of the largest subnet's outputs.
    dropout, drop_path
        Of the largest subnet alone. BigNAS has 0.2 for both.
    cost
        Says what is large and what is small; made from the space unless given.
    seed
        Of the subnets drawn.
    rate, evolution, ratings, budget
        See `SPOS`.
    """

    module_class = BigNASModule  # type: ignore[assignment]
    leaves_slices = True
    of_yamls = True

    def __init__(
        self,
        *,
        subnets: Sequence[str] = SANDWICH,
        sampler: str | Callable[[Sizes, int], Sampler] = "uniform",
        distill: str = "auto",
        cost: CostModel | None = None,
        seed: int = 0,
        distill_boxes: Literal["ciou", "l1"] = "ciou",
        **settings: Any,
    ) -> None:
        if not subnets or any(s not in SUBNETS for s in subnets) or max(map(subnets.count, ("max", "min"))) > 1:
            raise InputError(
                f"--subnets {','.join(subnets)}: right would be max and min at most once, and random as often as "
                "wanted, such as max,random,random,min"
            )
        for name, value, known in (
            ("distill", distill, DISTILL),
            ("distill-boxes", distill_boxes, ("ciou", "l1")),
        ):
            if value not in known:
                raise InputError(f"--{name} {value}: right would be one of {', '.join(known)}")
        if distill == "none" and (settings.get("distill_rows") or settings.get("teacher") is not None):
            raise InputError(
                "--distill none: nothing is learnt from --teacher or --distill-rows; leave one of them out"
            )
        if "max" not in subnets and settings.get("teacher") is None and distill not in ("auto", "none"):
            raise InputError(f"--distill {distill}: right would be max among the --subnets, or a --teacher")
        super().__init__(subnets=tuple(subnets), distill=distill, distill_boxes=distill_boxes, **settings)
        self.sampler, self.cost, self.seed = sampler, cost, seed
        self.initialise = self.initialise or zero_last_gamma

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        given = {**cls.learning(options, context), **cls.picking(options, context)}
        return cls(subnets=options.subnets.split(","), sampler=options.sampler, **given)

    @staticmethod
    def learning(options: Options, context: Context) -> dict[str, Any]:
        """What subnets learn from."""
        return {
            "distill": options.distill,
            "distill_rows": tuple(options.distill_rows),
            "teacher": None if options.teacher is None else read_teacher(options.teacher, context.task),
            "dropout": options.dropout,
            "drop_path": options.drop_path,
            "distill_boxes": options.distill_boxes,
            # Else these have no resolution among their labels.
            "cost": context.costs if options.detector is None else None,
            "rate": context.rate,
            "budget": context.budget,
        }

    def mutate_model(self, model: Any) -> Any:
        cost = self.cost or CostModel(model.space, _COST_IMGSZ)
        make = functools.partial(make_sampler, self.sampler) if isinstance(self.sampler, str) else self.sampler
        self.settings["sampler"] = make(Sizes(cost), self.seed)
        return super().mutate_model(model)

    def _run(self) -> None:
        if self.budget is None:
            OneShot._run(self)
        else:
            super()._run()


# The order of sizes does not depend on the images' side, but the side must suit the strides.
_COST_IMGSZ = 256
