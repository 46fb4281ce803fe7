"""What all one-shot strategies share: a supernet that follows its `Active`, and a Lightning module that sets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import torch
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import InputError
from spaces import CostModel, Space
from spaces.active import Active, Mixture
from spaces.kinds import RESOLUTION
from spaces.nni_compat import BaseOneShotLightningModule
from spaces.supernet import SupernetStrategy

from ..run.processes import average
from ..tasks.task import SearchTask
from ..training.engine import Engine, check_weights, engine_state
from .derive import Arch, Budget, most_probable
from .options import Options


class OneShotModule(BaseOneShotLightningModule):
    """Trains the weights of a supernet, and decides what is active in it.

    Parameters
    ----------
    training_module
        The evaluator's module, whose ``training_step`` gives the loss of a batch.
    active
        The supernet's.
    choices
        Label to values of every decision.
    budget
        Limits that an exported arch keeps; none if it is None.
    engine
        The recipe that the weights are trained by; the evaluator's own optimiser and hooks if it is None.
    gradient_clip_val
        Without an engine, the norm that the gradient of the weights is clipped to. Lightning refuses its trainer's
        under manual optimisation.

    Attributes
    ----------
    generator
        Of everything that is drawn for the architecture, on the CPU. Dropout and data have no part in it, it is the
        same in all processes of a distributed run, and checkpoints hold it.
    """

    def __init__(
        self,
        training_module: Any,
        active: Active,
        choices: Mapping[str, tuple[Any, ...]],
        budget: Budget | None = None,
        engine: Engine | None = None,
        gradient_clip_val: float | None = None,
    ) -> None:
        super().__init__(training_module)
        self.active, self.choices, self.budget, self.engine = active, dict(choices), budget, engine
        self.gradient_clip_val = gradient_clip_val
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def probabilities(self) -> dict[str, Tensor]:
        """Label to (n,), the probability of every value."""
        raise NotImplementedError

    def penalty(self, probabilities: Mapping[str, Tensor]) -> Tensor | float:
        """What the budget adds to the loss of the architecture."""
        return 0.0 if self.budget is None else self.budget.penalty(probabilities)

    @torch.no_grad()
    def export(self) -> Arch:
        """The most probable arch within the budget."""
        return most_probable(self.export_probs(), self.budget)

    @torch.no_grad()
    def export_probs(self) -> dict[str, dict[Any, float]]:
        """Label to {value: probability}."""
        given = {label: p.tolist() for label, p in self.probabilities().items()}
        return {label: dict(zip(values, given[label], strict=True)) for label, values in self.choices.items()}

    def activate(self, arch: Mapping[str, Any]) -> None:
        """Set the supernet to the path of `arch`."""
        self.active.set(arch, self.choices)

    def take(self, indices: Iterable[int]) -> None:
        """Set the supernet to a path: the index of a value for each decision, in the order of `choices`."""
        self.active.update(zip(self.choices, indices, strict=True))

    def loss(self, batch: Any, batch_idx: int, log_as: str | None = "train") -> Tensor:
        """Loss of a batch of what is active.

        What the evaluator logs as ``train_…`` is logged with `log_as` in place of ``train``; not at all if it is None.
        """
        module = cast(Any, self.training_module)
        log, batch = module.log, self.seen(batch, batch_idx)

        def renamed(name: str, *args: Any, **kwargs: Any) -> None:
            if log_as is not None:
                log(f"{log_as}_{name.removeprefix('train_')}", *args, **kwargs)

        module.log = renamed
        try:
            out = module.training_step(batch, batch_idx)
        finally:
            module.log = log
        return cast(Tensor, out["loss"] if isinstance(out, dict) else out)

    def seen(self, batch: Any, batch_idx: int) -> Any:
        """A batch at the side of the images that this iteration has."""
        if self.engine is None or not self.engine.learning.multi_scale or RESOLUTION in self.choices:
            return batch
        return self.engine.resized(self, cast(Any, self.training_module), batch, batch_idx)

    def quiet_loss(self, batch: Any) -> Tensor:
        """Loss of a batch of what is active, outside of training."""
        return self.loss(self.training_module.transfer_batch_to_device(batch, self.device, 0), 0, None)

    def backward_alone(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward without DDP's averaging, which wants all parameters in every backward: a path has few of them."""
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            self.manual_backward(loss, **kwargs)

    def configure_optimizers(self) -> Any:
        if self.engine is None:
            return super().configure_optimizers()
        alphas = self.configure_architecture_optimizers()
        if alphas is None:
            return self.engine.optimizer(self.model)
        cast(Any, alphas).is_arch_optimizer = True  # as NNI marks them
        return [self.engine.optimizer(self.model), alphas]

    def weights_optimizer(self) -> Any:
        """The optimiser of the weights, whosever it is."""
        given = cast(Any, self.optimizers())
        own = [o for o in (given if isinstance(given, list) else [given]) if not hasattr(o, "is_arch_optimizer")]
        if len(own) != 1:
            raise InputError(f"one-shot strategies take evaluators with one optimiser, this one has {len(own)}")
        return own[0]

    def step_weights(self, losses: Iterable[Tensor], batch_idx: int) -> Tensor:
        """One step of the weights' optimiser down the sum of `losses`.

        Each is taken backward before the next one is asked for, so that an iterator of them needs the memory of one.

        Returns
        -------
        Their sum, without gradient.
        """
        module, optimizer = cast(Any, self.training_module), self.weights_optimizer()
        if self.engine is not None:
            given = self, self.model, optimizer, losses, batch_idx, self.backward_alone
            return self.engine.step(*given, averages=True)[0]
        module.optimizer_zero_grad(self.current_epoch, batch_idx, optimizer)
        total = torch.zeros((), device=self.device)
        for loss in losses:
            self.backward_alone(loss)
            total += loss.detach()
        average(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        module.configure_gradient_clipping(optimizer, self.gradient_clip_val, "norm")
        module.optimizer_step(self.current_epoch, batch_idx, optimizer)
        self.advance_lr_schedulers(batch_idx)
        return total

    def watched(self) -> dict[str, Any]:
        """What is logged of the architecture after every epoch."""
        entropies = [torch.special.entr(p).sum() for p in self.probabilities().values()]
        return {"arch_entropy": torch.stack(entropies).mean().detach().cpu()}

    def on_train_start(self) -> None:
        self.generator.set_state(self.trainer.strategy.broadcast(self.generator.get_state()))
        if self.engine is not None:
            self.engine.begin(self, self.model)
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        if self.engine is not None:
            self.engine.begin_epoch(self.weights_optimizer())
        super().on_train_epoch_start()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.engine is not None and not hasattr(optimizer, "is_arch_optimizer"):
            self.engine.clip(optimizer)
        super().on_before_optimizer_step(optimizer)

    def on_fit_end(self) -> None:
        if self.engine is not None:
            self.engine.finish(self.model)
        super().on_fit_end()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(*args, **kwargs)
        # In time for what callbacks do at the end of an epoch, which is before the module's own turn.
        if self.trainer.is_last_batch:
            if self.engine is None:  # which looks by itself
                check_weights(self.model, self.current_epoch + 1)
            if not all(bool(p.isfinite().all()) for p in self.probabilities().values()):
                raise InputError(
                    f"the architecture's parameters are not finite after epoch {self.current_epoch + 1}: a smaller "
                    "--arch-lr may help; what was saved before stands"
                )
            self.log_dict(self.watched(), on_step=False, on_epoch=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["arch_generator"] = self.generator.get_state()
        if self.engine is not None:
            checkpoint["engine"] = self.engine.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.generator.set_state(checkpoint["arch_generator"].cpu())
        if self.engine is not None:
            self.engine.load_state_dict(engine_state(checkpoint))


def _check_settings(strategy: type[OneShot], settings: Mapping[str, Any]) -> None:
    """`InputError` for a setting that no class of the strategy's module takes, which would fail when it is run."""
    classes: tuple[Any, ...] = getattr(strategy.module_class, "__mro__", ())
    own = [c for c in classes if "__init__" in vars(c)]
    known = {name for c in own for name in signature(c.__init__).parameters}
    if unknown := [name for name in settings if own and name not in known]:
        raise InputError(
            f"{strategy.__name__} takes no '{unknown[0]}'; what became of NNI's options: docs/nni-strategies.md"
        )


class Bilevel(OneShotModule):
    """Architecture and weights by turns, each on its own half of the data (Liu et al. 2019, section 2.2).

    Batches are ``{"train": …, "val": …}``: the first for the weights, the second for the architecture.

    Parameters
    ----------
    arc_learning_rate
        Of Adam on the architecture.
    warmup_epochs
        So many epochs train weights alone.
    """

    def __init__(self, *args: Any, arc_learning_rate: float = 3e-4, warmup_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arc_learning_rate, self.warmup_epochs = arc_learning_rate, warmup_epochs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.current_epoch >= self.warmup_epochs:
            self.arch_step(batch, batch_idx)
        with torch.no_grad():
            self.activate_for_weights()
        return self.step_weights([self.loss(batch["train"], batch_idx)], batch_idx)

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        """One step of the architecture's optimiser, on ``batch["val"]``."""
        raise NotImplementedError

    def activate_for_weights(self) -> None:
        """Set what the weights are trained on."""
        raise NotImplementedError


class Alphas(Bilevel):
    """An architecture parameter for every value of every decision; probabilities are their softmax.

    Attributes
    ----------
    alphas
        (n,) for every decision, in the order of `choices`.
    decided
        What a measurement after the training decided (`perturb.decide`), in place of the probabilities.
    """

    decided: Any = None

    # Of Adam: those of DARTS, appendix A.1.1.
    betas: ClassVar[tuple[float, float]] = (0.5, 0.999)
    weight_decay: ClassVar[float] = 1e-3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # As in DARTS' own code: nearly zero, but not quite, so that no two values are exactly alike.
        self.alphas = nn.ParameterList(
            [1e-3 * torch.randn(len(v), generator=self.generator) for v in self.choices.values()]
        )

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.alphas, self.arc_learning_rate, self.betas, weight_decay=self.weight_decay)

    def export(self) -> Arch:
        return super().export() if self.decided is None else dict(self.decided.arch)

    def probabilities(self) -> dict[str, Tensor]:
        return {label: alpha.softmax(0) for label, alpha in zip(self.choices, self.alphas, strict=True)}

    def mix(self, probabilities: Mapping[str, Tensor]) -> None:
        """Activate the mixture of all values."""
        self.active.update({label: Mixture.of_all(p) for label, p in probabilities.items()})

    def step_alphas(self, loss: Tensor) -> None:
        """A step down the gradient of `loss`, which is taken for the architecture alone."""
        optimizer = cast(Any, self.architecture_optimizers())
        optimizer.zero_grad()
        self.backward_alone(loss, inputs=list(self.alphas))
        average(alpha.grad for alpha in self.alphas if alpha.grad is not None)
        optimizer.step()


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Within, forwards in training mode leave no trace in the statistics of batch norms."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum


class Context(NamedTuple):
    """What a strategy may need of the search that it is made for.

    Attributes
    ----------
    costs
        Of the results.
    rate
        Arch to its rating, by the supernet and the task.
    folder
        Of the run.
    """

    task: SearchTask
    costs: CostModel
    budget: Budget | None
    rate: Callable[[Arch], float]
    folder: Path


class OneShot(SupernetStrategy):
    """Base of the strategies: makes a supernet of a model space, and of an evaluator the module that searches.

    Parameters
    ----------
    budget
        Limits of the exported arch, and a target for the search.
    weights_engine
        The recipe that the weights are trained by; the evaluator's own optimiser and hooks if it is None.
    initialise
        Called with the supernet before it is trained, such as for trained weights to begin with.
    **settings
        Of `module_class`.
    """

    module_class: ClassVar[Callable[..., OneShotModule]]
    bilevel: ClassVar[bool] = True
    # Whether a slice of the supernet is as good as a network that was trained alone.
    leaves_slices: ClassVar[bool] = False
    # Whether it searches the rows of a YAML alone, and no other model space.
    of_yamls: ClassVar[bool] = False

    def __init__(
        self,
        budget: Budget | None = None,
        mutation_hooks: Any = None,
        weights_engine: Engine | None = None,
        initialise: Callable[[Any], Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(mutation_hooks=mutation_hooks)
        _check_settings(type(self), settings)
        self.budget, self.settings = budget, settings
        self.weights_engine, self.initialise = weights_engine, initialise

    @classmethod
    def check(cls, options: Options, space: Space) -> None:
        """`InputError` where options of its own do not fit the space, before anything is written."""

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        """The strategy that `oneshot_nas.py` asks for."""
        return cls(budget=context.budget, arc_learning_rate=options.arch_lr)

    def configure_oneshot_module(self, training_module: Any) -> OneShotModule:
        return self.make_module(type(self).module_class, training_module)

    def make_module(self, kind: Callable[..., OneShotModule], training_module: Any) -> OneShotModule:
        """A module of this strategy's supernet and settings."""
        given = {"budget": self.budget, "engine": self.weights_engine, **self.settings}
        return kind(training_module, self.active, self.choices, **given)

    def mutate_model(self, model: Any) -> Any:
        supernet = super().mutate_model(model)
        if self.initialise is not None:
            self.initialise(supernet)
        return supernet

    def train_dataloader(self, train: Callable[[], Any], val: Callable[[], Any]) -> Any:
        self.loaders = train, val
        return {"train": train(), "val": val()} if self.bilevel else train()

    def val_dataloader(self, train: Callable[[], Any], val: Callable[[], Any]) -> Any:
        return None  # its batches train the architecture, or the search after the training looks at them
