"""YOLOv9's blocks against their definitions."""

import pytest
import torch
from torch.nn import functional as F

from models import Classifier
from models.blocks import AConv, ADown, RepConv, RepNCSPELAN4
from tests.random_state import randomized
from tests.refusal import refused


def test_a_reparametrised_convolution_fused_is_both_branches():
    block = randomized(RepConv(8, 12, s=2, g=4)).eval()
    x = torch.randn(2, 8, 9, 7)
    before = block(x)
    block.fuse()
    block.fuse()
    assert [type(m).__name__ for m in block.modules() if hasattr(m, "weight")] == ["Conv2d"]
    assert torch.allclose(block(x), before, atol=1e-5)


def test_a_fused_network_gives_the_same():
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "RepNCSPELAN4", [16, 16, 8, 2]], [-1, 1, "ADown", [16]]]
    network = randomized(Classifier({"nc": 2, "backbone": rows})).eval()
    x = torch.rand(2, 3, 32, 32)
    before = network.run_rows(x)
    assert torch.allclose(network.fuse().run_rows(x), before, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_gelan_joins_both_halves_and_both_blocks():
    block = randomized(RepNCSPELAN4(6, 10, 8, 4, 2)).eval()
    x = torch.randn(1, 6, 5, 5)
    y = block.cv1(x)
    once = block.cv2(y[:, 4:])
    assert torch.equal(block(x), block.cv4(torch.cat((y, once, block.cv3(once)), 1)))
    csp = block.cv3[0]
    inner = csp.cv1(once)
    for bottleneck in csp.m:
        inner = inner + bottleneck.cv2(bottleneck.cv1(inner))
    assert torch.equal(csp(once), csp.cv3(torch.cat((inner, csp.cv2(once)), 1)))


def test_ways_of_halving():
    x = torch.randn(1, 8, 6, 6)
    mean = (x[..., :-1, :-1] + x[..., 1:, :-1] + x[..., :-1, 1:] + x[..., 1:, 1:]) / 4
    conv, down = randomized(AConv(8, 6)).eval(), randomized(ADown(8, 6)).eval()
    assert torch.allclose(conv(x), conv.cv1(mean), atol=1e-6)
    largest = F.max_pool2d(mean[:, 4:], 3, 2, 1)
    assert torch.allclose(down(x), torch.cat((down.cv1(mean[:, :4]), down.cv2(largest)), 1), atol=1e-6)


COMPOSITE = [
    [-1, 1, "Silence", []],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [1, 1, "CBLinear", [[8]]],
    [2, 1, "CBLinear", [[8, 16]]],
    [0, 1, "Conv", [8, 3, 2]],
    [[3, 4, -1], 1, "CBFuse", [[0, 0]]],
]


def test_maps_of_one_backbone_are_added_in_the_other():
    network = randomized(Classifier({"nc": 2, "backbone": COMPOSITE})).eval()
    x = torch.rand(1, 3, 16, 16)
    first = network.model[1](x)
    second = network.model[4](network.model[2](first))
    assert [tuple(m.shape) for m in second] == [(1, 8, 4, 4), (1, 16, 4, 4)]
    larger = second[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = network.model[5](x) + network.model[3](first)[0] + larger
    assert torch.allclose(network.run_rows(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([[3, 4, -1], 1, "CBFuse", [[0, 1]]], ("adds to 8 channels", "map 1 of row 4 (CBLinear)", "8, 16")),
        ([[3, 4, -1], 1, "CBFuse", [[0, 2]]], ("map 2 of row 4",)),
        ([[3, 4, -1], 1, "CBFuse", [[0]]], ("one a row but the last of its 3",)),
        ([[1, 4, -1], 1, "CBFuse", [[0, 0]]], ("must be CBLinear, but row 1 is Conv",)),
        ([-1, 1, "CBLinear", [8]], ("list of widths",)),
        ([-1, 1, "ELAN1", [8, 7, 4]], ("must be even, got 7",)),
        ([-1, 1, "RepConv", [8, 5]], ("kernel is 3",)),
    ],
)
def test_refusals(row, words):
    with refused(f"row 6 ({row[2]})", *words):
        Classifier({"nc": 2, "backbone": [*COMPOSITE[:6], row]})
