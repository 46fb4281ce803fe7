"""The head of semantic segmentation: what it gives and refuses, and its loss by its definition."""

import math

import pytest
import torch

from models import Model, Semantic, count_params
from models.semantic import IGNORED, SemanticLoss
from tests.random_state import randomized
from tests.refusal import refused


def tiny(args=("nc", 16), **keys):
    rows = [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    return {"nc": 3, "backbone": rows, "head": [[[0, 1], 1, "Semantic", [*args]]], **keys}


# nc 80. Frozen: a change is a fault, or is to be explained.
GOLDEN = {"n": 2_020_784, "s": 8_049_424, "m": 23_186_096, "l": 50_256_848, "x": 92_656_240}


def of_head(channels, width, nc=80):
    """3 x 3 convolutions with batch norms, and a 1 x 1 one with a bias."""
    return sum(9 * c * width + 2 * width for c in channels) + (width + 1) * nc


@pytest.mark.parametrize("size", GOLDEN)
def test_parameters(size):
    with torch.device("meta"):
        model, segmenter = (Model(f"yolov5{size}-{name}.yaml") for name in ("semantic", "seg"))
    assert count_params(model) == GOLDEN[size]
    channels = [model.channels[row] for row in (17, 20, 23)]
    assert count_params(model.head) == of_head(channels, channels[0])
    assert count_params(model) - count_params(model.head) == count_params(segmenter) - count_params(segmenter.head)


def test_what_it_gives():
    torch.manual_seed(0)
    model = randomized(Model(tiny(width_multiple=0.5)))
    x = torch.rand(2, 3, 64, 96)
    logits, same = model(x)
    assert isinstance(model.head, Semantic)
    assert logits.shape == (2, 3, 32, 48)
    assert [y.data_ptr() for y in same] == [logits.data_ptr()]
    assert model.head.classify.in_channels == 8  # its width is scaled
    with torch.no_grad():
        fine, coarse = model.model[0](x), model.model[1](model.model[0](x))
        a, b = (m(y) for m, y in zip(model.head.maps, (fine, coarse), strict=True))
        b = torch.nn.functional.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, model.head.classify(a + b))
    assert [y.shape for y in model.train()(x)] == [(2, 3, 32, 48)]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["nc"], ("row 2 (Semantic)", "[nc, width of its maps]")),
        ([0, 16], ("row 2 (Semantic)", "number of classes", "0")),
        ([300, 16], ("row 2 (Semantic)", "1 to 255", "300")),
        (["nc", "y"], ("row 2 (Semantic)", "positive number", "'y'")),
    ],
)
def test_bad_input_is_one_line(args, parts):
    with refused(*parts):
        Model(tiny(args))


def test_loss_is_the_mean_cross_entropy_of_pixels_with_a_class():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 4)).to(torch.uint8)
    labels[0, :2] = IGNORED
    loss, parts = SemanticLoss()([logits], torch.zeros(0, 6), labels)
    each = [
        math.log(sum(math.exp(v) for v in logits[n, :, j, i].tolist())) - logits[n, int(labels[n, j, i]), j, i].item()
        for n in range(2)
        for j in range(4)
        for i in range(4)
        if labels[n, j, i] != IGNORED
    ]
    assert len(each) == 24
    assert parts["pixels"].item() == pytest.approx(sum(each) / 24, rel=1e-5)
    assert loss.item() == pytest.approx(2 * parts["pixels"].item(), rel=1e-6)
    loss.backward()
    assert not logits.grad[0, :, :2].any()
    assert logits.grad[0, :, 2:].all()


def test_nothing_is_learnt_where_no_pixel_has_a_class():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    for labels in (None, torch.full((2, 8, 8), IGNORED, dtype=torch.uint8)):
        loss, _ = SemanticLoss()([logits], torch.zeros(0, 6), labels)
        loss.backward()
        assert loss == 0
        assert not logits.grad.any()


def test_maps_of_another_size_are_compared_at_the_labels():
    """Of a map that is the same everywhere, so is the loss at any size."""
    logits = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    small, large = (
        SemanticLoss()([logits], torch.zeros(0, 6), torch.zeros(1, n, n, dtype=torch.uint8)) for n in (4, 16)
    )
    assert small[0].item() == pytest.approx(large[0].item(), rel=1e-6)
