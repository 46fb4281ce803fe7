"""mAP by counting agrees with COCO's evaluation, also of images drawn with replacement; differences have intervals."""

import numpy as np
import pytest
import torch

from experiments.find.bootstrap import Matched, difference, objects_in_pixels
from experiments.find.gallery import judge, worst
from experiments.tasks.metrics import DetectionMetrics

NAMES = ["a", "b", "c"]


def scene(seed, images=12, noise=6.0):
    """Objects, and detections near them, some of them false; of some images neither."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for i in range(images):
        n = int(rng.integers(0, 5)) if i else 0
        corner, size = rng.uniform(0, 100, (n, 2)), rng.uniform(20, 60, (n, 2))
        labels = rng.integers(0, 3, (n, 1))
        true.append(torch.tensor(np.concatenate([labels, corner, corner + size], 1)).reshape(-1, 5))
        rows = [np.concatenate([corner, corner + size], 1) + rng.normal(0, noise, (n, 4)) for _ in range(2)]
        boxes = np.concatenate([*rows, rng.uniform(0, 100, (3, 4)) + np.array([0, 0, 100, 100])])
        kinds = np.concatenate([labels, labels, rng.integers(0, 3, (3, 1))])
        scores = rng.uniform(0.01, 1, (len(boxes), 1))
        found.append(torch.tensor(np.concatenate([boxes, scores, kinds], 1)))
    return found, true


def coco(found, true):
    metrics = DetectionMetrics(NAMES)
    metrics.update(found, true)
    return metrics.compute()["map50_95"]


@pytest.mark.parametrize("seed", range(4))
def test_map_is_cocos(seed):
    found, true = scene(seed)
    assert Matched(found, true, 3).map50_95() == pytest.approx(coco(found, true), abs=1e-9)
    assert 0.05 < coco(found, true) < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_map_of_drawn_images_is_cocos_of_copies(seed):
    found, true = scene(seed, images=8)
    drawn = np.random.default_rng(seed).integers(0, 8, 8)
    # Scores are told apart by a hair, as COCO orders equal ones by image.
    copies = [found[i].clone() for i in drawn]
    ours = Matched(found, true, 3).map50_95(np.bincount(drawn, minlength=8))
    assert ours == pytest.approx(coco(copies, [true[i] for i in drawn]), abs=5e-3)


def test_what_lies_in_a_crowd_counts_as_coco_counts_it():
    found, true = scene(3)
    crowds = [torch.tensor([[float(i % 3), 0, 0, 200, 200, 1]]) for i in range(len(true))]
    metrics = DetectionMetrics(NAMES)
    metrics.update(found, true, crowds)
    ours = Matched(found, true, 3, crowds).map50_95()
    assert ours == pytest.approx(metrics.compute()["map50_95"], abs=1e-9)
    assert ours != pytest.approx(coco(found, true), abs=1e-3)


def test_no_detections_and_no_objects_are_zero():
    nothing, none = [torch.zeros(0, 6)] * 2, [torch.zeros(0, 5)] * 2
    assert Matched(nothing, none, 3).map50_95() == 0
    true = scene(0)[1]
    assert Matched([torch.zeros(0, 6)] * len(true), true, 3).map50_95() == 0


def test_difference_of_a_network_from_itself_is_nothing():
    matched = Matched(*scene(1), 3)
    apart = difference(matched, matched, samples=20)
    assert (apart.mean, apart.low, apart.high) == (0, 0, 0)


def test_a_better_network_is_so_in_the_interval_and_a_like_one_is_not():
    true = scene(1, 40)[1]
    good, bad = (Matched(scene(1, 40, noise)[0], true, 3) for noise in (1.0, 9.0))
    apart = difference(good, bad, samples=100)
    assert 0 < apart.low < apart.mean < apart.high
    turned = difference(bad, good, samples=100)
    assert (turned.low, turned.high) == pytest.approx((-apart.high, -apart.low))


def test_objects_in_pixels():
    labels = np.array([[2, 0.5, 0.25, 0.5, 0.5]], np.float32)
    assert objects_in_pixels(labels, (40, 80)).tolist() == [[2, 20, 0, 60, 20]]


def test_judged_images_are_sorted_by_what_was_missed():
    objects = [[0, 0, 0, 10, 10], [1, 20, 20, 30, 30]]
    found = [
        [0, 0, 10, 10, 0.9, 0],  # right
        [0, 0, 10, 9, 0.8, 0],  # a second one of the same object
        [20, 20, 30, 30, 0.7, 0],  # of another class
        [20, 20, 30, 30, 0.1, 1],  # not confident enough
    ]
    j = judge("x", found, objects, 0.5)
    assert (len(j.right), len(j.false), len(j.missed)) == (1, 2, 1)
    assert j.missed[0][:5] == (20, 20, 30, 30, 1)
    assert judge("y", found, objects, 0.05).missed == []
    assert [k.file for k in worst([judge("y", found, objects, 0.05), judge("z", [], [], 0.5), j])] == ["x", "y", "z"]
