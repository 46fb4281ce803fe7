"""Inverted residual, residual and RegNet stages: against definitions, and whole networks against published counts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import Classifier, count_params
from models.blocks import MBConv, Pointwise, RegBottleneck, ResBasic, ResBottleneck
from models.blocks.mobile import InvertedResidual, SqueezeExcite, rounded
from tests.random_state import randomized
from tests.refusal import refused


def _x(channels):
    return torch.randn(2, channels, 8, 6, generator=torch.Generator().manual_seed(1))


def _conv(conv, x, act=F.silu):
    y = F.conv2d(x, conv.conv.weight, None, conv.conv.stride, conv.conv.padding, 1, conv.conv.groups)
    bn = conv.bn
    return act(F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-3))


def _plain(y):
    return y


@pytest.mark.parametrize(("c2", "s", "added"), [(8, 1, True), (12, 1, False), (8, 2, False)])
@pytest.mark.parametrize("se", [0, 0.5])
@pytest.mark.parametrize("e", [1, 3])
def test_inverted_residual(c2, s, added, se, e):
    block, x = randomized(InvertedResidual(8, c2, 5, s, e, se)), _x(8)
    y = _conv(block.expand, x) if e != 1 else x
    assert hasattr(block, "expand") == (e != 1)
    assert block.depthwise.conv.groups == y.shape[1] == 8 * e
    y = _conv(block.depthwise, y)
    if se:
        gate = F.conv2d(y.mean((2, 3), keepdim=True), block.se.fc1.weight, block.se.fc1.bias).relu()
        y = y * F.hardsigmoid(F.conv2d(gate, block.se.fc2.weight, block.se.fc2.bias))
    y = _conv(block.project, y, _plain)
    torch.testing.assert_close(block(x), x + y if added else y)


def test_no_shortcut_where_it_is_switched_off():
    assert not InvertedResidual(8, 8, shortcut=False).add
    stage = MBConv(8, 8, 3, entry_shortcut=False)
    assert [block.add for block in stage] == [False, True, True]
    assert [block.add for block in MBConv(8, 8, 3, shortcut=False)] == [False] * 3


def test_ratio_zero_leaves_the_branch_out():
    x = _x(8)
    assert torch.equal(InvertedResidual(8, 8, e=0)(x), x)
    block = randomized(InvertedResidual(8, 12, 5, 2, e=0))
    torch.testing.assert_close(block(x), _conv(block.skip, x, _plain))
    assert block.skip.conv.kernel_size == (1, 1)
    assert count_params(InvertedResidual(8, 8, e=0)) == 0


def test_stage_of_inverted_residuals():
    stage = MBConv(8, 12, 3, [3, 5, 3, 7], 2, [2, 3, 4])
    assert [b.depthwise.conv.kernel_size[0] for b in stage] == [3, 5, 3]
    assert [b.depthwise.conv.stride[0] for b in stage] == [2, 1, 1]
    assert [b.depthwise.conv.in_channels for b in stage] == [16, 36, 48]
    with refused("row 0 (MBConv)", "k names 1 blocks, but there are 2"):
        Classifier({"nc": 2, "backbone": [[-1, 2, "MBConv", [8, [3]]]]})


@pytest.mark.parametrize(("channels", "expected"), [(18, 24), (30, 32), (4, 8), (60, 64), (12, 16), (24, 24)])
def test_rounded(channels, expected):
    assert rounded(channels) == expected


def test_drop_path_in_training_only():
    block, x = randomized(InvertedResidual(8, 8)), _x(8)
    block.drop_prob = 0.999999
    assert not torch.equal(block(x), x)
    assert torch.equal(block.train()(x), x)


@pytest.mark.parametrize(
    ("c2", "s", "project", "added"), [(8, 1, False, True), (8, 1, True, False), (8, 2, False, False)]
)
def test_basic_residual(c2, s, project, added):
    block, x = randomized(ResBasic(8, c2, 1, 3, s, project=project))[0], _x(8)
    y = _conv(block.branch[1], _conv(block.branch[0], x), _plain)
    assert block.add == added
    shortcut = x if added else _conv(block.shortcut, x, _plain)
    torch.testing.assert_close(block(x), F.silu(shortcut + y))


def test_bottleneck_residual():
    block, x = randomized(ResBottleneck(8, 16, 2, 5, 2))[0], _x(8)
    first, second, third = block.branch
    assert (first.conv.out_channels, second.conv.kernel_size, second.conv.stride) == (4, (5, 5), (2, 2))
    y = _conv(third, _conv(second, _conv(first, x)), _plain)
    torch.testing.assert_close(block(x), F.silu(_conv(block.shortcut, x, _plain) + y))
    assert [b.add for b in ResBottleneck(16, 16, 3, project=True)] == [False, True, True]


def test_regnet_residual():
    block, x = randomized(RegBottleneck(8, 16, 1, 4, 3, 1, 0.25))[0], _x(8)
    first, second, se, third = block.branch
    assert isinstance(se, SqueezeExcite)
    assert (second.conv.groups, se.fc1.out_channels) == (4, 2)
    y = _conv(third, se(_conv(second, _conv(first, x))), _plain)
    torch.testing.assert_close(block(x), F.silu(_conv(block.shortcut, x, _plain) + y))
    with refused("row 0 (RegBottleneck)", "20 channels are no multiple of the group width 8"):
        Classifier({"nc": 2, "channel_multiple": 4, "backbone": [[-1, 1, "RegBottleneck", [20]]]})


def test_pointwise_is_a_linear_layer():
    layer, x = Pointwise(8, 12), torch.randn(2, 8, 1, 1)
    expected = F.silu(F.linear(x.flatten(1), layer.conv.weight.flatten(1), layer.conv.bias))
    torch.testing.assert_close(layer(x).flatten(1), expected)


def mobilenet_v2():
    stages = [(16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6)]
    rows = [[-1, n, "MBConv", [c, 3, s, e]] for c, n, s, e in stages]
    return [[-1, 1, "Conv", [32, 3, 2]], *rows, [-1, 1, "Conv", [1280, 1]]]


def mobilenet_v3_large():
    return [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "MBConv", [16, 3, 1, 1]],
        [-1, 2, "MBConv", [24, 3, 2, [4, 3]]],
        [-1, 3, "MBConv", [40, 5, 2, 3, 0.25]],
        [-1, 4, "MBConv", [80, 3, 2, [6, 2.5, 2.3, 2.3]]],
        [-1, 2, "MBConv", [112, 3, 1, 6, 0.25]],
        [-1, 3, "MBConv", [160, 5, 2, 6, 0.25]],
        [-1, 1, "Conv", [960, 1]],
        [-1, 1, "GlobalPool", []],
        [-1, 1, "Pointwise", [1280]],
    ]


def resnet(module, numbers, widths):
    rows = [[-1, n, module, [c, 3, 1 + (i > 0)]] for i, (n, c) in enumerate(zip(numbers, widths, strict=True))]
    return [[-1, 1, "Conv", [64, 7, 2]], [-1, 1, "nn.MaxPool2d", [3, 2, 1]], *rows]


def regnet(numbers, widths, group_width, se=0):
    rows = [[-1, n, "RegBottleneck", [c, group_width, 3, 2, se]] for n, c in zip(numbers, widths, strict=True)]
    return [[-1, 1, "Conv", [32, 3, 2]], *rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (mobilenet_v2(), 3_504_872),
        (mobilenet_v3_large(), 5_483_032),
        (resnet("ResBasic", [2, 2, 2, 2], [64, 128, 256, 512]), 11_689_512),
        (resnet("ResBottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]), 25_557_032),
        (regnet([1, 2, 7, 12], [32, 64, 160, 400], 16), 5_495_976),
        (regnet([1, 3, 6, 6], [48, 104, 208, 440], 8, 0.25), 4_344_144),
    ],
    ids=["mobilenet_v2", "mobilenet_v3_large", "resnet18", "resnet50", "regnet_x_400mf", "regnet_y_400mf"],
)
def test_parameters_of_known_networks(rows, expected):
    """As torchvision counts them, for 1000 classes."""
    with torch.device("meta"):
        network = Classifier({"nc": 1000, "backbone": rows})
    assert count_params(network) == expected
    assert isinstance(network.linear, nn.Linear)
