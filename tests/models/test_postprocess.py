import pytest
import torch

from models import postprocess
from models.postprocess import non_max_suppression


def _z(*rows):
    """One image: rows of x, y, w, h, objectness, class probabilities."""
    return torch.tensor([rows])


LEFT = (20.0, 20.0, 20.0, 20.0)
LEFT_SHIFTED = (22.0, 20.0, 20.0, 20.0)  # IoU with LEFT 18/22
RIGHT = (80.0, 20.0, 10.0, 20.0)


def test_suppresses_within_a_class_and_sorts():
    z = _z((*RIGHT, 0.8, 0.5, 0.1), (*LEFT_SHIFTED, 0.9, 0.8, 0.1), (*LEFT, 1.0, 0.9, 0.1))
    (found,) = non_max_suppression(z)
    expected = torch.tensor([[10, 10, 30, 30, 0.9, 0], [75, 10, 85, 30, 0.4, 0]])
    torch.testing.assert_close(found, expected)


def test_other_classes_stay_unless_agnostic():
    z = _z((*LEFT, 1.0, 0.9, 0.1), (*LEFT_SHIFTED, 1.0, 0.1, 0.8))
    assert non_max_suppression(z)[0][:, 5].tolist() == [0, 1]
    assert non_max_suppression(z, agnostic=True)[0][:, 5].tolist() == [0]


def test_iou_threshold():
    z = _z((*LEFT, 1.0, 0.9, 0.1), (*LEFT_SHIFTED, 1.0, 0.8, 0.1))
    assert len(non_max_suppression(z, iou=0.81)[0]) == 1
    assert len(non_max_suppression(z, iou=0.82)[0]) == 2


def test_confidence_is_the_product():
    z = _z((*LEFT, 0.5, 0.4, 0.1))
    assert len(non_max_suppression(z, conf=0.25)[0]) == 0
    assert non_max_suppression(z, conf=0.15)[0][0, 4] == pytest.approx(0.2)


def test_one_class_goes_by_objectness():
    (found,) = non_max_suppression(_z((*LEFT, 0.9, 0.01)))
    assert found[0, 4:].tolist() == pytest.approx([0.9, 0])


def test_multi_label_gives_a_box_several_classes():
    z = _z((*LEFT, 1.0, 0.6, 0.9, 0.1))
    assert non_max_suppression(z, multi_label=True)[0][:, 5].tolist() == [1, 0]
    assert non_max_suppression(z)[0][:, 5].tolist() == [1]


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_filter(multi_label):
    z = _z((*LEFT, 1.0, 0.9, 0.1, 0.1), (*RIGHT, 1.0, 0.1, 0.1, 0.9))
    assert non_max_suppression(z, classes=[2, 1], multi_label=multi_label)[0][:, 5].tolist() == [2]
    assert non_max_suppression(z, classes=[], multi_label=multi_label)[0].shape == (0, 6)


def test_keeps_the_most_confident_of_too_many(monkeypatch):
    rows = [(50.0 * i, 20.0, 10.0, 10.0, 0.30 + 0.01 * i, 1.0, 0.0) for i in range(20)]
    (found,) = non_max_suppression(_z(*rows), max_det=3)
    assert found[:, 4].tolist() == pytest.approx([0.49, 0.48, 0.47])
    monkeypatch.setattr(postprocess, "_MAX_CANDIDATES", 5)
    assert non_max_suppression(_z(*rows))[0][:, 4].tolist() == pytest.approx([0.49, 0.48, 0.47, 0.46, 0.45])


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("nc", [1, 4])
def test_nothing_found(nc, multi_label):
    for z in (torch.zeros(2, 7, nc + 5), torch.zeros(2, 0, nc + 5)):
        found = non_max_suppression(z, multi_label=multi_label)
        assert [tuple(f.shape) for f in found] == [(0, 6), (0, 6)]


def test_images_of_a_batch_do_not_mix():
    z = torch.cat((_z((*LEFT, 1.0, 0.9, 0.1)), _z((*LEFT_SHIFTED, 1.0, 0.1, 0.8))))
    assert [f[:, 5].tolist() for f in non_max_suppression(z, agnostic=True)] == [[0], [1]]


def test_half_precision_gives_float32():
    assert non_max_suppression(_z((*LEFT, 1.0, 0.9, 0.1)).half())[0].dtype == torch.float32
