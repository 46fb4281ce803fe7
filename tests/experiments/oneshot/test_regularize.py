"""Residual branches that begin at zero, and dropout and drop-path that can be switched."""

import pytest
import torch
from torch import nn

from experiments.oneshot.regularize import Regularization, residual_blocks, zero_last_gamma
from models import Classifier, InputError, Model
from models.blocks import Bottleneck
from models.blocks.drop_path import drop_path

CFG = {
    "nc": 3,
    "anchors": 2,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 2, "C3", [16, True]],
        [-1, 1, "C3", [16, False]],
        [-1, 1, "Conv", [16, 1]],
        [-1, 2, "C3", [16, True]],
    ],
    "head": [[[4], 1, "Detect", ["nc", "anchors"]]],
}


def test_drop_path_leaves_out_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    y = torch.ones(4000, 2, 1, 1)
    out = drop_path(y, 0.25, training=True)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (out[:, 0] == out[:, 1]).all(), "whole samples"
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert drop_path(y, 0.25, training=False) is y
    assert drop_path(y, 0.0, training=True) is y


def test_a_block_whose_branch_is_dropped_is_the_identity():
    block = Bottleneck(4, 4)
    x = torch.rand(8, 4, 5, 5)
    block.drop_prob = 1 - 1e-9
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_residual_blocks_begin_as_the_identity():
    network = Classifier(CFG)
    blocks = residual_blocks(network)
    assert len(blocks) == 4
    assert zero_last_gamma(network) == 4
    x = torch.rand(2, 8, 6, 6)
    for block in blocks:
        assert torch.equal(block.train()(x), x)
        block(x).sum().backward()
        assert block.cv2.bn.weight.grad.abs().sum() > 0, "and learn not to be"
    assert all(
        (m.weight == 1).all() for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and ".m." not in n
    )


def test_residual_blocks_of_every_kind():
    """Those of a stage but for the first, where that changes the shape without a shortcut."""
    rows = [[-1, 2, "MBConv", [8, 3, 2]], [-1, 2, "ResBasic", [16, 3, 2]], [-1, 2, "RegBottleneck", [16, 8]]]
    network = Classifier({"nc": 3, "activation": "nn.ReLU()", "backbone": [[-1, 1, "Conv", [8, 3]], *rows]})
    assert zero_last_gamma(network) == len(residual_blocks(network)) == 1 + 2 + 2
    zeroed = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and (m.weight == 0).all()]
    assert zeroed == [
        f"model.{n}.bn" for n in ("1.1.project", "2.0.branch.1", "2.1.branch.1", "3.0.branch.2", "3.1.branch.2")
    ]
    network.train()(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in network.named_parameters() if n.replace("weight", "") in zeroed)


def test_branches_that_could_never_learn_are_left_alone():
    assert zero_last_gamma(Classifier({**CFG, "activation": "nn.ReLU()"})) == 0
    assert zero_last_gamma(Classifier({**CFG, "activation": "nn.LeakyReLU(0.1)"})) == 4


def test_regularisation_is_on_where_it_is_said():
    torch.manual_seed(0)
    network = Classifier(CFG)
    network.add_module("own", nn.Dropout(0.3))
    regularization = Regularization(network, dropout=0.5, drop_path=0.4)
    x = torch.rand(4, 3, 16, 16)
    blocks = residual_blocks(network)
    plain = network.train()(x)
    assert torch.equal(network(x), plain)
    assert network.own.p == 0
    with regularization.on():
        assert [b.drop_prob for b in blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])
        assert network.own.p == 0.3
        assert not torch.allclose(network(x), network(x))
    assert torch.equal(network(x), plain)
    assert not network.linear._forward_pre_hooks
    with Regularization(network).on():
        assert torch.equal(network(x), plain)


def test_dropout_is_before_the_linear_layer():
    network = Classifier(CFG)
    seen = []
    network.linear.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    with Regularization(network, dropout=0.5).on():
        network(torch.rand(64, 3, 16, 16))
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7


def test_bad_input():
    with pytest.raises(InputError, match="--dropout 1: right would be"):
        Regularization(Classifier(CFG), dropout=1)
    with pytest.raises(InputError, match="--drop-path -0"):
        Regularization(Classifier(CFG), drop_path=-0.1)
    with pytest.raises(InputError, match="--dropout is for classifiers"):
        Regularization(Model(CFG), dropout=0.1)
