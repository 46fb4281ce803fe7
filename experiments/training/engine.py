"""How weights are trained, whatever trains them: rates by iteration, accumulation, clipping, the average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import InputError
from models.files import plain_content
from models.plain_files import check_plain

from ..run.processes import average, broadcast_buffers
from ..tasks.param_groups import build_optimizer
from ..tasks.resize import resolution_of
from .ema import EMA
from .options import Learning
from .recipes import recipe_of
from .schedule import Rates, Schedule, starts_of

_CLIP_NORM = 10.0  # YOLOv5's
FINETUNE = 0.1  # share of the learning rate where the weights are trained: those of a supernet's slice


class Engine:
    """The recipe of a training. What is active in the network, and what its losses are, others say.

    Parameters
    ----------
    learning
        Options.
    batch
        Images to a batch, over all processes.
    finetunes
        Whether the weights are a trained supernet's, which take a tenth of the learning rate.
    sums_loss
        Whether a loss is a sum over images, as YOLOv5's, and not a mean.
    seed
        Of the side of the images, where that varies.
    say
        Told the pace, once.

    Attributes
    ----------
    average
        Of the weights (`EMA`): what is measured and kept. From `begin` on.
    phases
        Of every phase of the training: its share of the iterations, and the share of `lr0` that it begins with. Set
        before `begin`; none: the training is one.
    """

    def __init__(
        self,
        learning: Learning,
        batch: int,
        *,
        finetunes: bool = False,
        sums_loss: bool = True,
        seed: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.learning, self.batch, self.sums_loss, self.seed, self._say = learning, batch, sums_loss, seed, say
        self.lr0 = learning.rate * (FINETUNE if finetunes and learning.lr0 is None else 1)
        self.average: EMA | None = None
        self.phases: Sequence[tuple[float, float]] = ()
        self._last_step = -1  # iteration of the optimizer's last step
        self._loaded: dict[str, Any] | None = None

    def optimizer(self, network: nn.Module) -> optim.Optimizer:
        """A new optimizer of the network's weights."""
        given = self.learning
        # The pace is not known before there are loaders; the scale of the decay does not depend on it.
        decay = given.weight_decay * recipe_of(given.recipe, 1, 1, self.batch).decay_scale
        return build_optimizer(network, given.solver, self.lr0, given.momentum, decay)

    def begin(self, module: Any, network: nn.Module) -> None:
        """At the start of a fit: the pace, which depends on the loaders, and the average."""
        trainer, given = module.trainer, self.learning
        epochs, batches = trainer.max_epochs, int(trainer.num_training_batches)
        recipe = recipe_of(given.recipe, epochs, batches, self.batch)
        self.schedule = Schedule(
            epochs=epochs,
            batches=batches,
            lr0=self.lr0,
            lrf=given.lrf,
            momentum=given.momentum,
            warmup=recipe.warmup,
            accumulate=recipe.accumulate,
            cosine=given.cosine,
            # YOLOv5's 0.1 is for weights at their beginning; it would undo trained ones that are to be finetuned.
            warmup_bias_lr=min(0.1, 10 * self.lr0) if given.solver == "sgd" else 0.0,
            cycles=self._cycles(epochs * batches),
        )
        self._scale = recipe.loss_scale * trainer.world_size if self.sums_loss else None
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.momentum = recipe.bn_momentum
        self.average = EMA(network)
        if self._loaded is not None:
            self.average.load_state_dict(self._loaded)
        self._say(
            f"{epochs} epochs of {batches} batches; warm-up of {recipe.warmup} batches; "
            f"batches to a step: {round(recipe.accumulate)}"
        )

    def _cycles(self, iterations: int) -> tuple[tuple[int, float], ...]:
        starts = starts_of([share for share, _ in self.phases], iterations)
        return tuple((start, rate) for start, (_, rate) in zip(starts, self.phases, strict=True))

    def begin_epoch(self, optimizer: Any) -> None:
        """Drop the gradients of batches at an epoch's end that made no step, as YOLOv5 does: checkpoints need none."""
        optimizer.zero_grad()
        self._finite = torch.ones((), dtype=torch.bool)

    def iteration(self, module: Any, batch_idx: int) -> int:
        """Of a batch, counted from 0 over all epochs."""
        return int(module.current_epoch) * self.schedule.batches + batch_idx

    def resized(self, module: Any, learner: Any, batch: Any, batch_idx: int) -> Any:
        """A batch at the side that its images have this time, where that is to vary."""
        if not self.learning.multi_scale or resolution_of(learner.model, 0):
            return batch
        side, stride = batch[0].shape[-1], learner.model.imgsz_multiple
        drawn = multi_scale_side(side, stride, self.seed, self.iteration(module, batch_idx))
        return learner.at_side(batch, drawn)

    def step(
        self,
        module: Any,
        network: nn.Module,
        optimizer: Any,
        losses: Iterable[Tensor],
        batch_idx: int,
        backward: Callable[[Tensor], None],
        averages: bool = False,
    ) -> tuple[Tensor, Rates]:
        """One batch, whose loss is the sum of `losses`, and a step of the optimizer where it is due.

        Each loss is taken backward before the next one is asked for, so that an iterator of them needs the memory of
        one.

        Parameters
        ----------
        averages
            Whether gradients are still to be averaged over processes.

        Returns
        -------
        The sum without gradient, and the rates of the batch.

        Raises
        ------
        InputError
            A loss is not finite; on CUDA, where looking takes time, it is said at the epoch's end. Or the weights are
            not after an epoch's last batch, whose step no loss has seen.
        """
        iteration = self.iteration(module, batch_idx)
        rates = self.schedule.at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = rates.bias_lr if group["name"] == "bias" else rates.lr
            if "momentum" in group:
                group["momentum"] = rates.momentum
        scale = 1 / rates.accumulate if self._scale is None else self._scale
        total = torch.zeros((), device=module.device)
        for loss in losses:
            backward(loss * scale)
            total += loss.detach()
        self._watch(module, total)
        if iteration - self._last_step >= rates.accumulate:
            if averages:
                average(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
            optimizer.step()
            optimizer.zero_grad()
            assert self.average is not None
            self.average.update(network)
            self._last_step = iteration
        if module.trainer.is_last_batch:
            check_weights(network, int(module.current_epoch) + 1)
        return total, rates

    def _watch(self, module: Any, loss: Tensor) -> None:
        self._finite = self._finite.to(loss.device) & loss.isfinite()
        if (loss.device.type == "cpu" or module.trainer.is_last_batch) and not self._finite:
            raise InputError(
                f"the loss is not finite in epoch {module.current_epoch + 1}: a smaller --lr0 may help; "
                "what was saved before stands"
            )

    def clip(self, optimizer: optim.Optimizer) -> None:
        """Clip the gradients, which Lightning has unscaled by now, as YOLOv5 does."""
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], _CLIP_NORM)

    def finish(self, network: nn.Module) -> None:
        """After a fit, or a resumed one that had nothing left to do: the network becomes the average."""
        if self.average is not None:
            broadcast_buffers(self.average)
            network.load_state_dict(self.average.network.state_dict())
        elif self._loaded is not None:
            own = "network."  # of `EMA`, whose state has its counter too
            network.load_state_dict({k[len(own) :]: v for k, v in self._loaded.items() if k.startswith(own)})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside weights and optimizers."""
        assert self.average is not None
        return {"average": self.average.state_dict(), "last_step": self._last_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self._loaded, self._last_step = state["average"], state["last_step"]


def check_weights(network: nn.Module, epoch: int) -> None:
    """`InputError` if a tensor of a network is not finite at the end of an epoch, before it is saved."""
    floating = [v for v in network.state_dict().values() if v.is_floating_point()]
    if not bool(torch.stack([v.isfinite().all() for v in floating]).all()):
        raise InputError(
            f"the weights are not finite after epoch {epoch}: a smaller --lr0 may help; what was saved before stands"
        )


def multi_scale_side(imgsz: int, stride: int, seed: int, iteration: int) -> int:
    """Side of an iteration's images: a multiple of `stride` between half and one and a half times `imgsz`."""
    low, high = -(-imgsz // (2 * stride)), imgsz * 3 // (2 * stride)
    return int(np.random.default_rng([seed, iteration]).integers(low, high + 1)) * stride


def check_checkpoint(path: Path) -> None:
    """`InputError` if a training cannot go on from ``last.ckpt``; before anything is read, made or written for it."""
    if content := plain_content(path):
        engine_state(content)
    check_plain(path, may_trust=True)


def engine_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The engine's part of a checkpoint.

    Raises
    ------
    InputError
        A version that trained by another loop wrote it.
    """
    if "engine" not in checkpoint:
        raise InputError(
            "last.ckpt: of version 0.2 or before, whose training cannot be gone on with; right would be a new run "
            "with the options in config.yaml"
        )
    state: dict[str, Any] = checkpoint["engine"]
    return state
