"""The training loop in this process: clipping under half precision, what is averaged, what a bad loss says."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from data import detection
from experiments.training.loop import DetectorTraining
from experiments.training.schedule import Schedule
from models import Model, read_config
from models.errors import InputError


class Watched(DetectorTraining):
    """Notes the norm of the gradients before they are clipped, and after."""

    def on_before_optimizer_step(self, optimizer):
        self.norms = [*getattr(self, "norms", []), self._norm()]
        super().on_before_optimizer_step(optimizer)
        self.clipped = [*getattr(self, "clipped", []), self._norm()]

    def _norm(self):
        return float(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm())


@pytest.fixture
def fit(digits, tiny_cfg, tmp_path):
    data = detection(digits(), 64, None)

    def run(epochs=2, loss_scale=1.0, accumulate=1.0, lr0=0.01, **trainer):
        torch.manual_seed(0)
        model = Model(read_config(tiny_cfg, nc=10))
        module = Watched(
            model,
            data,
            Schedule(epochs, batches=3, warmup=0, accumulate=accumulate, lr0=lr0),
            imgsz=64,
            batch=4,
            optimizer="sgd",
            weight_decay=0.0,
            loss_scale=loss_scale,
            multi_scale=False,
            patience=0,
            seed=0,
            workers=0,
            result=tmp_path / "detector.pt",
        )
        options = {"accelerator": "cpu", "devices": 1, "logger": False, "num_sanity_val_steps": 0, **trainer}
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        pl.Trainer(max_epochs=epochs, use_distributed_sampler=False, **options, **quiet).fit(module)
        return module

    return run


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
    assert fit(epochs=3, accumulate=2.0).ema.updates == 4


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_training(fit):
    with pytest.raises(InputError, match=r"the loss is not finite in epoch \d: a smaller --lr0 may help"):
        fit(epochs=3, lr0=1e30)
