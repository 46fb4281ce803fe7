"""Mean intersection over union: label maps in the original's pixels, counted as torchmetrics counts them."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from data import Batch, Meta
from data.canvas import pad
from data.label_maps import NONE
from experiments.tasks.metrics import fitness, metrics_of, rated, score_table, shown_of
from experiments.tasks.pixels import counts_of, label_map_of

NAMES = ["sky", "road", "tree"]


def batch_of(*maps):
    """Images of 40 x 80 on canvases of 160: two canvas pixels each, 40 rows of grey above and below."""
    _, letterbox = pad(np.zeros((80, 160, 3), np.uint8), (40, 80), 160)
    metas = tuple(Meta(str(i), (40, 80), letterbox, label_map=m) for i, m in enumerate(maps))
    return Batch(torch.zeros(len(maps), 3, 160, 160, dtype=torch.uint8), torch.zeros(0, 6), metas)


def test_logits_come_back_to_the_pixels_of_the_image():
    labels = torch.randint(0, 3, (5, 10), generator=torch.Generator().manual_seed(0))
    canvas = torch.zeros(20, 20, dtype=torch.long)
    canvas[5:15] = labels.repeat_interleave(2, 0).repeat_interleave(2, 1)  # at stride 8
    logits = 9 * torch.nn.functional.one_hot(canvas, 3).movedim(-1, 0).float()
    found = label_map_of(logits, batch_of(None).metas[0].letterbox)
    assert found.shape == (40, 80)
    assert torch.equal(found[4::8, 4::8].long(), labels)


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    maps = [rng.choice([0, 1, 2, NONE], (40, 80)).astype(np.uint8) for _ in range(3)]
    batch = batch_of(*maps)
    logits = torch.randn(3, 3, 20, 20)
    seen = torch.stack([label_map_of(y, m.letterbox) for y, m in zip(logits, batch.metas, strict=True)]).long()
    true = torch.from_numpy(np.stack(maps)).long()
    metrics = metrics_of("labels", NAMES)
    metrics.update(counts_of(logits[:2], batch._replace(metas=batch.metas[:2])))
    metrics.update(counts_of(logits[2:], batch._replace(metas=batch.metas[2:])))
    measured = metrics.compute()
    theirs = MulticlassJaccardIndex(3, average=None, ignore_index=NONE)(seen, true).tolist()
    assert [c["iou"] for c in measured["classes"].values()] == pytest.approx(theirs, rel=1e-6)
    assert measured["miou"] == pytest.approx(np.mean(theirs), rel=1e-6)
    assert measured["pixel_accuracy"] == pytest.approx((seen == true)[true != NONE].float().mean().item(), rel=1e-6)
    assert measured["images"] == 3
    assert rated(measured) == fitness(measured) == measured["miou"]
    assert set(shown_of("labels")) <= set(measured)
    assert [*score_table(measured).columns[0].cells] == ["all", *NAMES]
    # The network's classes in another order.
    order = [2, 0, 1]
    again = metrics_of("labels", NAMES)
    again.update(counts_of(logits[:, np.argsort(order)], batch, order))
    assert again.compute() == measured


def test_a_class_that_is_nowhere_does_not_count():
    true = np.zeros((40, 80), np.uint8)
    true[:, 40:] = 1
    logits = torch.zeros(1, 3, 20, 20)
    logits[:, 0, :, :10], logits[:, 1, :, 10:] = 9, 9
    metrics = metrics_of("labels", NAMES)
    metrics.update(counts_of(logits, batch_of(true)))
    measured = metrics.compute()
    assert measured["miou"] == pytest.approx(1, abs=0.05)
    assert [*measured["classes"]] == ["sky", "road"]
