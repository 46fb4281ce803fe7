"""The training loop in this process: clipping under half precision, what is averaged, what a bad loss says."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.plugins.precision import MixedPrecision

from data import collate, detection
from experiments.tasks.detect import DetectionModule
from experiments.tasks.loaders import make_loader
from experiments.training import engine as engines
from experiments.training.engine import Engine
from experiments.training.loop import Best, Training
from experiments.training.options import Learning
from experiments.training.recipes import Recipe
from models import Model, read_config
from models.errors import InputError


class Watched(Training):
    """Notes the norm of the gradients before they are clipped, and after."""

    def on_before_optimizer_step(self, optimizer):
        self.norms = [*getattr(self, "norms", []), self._norm()]
        super().on_before_optimizer_step(optimizer)
        self.clipped = [*getattr(self, "clipped", []), self._norm()]

    def _norm(self):
        return float(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm())


@pytest.fixture
def fit(digits, tiny_cfg, monkeypatch):
    data = detection(digits(), 64, None)

    def run(epochs=2, loss_scale=1.0, accumulate=1.0, lr0=0.01, **trainer):
        recipe = Recipe(accumulate=accumulate, warmup=0, loss_scale=loss_scale, decay_scale=0.0, bn_momentum=0.03)
        monkeypatch.setattr(engines, "recipe_of", lambda *_: recipe)
        torch.manual_seed(0)
        module = DetectionModule(data.names, 64)
        training = Watched(module, Model(read_config(tiny_cfg, nc=10)), Engine(Learning(lr0=lr0), 4))
        options = {"accelerator": "cpu", "devices": 1, "logger": False, "num_sanity_val_steps": 0, **trainer}
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        loader = make_loader(data.train, 4, drop_last=False, collate=collate)
        pl.Trainer(max_epochs=epochs, use_distributed_sampler=False, **options, **quiet).fit(training, loader)
        return training

    return run


class Told(DummyLogger):
    """Notes what it is told of each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def log_metrics(self, metrics, step=None):
        if "step/loss" in metrics:
            self.steps.append(step)


def test_every_logger_is_told_of_every_step(fit):
    several = [Told(), Told()]
    fit(epochs=1, logger=several)
    assert several[0].steps == several[1].steps == list(range(len(several[0].steps)))
    assert len(several[0].steps) > 1


@pytest.mark.filterwarnings("ignore")
def test_gradients_are_clipped_as_they_are_not_as_half_precision_scales_them(fit):
    whole = fit(loss_scale=64.0)
    half = fit(
        loss_scale=64.0, plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))]
    )
    assert half.norms[0] == pytest.approx(whole.norms[0], rel=0.05)
    assert max(half.clipped) <= 10.1
    assert max(whole.clipped) <= 10.001
    assert max(whole.norms) > 10, "or nothing was clipped"


@pytest.mark.filterwarnings("ignore")
def test_steps_are_made_of_as_many_batches_as_the_schedule_says(fit):
    assert fit(epochs=3).trainer.global_step == 9
    # Steps at iterations 1, 3, 5, 7: -1 is taken as the last before the first, as upstream does.
    assert fit(epochs=3, accumulate=2.0).trainer.global_step == 4
    assert fit(epochs=3, accumulate=2.0).engine.average.updates == 4


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_training(fit):
    with pytest.raises(InputError, match=r"the loss is not finite in epoch \d: a smaller --lr0 may help"):
        fit(epochs=3, lr0=1e30)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_not_finite_after_the_last_batch_end_the_training(fit, monkeypatch):
    """The one step of the only epoch is its last batch's: no loss sees what it made of the weights."""

    def overflow(optimizer, closure=None):
        for group in optimizer.param_groups:
            for weights in group["params"]:
                weights.data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.SGD, "step", overflow)
    with pytest.raises(InputError, match="the weights are not finite after epoch 1: a smaller --lr0 may help"):
        fit(epochs=1, accumulate=3.0)


@pytest.mark.parametrize("measured", [{"map50": float("nan")}, {"map50": 0.5, "val_loss": float("inf")}])
def test_what_validation_cannot_measure_is_no_best_epoch(measured):
    trainer = SimpleNamespace(current_epoch=0, is_global_zero=True, callback_metrics=measured)
    saved = []
    best = Best(lambda m: m["map50"], lambda *_: saved.append(1), 0)
    with pytest.raises(InputError, match="measured in epoch 1 is not finite"):
        best.on_train_epoch_end(trainer, SimpleNamespace(learner=SimpleNamespace(measured=measured), average=None))
    assert (saved, best.best) == ([], {})
