"""The head of instance segmentation: published parameter counts, what it refuses, and its loss by its definition."""

import math

import pytest
import torch

from models import Model, Segment, count_params
from models.classes import in_order
from models.loss import Gains
from models.segment_loss import SegmentLoss, within
from tests.random_state import randomized
from tests.refusal import refused

# nc 80, and with batch normalisation fused into the convolutions.
PUBLISHED = {
    "n": (1_991_549, 1_986_637),
    "s": (7_621_277, 7_611_485),
    "m": (21_990_397, 21_971_597),
    "l": (47_924_957, 47_894_397),
    "x": (88_819_517, 88_774_445),
}
ANCHORS = [[8, 10, 12, 16], [20, 24, 28, 36]]


def tiny(args=("nc", "anchors", 4, 16), **keys):
    rows = [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    head = [[[0, 1], 1, "Segment", [*args]]]
    return {"nc": 3, "anchors": ANCHORS, "backbone": rows, "head": head, **keys}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_as_published(size):
    with torch.device("meta"):
        model = Model(f"yolov5{size}-seg.yaml")
        assert (count_params(model), count_params(model.fuse())) == PUBLISHED[size]


def test_what_it_gives():
    torch.manual_seed(0)
    model = randomized(Model(tiny()))
    decoded, logits = model(torch.rand(2, 3, 64, 96))
    assert isinstance(model.head, Segment)
    assert [*map(tuple, (y.shape for y in logits))] == [(2, 2, 32, 48, 12), (2, 2, 16, 24, 12), (2, 4, 64, 96)]
    assert decoded.shape == (2, 2 * (32 * 48 + 16 * 24), 12)
    coefficients = torch.cat([y[..., 8:].reshape(2, -1, 4) for y in logits[:2]], 1)
    assert torch.equal(decoded[..., 8:], coefficients)
    assert torch.equal(model.head.prototypes(logits), logits[2])
    trained = model.train()(torch.rand(2, 3, 64, 96))
    assert [y.shape for y in trained] == [y.shape for y in logits]


def test_width_of_prototypes_is_scaled():
    assert Model(tiny(width_multiple=0.5)).head.proto.cv1.conv.out_channels == 8


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["nc"], ("row 2 (Segment)", "[nc, anchors, prototypes, their width]")),
        (["nc", 32, 256], ("row 2 (Segment)", "[nc, anchors, prototypes, their width]")),
        (["nc", "anchors", 0, 16], ("row 2 (Segment)", "number of prototypes", "0")),
        (["nc", "anchors", "x", 16], ("number of prototypes", "'x'")),
        (["nc", "anchors", 4, "y"], ("row 2 (Segment)", "positive number", "'y'")),
        (["nc", "mine", 4, 16], ("second argument is anchors",)),
    ],
)
def test_bad_input_is_one_line(args, parts):
    with refused(*parts):
        Model(tiny(args))


def test_outputs_in_another_order_of_classes():
    torch.manual_seed(0)
    model, other = (Model(tiny()).eval() for _ in range(2))
    other.load_state_dict(in_order(model.state_dict(), model, [2, 0, 1]))
    x = torch.rand(1, 3, 64, 64)
    a, b = model(x)[0], other(x)[0]
    assert torch.allclose(b, a[..., [0, 1, 2, 3, 4, 7, 5, 6, *range(8, 12)]])
    assert not torch.allclose(a, b)


# The loss.


def _bce(logit, wanted):
    return math.log1p(math.exp(-abs(logit))) + max(logit, 0) - logit * wanted


def test_mask_loss_is_its_definition():
    torch.manual_seed(0)
    model = Model(tiny(["nc", 1, 2, 16]))
    levels = [torch.randn(2, 1, 4, 4, 10), torch.randn(2, 1, 2, 2, 10)]
    prototypes = torch.randn(2, 2, 8, 8)
    # One match each: in the middle of a cell of the coarse level, whose anchor alone it fits, there are no neighbours.
    model.head.anchors = torch.tensor([[[0.1, 0.1]], [[1.0, 0.8]]])
    targets = torch.tensor([[0, 1, 0.25, 0.25, 0.5, 0.375], [1, 2, 0.75, 0.75, 0.5, 0.5]])
    masks = (torch.rand(2, 8, 8) > 0.5).to(torch.uint8)
    gains = Gains(box=2.0, obj=1.0, cls=1.0)
    loss = SegmentLoss(model.head, gains)
    total, parts = loss([*levels, prototypes], targets, masks)

    expected = 0.0
    for k, (image, _, x, y, w, h) in enumerate(targets.tolist()):
        image = int(image)
        coefficients = levels[1][image, 0, int(y * 2), int(x * 2), 8:]
        drawn = (coefficients[:, None, None] * prototypes[image]).sum(0)
        sums = [
            _bce(drawn[j, i].item(), masks[k, j, i].item())
            for j in range(8)
            for i in range(8)
            if (x - w / 2) * 8 <= i < (x + w / 2) * 8 and (y - h / 2) * 8 <= j < (y + h / 2) * 8
        ]
        expected += sum(sums) / 64 / (w * h) / 2  # of two images
    assert parts["mask"].item() == pytest.approx(2.0 * expected, rel=1e-5)
    assert total.item() == pytest.approx(2 * sum(p.item() for p in parts.values()), rel=1e-5)
    bare, others = loss([*levels, prototypes], targets)
    assert others["mask"] == 0
    assert bare.item() == pytest.approx(total.item() - 2 * parts["mask"].item(), rel=1e-5)


def test_masks_are_learnt_at_any_size():
    torch.manual_seed(0)
    model = Model(tiny())
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.3], [0, 2, 0.3, 0.3, 0.2, 0.4]])
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[0, 6:10, 6:10], masks[1, 3:8, 3:6] = 1, 1
    value, parts = model.head.loss(64)(model(torch.rand(1, 3, 64, 64)), targets, masks)
    assert parts["mask"] > 0
    value.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.head.proto.parameters())


def test_within_a_box():
    found = within(torch.tensor([[0.5, 0.25, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]), (4, 8))
    assert found[0].int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]] * 2 + [[0] * 8] * 2
    assert found[1].int().tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] + [[0] * 8] * 3
