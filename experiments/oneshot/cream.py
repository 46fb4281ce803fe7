"""Cream (Peng et al. 2020, arXiv:2010.15821): single paths that learn from the best paths seen so far.

Which of the board's paths teaches, and how much its lesson weighs beside the labels, says a meta network, given the
difference of both paths' logits. It learns from what a step of the weights that goes by its word does to the loss on
held-out data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from spaces.kinds import RESOLUTION

from ..run.processes import average
from ..training.distillation import Distillation, Tap
from .base import Bilevel, Context, OneShot, batch_statistics
from .board import Board, Path
from .derive import Arch, most_probable
from .distillation import distillation_of
from .options import Options
from .spos import SPOS

_TRIES = 16  # of paths that are drawn until one is within the limits
_HIDDEN = 16
_MOST = 4096  # differences of logits that the meta network looks at: evenly spaced ones, where there are more
_WARMUP = 6  # one in so many epochs is for the weights alone; of 120 there the first 20


class MetaNetwork(nn.Module):
    """Differences of logits to how well one path teaches the other: the mean of a small network of each difference.

    So it takes any number of classes, places and images; the paper's is linear in those of four images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, differences: Tensor) -> Tensor:
        """(n,) -> scalar, whose sigmoid is the matching degree."""
        first = cast(nn.Linear, self.layers[0])
        found: Tensor = self.layers(differences[:, None].to(first.weight)).mean()
        return found


class Lesson(NamedTuple):
    """What a path learns from another.

    Attributes
    ----------
    path, output
        The teacher, and its logits of the batch.
    difference
        (n,), of its logits from the student's on some images.
    score
        The meta network's of the teacher, over all processes.
    """

    path: Path
    output: Any
    difference: Tensor
    score: Tensor

    @property
    def weight(self) -> Tensor:
        """The matching degree, 0 to 1."""
        return self.score.sigmoid()


