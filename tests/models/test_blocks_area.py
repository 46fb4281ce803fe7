"""YOLO12's block against its definition."""

import pytest
import torch

from models import Classifier, Model
from models.blocks import A2C2f
from models.blocks.area import AreaAttention
from tests.random_state import randomized
from tests.refusal import refused


@pytest.mark.parametrize("area", [1, 4])
def test_cells_attend_to_those_of_their_strip(area):
    attention = randomized(AreaAttention(64, area)).eval()
    x = torch.randn(2, 64, 8, 6)
    q, k, v = (
        attention.qkv(x).view(2, 2, 3, 32, area, -1).permute(2, 0, 4, 1, 5, 3)
    )  # image, strip, head, cell, channel
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    maps = [t.permute(0, 2, 4, 1, 3).reshape(2, 64, 8, 6) for t in (attended, v)]
    expected = attention.proj(maps[0] + attention.pe(maps[1]))
    assert torch.allclose(attention(x), expected, atol=1e-5)
    # The first strip, but for the 7 x 7 convolution: the last one has no part in it.
    attention.pe.conv.weight.data.zero_()
    changed = x.clone()
    changed[..., -1, :] += 1
    same = torch.allclose(attention(changed)[..., :2, :], attention(x)[..., :2, :])
    assert same == (area > 1)


def test_every_block_is_aggregated_and_scaled():
    block = randomized(A2C2f(64, 64, 2, True, 1, True)).eval()
    x = torch.randn(1, 64, 4, 4)
    y = block.cv1(x)
    once = block.m[0](y)
    together = block.cv2(torch.cat((y, once, block.m[1](once)), 1))
    assert torch.allclose(block(x), x + 0.01 * together, atol=1e-6)
    for other in (A2C2f(64, 128, 1, True, 1, True), A2C2f(64, 64, 1), A2C2f(64, 64, 1, False, 1, True)):
        assert other.gamma is None


def test_sizes_with_a_residual():
    with torch.device("meta"):
        nano, large = Model("yolo12n.yaml"), Model("yolo12l.yaml")
    for model, hidden, scaled in ((nano, 2.0, False), (large, 1.2, True)):
        block = model.model[6]
        assert (block.gamma is not None) == scaled
        attention = block.m[0][0]
        assert attention.mlp[0].conv.out_channels == int(hidden * attention.attn.proj.conv.out_channels)


def test_refusals():
    rows = [[-1, 1, "Conv", [64, 3, 1]], [-1, 1, "A2C2f", [96]]]
    with refused("row 1 (A2C2f)", "48 channels must be a multiple of 32"):
        Classifier({"nc": 2, "backbone": rows})
    network = Classifier({"nc": 2, "backbone": [rows[0], [-1, 1, "A2C2f", [64, True, 4]]]})
    with refused("row 1 (A2C2f)", "3 x 3 cells cannot be divided into 4 areas"):
        network(torch.rand(1, 3, 3, 3))
