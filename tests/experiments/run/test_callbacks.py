"""What a checkpoint holds beside weights."""

import random

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from experiments.run.callbacks import LastCheckpoint
from tests.experiments.strategies_toys import trainer


class Drawing(pl.LightningModule):
    """Draws from every global generator, as a plug-in's module or an evaluator of others may."""

    def __init__(self):
        super().__init__()
        self.layer, self.drawn = nn.Linear(1, 1), []

    def training_step(self, batch, batch_idx):
        self.drawn.append((float(torch.rand(())), random.random(), float(np.random.rand())))
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def drawn(path, epochs, seed, resume=False):
    pl.seed_everything(seed, verbose=False)
    module, loader = Drawing(), DataLoader(torch.ones(4, 1), batch_size=2)
    again = {"ckpt_path": str(path), "weights_only": False} if resume else {}
    pl.Trainer(**trainer(epochs, [LastCheckpoint(path)])).fit(module, loader, **again)
    return module.drawn


def test_a_resumed_run_draws_on_from_every_generator(tmp_path):
    whole = drawn(tmp_path / "whole.ckpt", 2, seed=0)
    assert drawn(tmp_path / "cut.ckpt", 1, seed=0) == whole[:2]
    assert drawn(tmp_path / "cut.ckpt", 2, seed=1, resume=True) == whole[2:]
