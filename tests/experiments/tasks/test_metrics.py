import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from experiments.tasks.metrics import DetectionMetrics, score_table

NAMES = ["cat", "dog", "owl"]
NO_PREDICTIONS, NO_TARGETS = torch.zeros(0, 6), torch.zeros(0, 5)


def _targets(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def _predictions(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def _random(num_images=20, nc=3, seed=0, noise=0.15):
    """Objects, and detections of them that are displaced, mislabelled, doubled or false."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    preds, targets = [], []
    for _ in range(num_images):
        m = int(rand(1) * 8)
        xy, wh = rand(m, 2) * 400, rand(m, 2) * 120 + 8
        boxes = torch.cat((xy, xy + wh), 1)
        label = (rand(m, 1) * nc).floor()
        seen = torch.cat((boxes, boxes)) + (rand(2 * m, 4) - 0.5) * 2 * noise * torch.cat((wh, wh)).repeat(1, 2)
        false_xy = rand(5, 2) * 400
        seen = torch.cat((seen, torch.cat((false_xy, false_xy + rand(5, 2) * 100 + 4), 1)))
        guess = torch.cat((label, label, torch.zeros(5, 1)))
        guess = torch.where(rand(len(guess), 1) < 0.1, (rand(len(guess), 1) * nc).floor(), guess)
        keep = rand(len(seen)) < 0.7
        preds.append(torch.cat((seen, rand(len(seen), 1), guess), 1)[keep])
        targets.append(torch.cat((label, boxes), 1))
    return preds, targets


def _metrics(preds, targets, names=NAMES):
    metrics = DetectionMetrics(names)
    metrics.update(preds, targets)
    return metrics


def _finite(result):
    return all(np.isfinite(v) for v in result.values() if not isinstance(v, dict))


def test_perfect_predictions():
    _, targets = _random()
    generator = torch.Generator().manual_seed(1)
    preds = [
        torch.cat((t[:, 1:], 0.3 + 0.6 * torch.rand(len(t), 1, generator=generator), t[:, :1]), 1) for t in targets
    ]
    metrics = _metrics(preds, targets)
    result = metrics.compute()
    for name in ("map50_95", "map50", "map75", "precision", "recall", "f1"):
        assert result[name] == pytest.approx(1)
    assert result["images"] == 20
    assert result["instances"] == sum(map(len, targets)) == sum(c["instances"] for c in result["classes"].values())
    matrix = metrics.confusion_matrix()
    assert np.array_equal(matrix, np.diag(np.diag(matrix)))
    assert matrix.sum() == result["instances"]


def test_by_hand():
    # Two cats. By confidence: right (IoU 1), false, right (IoU 0.6: counts at IoU 0.50, 0.55, 0.60).
    targets = [_targets([0, 0, 0, 10, 10], [0, 100, 0, 110, 10])]
    preds = [_predictions([0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.8, 0], [100, 0, 110, 6.01, 0.7, 0])]
    result = _metrics(preds, targets).compute()
    # Recalls 0 … 0.50 (51 of 101) at precision 1; then 0.51 … 1.00 (50) at 2/3, or at 0 where the third is wrong.
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert result["map50"] == pytest.approx(both)
    assert result["map75"] == pytest.approx(one)
    assert result["map50_95"] == pytest.approx((3 * both + 7 * one) / 10)
    # F1: 2/3 at 0.9 (1 of 1, 1 of 2), 1/2 at 0.8, 4/5 at 0.7 (2 of 3, 2 of 2)
    assert result["f1"] == pytest.approx(0.8)
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["recall"] == pytest.approx(1)
    assert result["confidence"] <= 0.7
    assert result["classes"] == {
        "cat": pytest.approx(
            {
                "instances": 2,
                "precision": 2 / 3,
                "recall": 1,
                "f1": 0.8,
                "ap50": both,
                "ap75": one,
                "ap50_95": (3 * both + 7 * one) / 10,
            }
        )
    }


def test_table_has_all_that_was_measured_of_each_class():
    targets = [_targets([0, 0, 0, 10, 10], [0, 100, 0, 110, 10])]
    preds = [_predictions([0, 0, 10, 10, 0.9, 0], [100, 0, 110, 6.01, 0.7, 0])]
    found = _metrics(preds, targets).compute()
    # At IoU 0.6 and below both are right, beyond it one, at recalls 0 … 0.50 (51 of 101).
    scores = ["0.653", "1.000", "0.505", "1.000", "1.000"]
    assert _cells(score_table(found)) == [["all", "2", *scores], ["cat", "2", *scores]]
    del found["classes"]["cat"]["ap75"]  # as a training of before has it in its checkpoint
    assert _cells(score_table(found))[1] == ["cat", "2", *scores[:2], "", *scores[3:]]


def _cells(table):
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_best_confidence_is_shared_by_the_classes():
    # The cat is found at 0.8, the dog at 0.4 below a false 0.6: mean F1 1/2 above 0.6, 5/6 from 0.4 down.
    targets = [_targets([0, 0, 0, 10, 10], [1, 100, 0, 110, 10])]
    preds = [_predictions([0, 0, 10, 10, 0.8, 0], [100, 0, 110, 10, 0.4, 1], [50, 50, 60, 60, 0.6, 1])]
    result = _metrics(preds, targets).compute()
    assert result["f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["precision"] == pytest.approx((1 + 1 / 2) / 2)
    # A false cat at 0.5 makes 0.4 worse for the cat (F1 2/3), but the dog is still worth it: 2/3 against 1/2.
    preds = [torch.cat((preds[0], _predictions([70, 70, 80, 80, 0.5, 0])))]
    result = _metrics(preds, targets).compute()
    assert result["f1"] == pytest.approx(2 / 3)
    assert result["classes"]["cat"]["precision"] == pytest.approx(1 / 2)


def test_a_second_detection_of_an_object_is_false():
    targets = [_targets([0, 0, 0, 10, 10])]
    preds = [_predictions([0, 0, 10, 10, 0.5, 0], [0, 0, 10, 9, 0.9, 0])]
    result = _metrics(preds, targets).compute()
    assert (result["f1"], result["precision"], result["recall"]) == pytest.approx((1, 1, 1))
    assert result["confidence"] == pytest.approx(0.501)  # just above the second


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_torchmetrics(seed):
    preds, targets = _random(seed=seed)
    result = _metrics(preds, targets).compute()
    # Its own recalls are float32's: 0.01 is not quite COCO's, and a recall of just that may fall on the other side.
    recalls = np.linspace(0, 1, 101).tolist()
    peer = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True, rec_thresholds=recalls)
    peer.update(
        [{"boxes": p[:, :4], "scores": p[:, 4], "labels": p[:, 5].long()} for p in preds],
        [{"boxes": t[:, 1:], "labels": t[:, 0].long()} for t in targets],
    )
    expected = peer.compute()
    assert 0.1 < result["map50_95"] < 0.9
    for ours, theirs in (("map50_95", "map"), ("map50", "map_50"), ("map75", "map_75")):
        assert result[ours] == pytest.approx(expected[theirs].item(), abs=1e-6)
    ours = [result["classes"][NAMES[c]]["ap50_95"] for c in expected["classes"].tolist()]
    assert ours == pytest.approx(expected["map_per_class"].tolist(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_precision_and_recall_are_counts(seed):
    """At the confidence reported, counted by COCO's rule: by score, the free object of the class overlapped most."""
    preds, targets = _random(seed=seed, noise=0.4)
    result = _metrics(preds, targets).compute()
    precision, recall = [], []
    for c in range(3):
        right = shown = there = 0
        for p, t in zip(preds, targets, strict=True):
            p, t = p[(p[:, 5] == c) & (p[:, 4] >= result["confidence"])], t[t[:, 0] == c]
            shown, there = shown + len(p), there + len(t)
            overlap = box_iou(p[:, :4], t[:, 1:])
            for row in p[:, 4].argsort(descending=True):
                if len(t) and overlap[row].max() >= 0.5:
                    right += 1
                    overlap[:, overlap[row].argmax()] = 0
        precision.append(right / shown)
        recall.append(right / there)
    assert result["precision"] == pytest.approx(np.mean(precision))
    assert result["recall"] == pytest.approx(np.mean(recall))


def test_order_does_not_matter():
    preds, targets = _random()
    expected, matrix = _metrics(preds, targets).compute(), _metrics(preds, targets).confusion_matrix()
    shuffled = DetectionMetrics(NAMES)
    for i in torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist():
        shuffled.update([preds[i].flip(0)], [targets[i].flip(0)])
    result = shuffled.compute()
    assert result.pop("classes") == {name: pytest.approx(v) for name, v in expected.pop("classes").items()}
    assert result == pytest.approx(expected)
    assert np.array_equal(shuffled.confusion_matrix(), matrix)


@pytest.mark.parametrize(
    ("preds", "targets"),
    [
        ([], []),
        ([NO_PREDICTIONS], [NO_TARGETS]),
        ([NO_PREDICTIONS], [_targets([0, 0, 0, 10, 10])]),
        ([_predictions([0, 0, 10, 10, 0.9, 0])], [NO_TARGETS]),
    ],
)
def test_nothing_there_or_nothing_found(preds, targets, tmp_path):
    metrics = _metrics(preds, targets)
    result = metrics.compute()
    scores = [result[k] for k in ("map50_95", "map50", "map75", "precision", "recall", "f1")]
    if sum(map(len, targets)):
        assert _finite(result)
        assert scores == [0] * 6
    else:
        assert all(map(math.isnan, scores)), "what cannot be measured is not 0"
    assert result["images"] == len(targets)
    assert set(result["classes"]) == ({"cat"} if targets and len(targets[0]) else set())
    metrics.plot_pr_curve(tmp_path / "pr.png")
    metrics.plot_confusion_matrix(tmp_path / "matrix.png")


def test_classes_without_objects_do_not_count():
    targets = [_targets([1, 0, 0, 10, 10])]
    preds = [_predictions([0, 0, 10, 10, 0.9, 1], [0, 0, 10, 10, 0.95, 0])]
    result = _metrics(preds, targets).compute()
    assert result["map50_95"] == result["f1"] == pytest.approx(1)
    assert list(result["classes"]) == ["dog"]


def test_updates_after_compute_count():
    metrics = _metrics([_predictions([0, 0, 10, 10, 0.9, 0])], [_targets([0, 0, 0, 10, 10])])
    assert metrics.compute()["map50"] == pytest.approx(1)
    metrics.update([NO_PREDICTIONS], [_targets([1, 0, 0, 10, 10])])
    assert metrics.compute()["map50"] == pytest.approx(0.5)


def test_update_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="1 images, but objects of 0"):
        DetectionMetrics(NAMES).update([NO_PREDICTIONS], [])


def test_confusion_matrix_by_hand():
    targets = [_targets([0, 0, 0, 10, 10], [1, 50, 0, 60, 10], [2, 100, 0, 110, 10])]
    preds = [
        _predictions(
            [0, 0, 10, 9, 0.6, 1],  # the cat, taken for a dog: overlaps most, so it has the cat …
            [0, 0, 10, 8, 0.9, 0],  # … and this one is left with background
            [50, 0, 60, 4, 0.9, 1],  # IoU 0.4 with the dog: too little
            [100, 0, 110, 10, 0.2, 2],  # the owl, not confident enough
        )
    ]
    metrics = _metrics(preds, targets)
    expected = np.zeros((4, 4), dtype=int)
    expected[1, 0] = expected[0, 3] = expected[1, 3] = expected[3, 1] = expected[3, 2] = 1
    assert np.array_equal(metrics.confusion_matrix(), expected)
    loose = metrics.confusion_matrix(conf=0.1, iou=0.3)
    assert (loose[1, 0], loose[1, 1], loose[2, 2], loose[0, 3]) == (1, 1, 1, 1)
    assert loose.sum() == 4


def test_confusion_matrix_pairs_a_detection_once():
    targets = [_targets([0, 0, 0, 10, 10], [1, 0, 0, 10, 7])]  # IoUs 0.9 and 7/9
    matrix = _metrics([_predictions([0, 0, 10, 9, 0.9, 0])], targets).confusion_matrix()
    assert (matrix[0, 0], matrix[3, 1], matrix.sum()) == (1, 1, 2)


@pytest.mark.parametrize("nc", [1, 3, 80])
def test_pictures(tmp_path, nc):
    metrics = _metrics(*_random(nc=nc), names=[f"class {c}" for c in range(nc)])
    metrics.plot_confusion_matrix(tmp_path / "matrix.png")
    metrics.plot_pr_curve(tmp_path / "pr.png")
    for name in ("matrix.png", "pr.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_silent(capfd):
    _metrics(*_random()).compute()
    assert capfd.readouterr() == ("", "")


def test_matplotlib_waits_until_something_is_drawn():
    code = "import sys, experiments.tasks.metrics; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
