"""The detection task: its loss and mAP as a plain Lightning module, and as the evaluator of one-shot searches."""

import math

import nni
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from data import collate, detection
from experiments import RetiariiExperiment, evaluate
from experiments.tasks.detect import in_original_pixels
from experiments.tasks.evaluator import Detection, DetectionModule
from experiments.tasks.loaders import parts_of, search_loaders, shared_out
from models import Model
from models.loss import DetectionLoss, scaled_gains
from spaces import NASDETECTOR, nni_compat
from tests.lively import lively

TINY_SPACE = {
    "nc": 10,
    "anchors": [[8, 10, 12, 16], [20, 24, 28, 36]],
    "backbone": [
        [-1, 1, "Conv", [8, 6, 2, 2]],
        [-1, 1, "NASConv", [16, 3, 2]],
        [-1, 1, "NASC3", [16]],
        [-1, 1, "NASConv", [24, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
    ],
    "head": [[[3, 4], 1, "Detect", ["nc", "anchors"]]],
}
TRAINER = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def data(digits):
    return detection(digits(), 64, None)


def test_detections_and_objects_go_back_to_the_original(tmp_path, digits):
    data = detection(digits(3, 96), 64, None)
    batch = collate([data.val[i] for i in range(3)])
    exact = [
        torch.cat(((b := batch.targets[batch.targets[:, 0] == i])[:, 2:] * 64, torch.ones(len(b), 1), b[:, 1:2]), 1)
        for i in range(3)
    ]
    for rows in exact:
        rows[:, :2], rows[:, 2:4] = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    exact[0][0, :4] = torch.tensor([-5.0, -5.0, 70.0, 70.0])
    found, objects = in_original_pixels(exact, batch)
    assert found[0][0, :4].tolist() == [0, 0, 96, 96], "clipped to the original"
    for detected, target, labels in zip(found, objects, data.val.labels, strict=True):
        corners = torch.from_numpy(labels[:, 1:] * 96)
        expected = torch.cat((corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2), 1)
        torch.testing.assert_close(target[:, 1:], expected, atol=1e-3, rtol=0)
        assert target[:, 0].tolist() == labels[:, 0].tolist()
        if detected is not found[0]:
            torch.testing.assert_close(detected[:, :4], expected, atol=1e-3, rtol=0)


def test_the_loss_is_that_of_the_images_size(data, tiny_cfg):
    module = DetectionModule(data.names, 64)
    module.set_model(Model(tiny_cfg, nc=10))
    assert module.loss.gains == scaled_gains(2, 10, 64)
    batch = collate([data.train[i] for i in range(4)])
    module.log = lambda *args, **kwargs: None
    logits = module.model(batch.images.float() / 255)
    expected, _ = DetectionLoss(module.model.head, scaled_gains(2, 10, 64))(logits, batch.targets)
    module.model.load_state_dict(module.model.state_dict())
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_trains_and_validates_as_a_plain_lightning_module(data):
    module = DetectionModule(data.names, 64, learning_rate=1e-5)
    images = torch.stack([data.train[i].image for i in range(4)])
    module.set_model(lively(images.float() / 255, list(data.names)).train())
    trainer = pl.Trainer(**{**TRAINER, "max_epochs": 3})
    loader = DataLoader(data.train, batch_size=4, collate_fn=collate)
    trainer.fit(module, loader, loader)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    losses = {f"{split}_{part}" for split in ("train", "val") for part in ("box", "obj", "cls", "loss")}
    assert set(logged) == losses | {"map50", "map50_95"}
    assert all(math.isfinite(v) for v in logged.values())
    assert logged["train_loss"] == pytest.approx(sum(logged[f"train_{p}"] for p in ("box", "obj", "cls")), rel=1e-4)
    found = evaluate(module.model, data.train, 4, names=data.names)
    for name in ("map50", "map50_95"):
        assert [logged[name], module.measured[name]] == pytest.approx([found[name]] * 2)
    assert module.measured["images"] == len(data.val)


def test_weights_and_architecture_learn_from_different_images(data):
    loaders = search_loaders(data, batch=2, seed=3)
    weights, arch = (sorted(loader.dataset.indices) for loader in loaders.values())
    assert len(weights) == len(arch) == len(data.train) // 2
    assert not set(weights) & set(arch)
    assert [sorted(p.indices) for p in (parts_of(data, 3, None)[k] for k in ("weights", "arch"))] != [weights, arch]
    orders = [[*loader.sampler] for loader in loaders.values()]
    assert all(sorted(o) == list(range(6)) for o in orders)
    loaders["train_dataloaders"].sampler.set_epoch(4)
    next(iter(loaders["train_dataloaders"]))
    assert data.train.epoch == 4


def test_each_class_is_shared_out():
    """A common class, a rarer one that stands beside it, one of two images, one of one, and images without any."""
    classes = [[0]] * 40 + [[0, 1]] * 10 + [[2]] * 2 + [[3]] + [[]] * 7
    labels = [np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in of]).reshape(-1, 5) for of in classes]
    for seed in range(5):
        weights, arch = shared_out(labels, 0.2, seed)
        assert sorted(weights + arch) == list(range(60))
        assert len(arch) == pytest.approx(12, abs=2)
        of_arch = [sum(c in classes[i] for i in arch) for c in range(4)]
        assert of_arch[0] == pytest.approx(10, abs=1)
        assert of_arch[1:] == [2, 1, 0]
    assert shared_out(labels, 0.2, 0) != shared_out(labels, 0.2, 1)
    assert len(shared_out(labels[:2], 0.01, 0)[1]) == 1


@pytest.mark.filterwarnings("ignore")
def test_is_a_search_task(data, monkeypatch):
    reported = []
    monkeypatch.setattr(nni, "report_final_result", reported.append)
    torch.manual_seed(0)
    evaluator = Detection(data.names, 64, **search_loaders(data, 4, 0), **TRAINER)
    space = NASDETECTOR(TINY_SPACE, nc=10)
    before = space.model[0].conv.weight.detach().clone()
    experiment = RetiariiExperiment(space, evaluator, [], nni_compat.nni.nas.strategy.DARTS())
    experiment.run()
    arch = experiment.export_top_models(formatter="dict")[0]
    assert space.space.complete(arch) == arch, "every label, and values of the space"
    model = Model(space.space.freeze(arch))
    assert model.eval()(torch.zeros(1, 3, 64, 64))[0].shape == (1, 2 * (64 + 16), 15)
    assert not torch.equal(evaluator.module.model.model[0].conv.weight.cpu(), before), "weights are trained"
    assert not reported, "the second loader trains the architecture, and nothing is validated"
