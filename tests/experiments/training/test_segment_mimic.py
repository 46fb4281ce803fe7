"""A segmenter that learns from another's masks."""

import pytest
import torch

from experiments.training.distillation import DetectionMimic, SegmentMimic, mimic_of
from experiments.training.lessons import _seen_as
from models import Model

CFG = {
    "nc": 3,
    "anchors": [[8, 10, 12, 16], [20, 24, 28, 36]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[0, 1], 1, "Segment", ["nc", "anchors", 4, 16]]],
}


@pytest.fixture
def outputs():
    torch.manual_seed(0)
    model = Model(CFG).train()
    with torch.no_grad():
        for conv in model.head.m:
            conv.bias.view(2, -1)[:, 4] += 4  # it sees something
            conv.weight.unflatten(0, (2, -1))[:, 8:] *= 20
    teacher = [level.detach() for level in model(torch.rand(2, 3, 64, 64))]
    return mimic_of(model.head.loss(64)), teacher


def test_masks_have_no_gradient_at_the_teacher_and_one_elsewhere(outputs):
    mimic, teacher = outputs
    assert isinstance(mimic, SegmentMimic)
    own = [level.clone().requires_grad_() for level in teacher]
    mimic(own, teacher).backward()
    for level in own:
        assert level.grad[..., 8:].abs().max() < 1e-7
    assert own[-1].grad.abs().max() < 1e-7
    other = [*own[:-1], (teacher[-1] + torch.randn_like(teacher[-1])).requires_grad_()]
    assert mimic(other, teacher) > mimic(own, teacher)
    mimic(other, teacher).backward()
    assert other[-1].grad.abs().max() > 1e-6


def test_boxes_count_as_a_detectors(outputs):
    mimic, teacher = outputs
    student = [level + torch.randn_like(level) for level in teacher]
    student[:-1] = [torch.cat((s[..., :8], t[..., 8:]), -1) for s, t in zip(student[:-1], teacher[:-1], strict=True)]
    student[-1] = teacher[-1]
    same = SegmentMimic.__call__(mimic, teacher, teacher)
    boxes = DetectionMimic(mimic.loss.boxes)
    of_boxes = [
        boxes([y[..., :8] for y in rows[:-1]], [y[..., :8] for y in teacher[:-1]]) for rows in (student, teacher)
    ]
    assert mimic(student, teacher) - same == pytest.approx((of_boxes[0] - of_boxes[1]).item(), rel=1e-4)


def test_a_teacher_of_more_classes_keeps_its_coefficients(outputs):
    _, teacher = outputs
    seen = _seen_as(teacher[0], [1, 2], 3)
    assert torch.equal(seen[..., 5:], teacher[0][..., 5:])
    assert (seen[..., 4] <= teacher[0][..., 4] + 1e-4).all()