class CreamModule(Bilevel):
    """A path a step, drawn uniformly within the limits, its teacher from the board; see `Cream` for the parameters."""

    best: Arch | None = None

    def __init__(
        self,
        *args: Any,
        board: int = 10,
        cost: Callable[[Arch], float] | None = None,
        meta_every: int = 10,
        meta_images: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.board, self.cost = Board(board), cost or (lambda arch: 0.0)
        self.meta_every, self.meta_images = meta_every, meta_images
        self.meta = MetaNetwork()
        self._distillation: Distillation | None = None

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.meta.parameters(), self.arc_learning_rate, (0.5, 0.999))

    def on_train_start(self) -> None:
        super().on_train_start()
        self._distillation = distillation_of(cast(Any, self.training_module), "auto", "ciou")

    # A step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        iteration = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        path = self.drawn()
        lesson = self.lesson(path, batch["train"], batch_idx) if self.current_epoch >= self.warmup_epochs else None
        if lesson is not None and iteration % self.meta_every == 0:
            self._step_meta(self.meta_gradient(path, lesson, batch, batch_idx))
        loss = self.step_weights(self._losses(path, lesson, batch["train"], batch_idx), batch_idx)
        self._see(path, batch["val"], batch_idx, iteration)
        return loss

    def drawn(self) -> Path:
        """A path uniformly of those within the limits; the cheapest where these are hard to find."""
        for _ in range(_TRIES if self.budget is not None else 1):
            shares = torch.rand(len(self.choices), dtype=torch.float64, generator=self.generator).tolist()
            path = tuple(int(s * len(values)) for s, values in zip(shares, self.choices.values(), strict=True))
            if self.budget is None or self.budget.feasible([self.arch_of(path)])[0]:
                return path
        cheapest = cast(Any, self.budget).cheapest()
        return tuple(values.index(cheapest[label]) for label, values in self.choices.items())

    def arch_of(self, path: Sequence[int]) -> Arch:
        return {label: values[i] for (label, values), i in zip(self.choices.items(), path, strict=True)}

    def lesson(self, path: Path, batch: Any, batch_idx: int) -> Lesson | None:
        """From the path on the board that the meta network takes for the best teacher of this one."""
        others = [self._at_side_of(path, entry.path) for entry in self.board if entry.path != path]
        if not others or self._distillation is None:
            return None
        images = max(self.meta_images // self.trainer.world_size, 1)
        own = self._logits(path, batch, batch_idx, images)
        differences = [_difference(self._logits(other, batch, batch_idx, images), own) for other in others]
        with torch.no_grad():
            scores = torch.stack([self.meta(d) for d in differences])
        average([scores])
        chosen = int(scores.argmax())
        output = self._logits(others[chosen], batch, batch_idx)
        return Lesson(others[chosen], output, differences[chosen], scores[chosen])

    def _at_side_of(self, path: Path, other: Path) -> Path:
        """The other path at this one's resolution: maps are compared."""
        return tuple(a if label == RESOLUTION else b for label, a, b in zip(self.choices, path, other, strict=True))

    @torch.no_grad()
    def _logits(self, path: Path, batch: Any, batch_idx: int, images: int | None = None) -> Any:
        """Of the first images of a batch, without a trace in the batch norms' statistics."""
        self.take(path)
        x = cast(Any, self.training_module).inputs(self.seen(batch, batch_idx))
        with batch_statistics(self.model):
            y = cast(Any, self.model)(x[:images])
        return y[1] if isinstance(y, tuple) else y

    def _losses(self, path: Path, lesson: Lesson | None, batch: Any, batch_idx: int) -> Iterator[Tensor]:
        labels, taught = self._labels_and_lesson(path, lesson, batch, batch_idx, "train")
        if lesson is None:
            yield labels
        else:
            self.log("matching", lesson.weight, on_step=False, on_epoch=True, batch_size=1)
            yield labels + lesson.weight * taught

    def _labels_and_lesson(
        self, path: Path, lesson: Lesson | None, batch: Any, batch_idx: int, log_as: str | None
    ) -> tuple[Tensor, Tensor]:
        self.take(path)
        with Tap(self.model) as tap:
            labels = self.loss(batch, batch_idx, log_as)
        if lesson is None or self._distillation is None:
            return labels, torch.zeros_like(labels)
        return labels, self._distillation(tap.output, lesson.output)

    # The meta network

    def meta_gradient(self, path: Path, lesson: Lesson, batch: Any, batch_idx: int) -> list[Tensor]:
        """Gradient of the held-out loss after a step of the weights, for every parameter of the meta network.

        The step, plain gradient descent at the optimiser's learning rate, is linear in the matching degree, so that the
        gradient is exact (section 3.2): of the held-out loss by the weights, along the gradient of the lesson.
        """
        weights = [p for p in self.model.parameters() if p.requires_grad]
        rate = float(self.weights_optimizer().param_groups[0]["lr"])
        with batch_statistics(self.model):
            losses = self._labels_and_lesson(path, lesson, batch["train"], batch_idx, None)
            by_labels, by_lesson = (self._by(loss, weights, keep=i == 0) for i, loss in enumerate(losses))
            before = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, a, b in zip(weights, by_labels, by_lesson, strict=True):
                    w -= rate * (a + lesson.weight * b)
            ahead = self._by(self.loss(batch["val"], batch_idx, None), weights)
            with torch.no_grad():
                for w, old in zip(weights, before, strict=True):
                    w.copy_(old)
        along = torch.stack([(a * b).sum() for a, b in zip(ahead, by_lesson, strict=True)]).sum()
        slope = -rate * along * lesson.weight * (1 - lesson.weight)
        parameters = [*self.meta.parameters()]
        gradient = torch.autograd.grad(self.meta(lesson.difference) * slope, parameters)
        average(gradient)
        return list(gradient)

    @staticmethod
    def _by(loss: Tensor, weights: list[Tensor], keep: bool = False) -> list[Tensor]:
        found = torch.autograd.grad(loss, weights, retain_graph=keep, allow_unused=True, materialize_grads=True)
        gradients = list(found)
        average(gradients)
        return gradients

    def _step_meta(self, gradient: list[Tensor]) -> None:
        if not all(bool(g.isfinite().all()) for g in gradient):
            return  # a look ahead may go too far; the weights' own step is told of by the engine
        optimizer = cast(Any, self.architecture_optimizers())
        for p, g in zip(self.meta.parameters(), gradient, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()

    # The board

    @torch.no_grad()
    def _see(self, path: Path, batch: Any, batch_idx: int, iteration: int) -> None:
        """Let the board know how good a path is now on held-out data, and one of its own by turns."""
        paths = [path]
        if self.board and (again := self.board.entries[iteration % len(self.board)].path) != path:
            paths.append(again)
        losses = []
        for seen in paths:
            self.take(seen)
            with batch_statistics(self.model):
                losses.append(self.loss(batch, batch_idx, "arch").double())
        reached = torch.stack(losses)
        average([reached])
        for seen, loss in zip(paths, reached.tolist(), strict=True):
            if math.isfinite(loss):
                self.board.see(seen, -loss, self.cost(self.arch_of(seen)))

    def candidates(self) -> list[Arch]:
        """The archs on the board; where there are none, the most probable one."""
        return [self.arch_of(e.path) for e in self.board] or [most_probable(self.export_probs(), self.budget)]

    def probabilities(self) -> dict[str, Tensor]:
        """How often values are on the board; before there is any, all alike."""
        found = {}
        for i, (label, values) in enumerate(self.choices.items()):
            counts = torch.bincount(torch.tensor([e.path[i] for e in self.board], dtype=torch.int64), None, len(values))
            found[label] = counts / len(self.board) if self.board else torch.full((len(values),), 1 / len(values))
        return found

    def export(self) -> Arch:
        return self.candidates()[0] if self.best is None else self.best

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["board"] = self.board.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.board.load(checkpoint["board"])


def _difference(teacher: Any, student: Any) -> Tensor:
    """(n,), of logits, or of several maps of them."""
    levels = [(teacher, student)] if isinstance(teacher, Tensor) else zip(teacher, student, strict=True)
    found = torch.cat([(t - s).flatten() for t, s in levels])
    return found[:: len(found) // _MOST | 1]  # an odd step, so that it is not always the same channels


class Cream(SPOS):
    """Prioritised paths. The result is the best of the board, each of whose archs is rated after the training.

    Parameters
    ----------
    board
        Paths on it at most.
    cost
        Of an arch: of two that are as good the cheaper one has the place on the board.
    meta_every
        A step of the meta network comes every so many steps of the weights.
    meta_images
        Of a batch, over all processes, on which it compares paths.
    arc_learning_rate
        Of the meta network.
    warmup_epochs
        Epochs before any path teaches.
    rate
        See `SPOS`.
    gradient_clip_val, budget
        See `base.OneShotModule`.
    """

    module_class = CreamModule  # type: ignore[assignment]
    bilevel = True

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        costs = context.costs
        return cls(
            rate=context.rate,
            budget=context.budget,
            arc_learning_rate=options.arch_lr,
            warmup_epochs=options.epochs // _WARMUP,
            board=options.board,
            cost=lambda arch: costs.of(costs.space.complete(arch))["flops"],
        )

    def _run(self) -> None:
        OneShot._run(self)
        module: Any = self.oneshot_module
        module.to(module.trainer.strategy.root_device)  # Lightning leaves it on the CPU
        self.rated = [(arch, self._agreed(arch)) for arch in module.candidates()]
        module.best = max(self.rated, key=lambda pair: pair[1])[0]
        module.activate(module.best)
