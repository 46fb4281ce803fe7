"""`last.ckpt`: what a training is gone on with."""

import logging

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.run.callbacks import History, LastCheckpoint
from experiments.run.lightning import PlainCheckpoints, restoring
from experiments.training.engine import check_checkpoint
from tests.refusal import refused

from .guard import holds, slowly
from .hostile import bytes_of, mutated
from .test_checkpoints import _bombs, _saved, anything

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class _Toy(pl.LightningModule):
    def __init__(self, width=2):
        super().__init__()
        self.linear = torch.nn.Linear(width, 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    def training_step(self, batch, batch_idx):
        return self.linear(batch).mean()


def _fit(folder, epochs, checkpoint=None, width=2):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[PlainCheckpoints()],
        callbacks=[History(folder / "metrics.csv"), LastCheckpoint(folder / "last.ckpt")],
    )
    with restoring(trainer, checkpoint):
        trainer.fit(_Toy(width), torch.utils.data.DataLoader(torch.ones(4, width), 2), ckpt_path=checkpoint)
    return trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    _fit(folder, 1)
    return (folder / "last.ckpt").read_bytes(), torch.load(folder / "last.ckpt", weights_only=False)


def test_it_is_gone_on_with(tmp_path, checkpoint):
    (tmp_path / "last.ckpt").write_bytes(checkpoint[0])
    assert _fit(tmp_path, 2, tmp_path / "last.ckpt").current_epoch == 2


@slowly
@given(st.data())
def test_bytes(tmp_path_factory, checkpoint, data):
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    path.write_bytes(data.draw(st.one_of(bytes_of(checkpoint[0]), st.binary(max_size=50))))
    holds("last.ckpt, bytes", check_checkpoint, path)
    holds("last.ckpt, bytes", _fit, path.parent, 2, path)


@slowly
@given(st.data())
def test_contents(tmp_path_factory, checkpoint, data):
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    if _saved(data.draw(mutated(checkpoint[1], 1, anything)), path):
        holds("last.ckpt, contents", _fit, path.parent, 2, path)


@pytest.mark.parametrize("number", range(6))
def test_bombs(tmp_path, checkpoint, number):
    if _saved({**checkpoint[1], "hyper_parameters": _bombs()[number]}, tmp_path / "last.ckpt"):
        holds("last.ckpt, bombs", _fit, tmp_path, 2, tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    "content", [{}, [], {"state_dict": {}}, torch.zeros(2), {"yaml": {}, "state_dict": {}, "names": []}]
)
def test_of_another_kind(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with refused("last.ckpt"):
        _fit(tmp_path, 2, tmp_path / "last.ckpt")


def test_of_another_shape(tmp_path, checkpoint):
    (tmp_path / "last.ckpt").write_bytes(checkpoint[0])
    with refused("last.ckpt", "cannot be gone on with: RuntimeError"):
        _fit(tmp_path, 2, tmp_path / "last.ckpt", width=3)


def _set(content, key, value):
    """With `value` in place of whatever stands under `key`, at any depth."""
    if not isinstance(content, dict):
        return content
    return {k: value if k == key else _set(v, key, value) for k, v in content.items()}


@pytest.mark.parametrize("value", [None, {}, "1"])
@pytest.mark.parametrize("key", ["ready", "started", "processed", "completed", "rows"])
def test_counts_and_histories_that_are_none(tmp_path, checkpoint, key, value):
    torch.save(_set(checkpoint[1], key, value), tmp_path / "last.ckpt")
    with refused("last.ckpt", "cannot be gone on with: TypeError"):
        _fit(tmp_path, 2, tmp_path / "last.ckpt")


def test_what_fails_later_is_no_matter_of_the_checkpoint(tmp_path, checkpoint, monkeypatch):
    (tmp_path / "last.ckpt").write_bytes(checkpoint[0])

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(_Toy, "training_step", fail)
    with pytest.raises(ZeroDivisionError):
        _fit(tmp_path, 2, tmp_path / "last.ckpt")
