"""FBNet's operators beside their definition; PFLD's space of them."""

import pytest
import torch
import torch.nn.functional as F

from models import Classifier
from models.blocks.fbnet import FBNet
from spaces import Space
from spaces.check_elastic import check_elastic
from tests.random_state import randomized
from tests.refusal import refused

OPERATORS = ("skip", "k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6")


def normed(conv, x):
    norm, weight = conv.bn, conv.conv.weight
    y = F.conv2d(x, weight, stride=conv.conv.stride, padding=weight.shape[-1] // 2, groups=conv.conv.groups)
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@pytest.mark.parametrize(("op", "hidden", "groups"), [("k3_e1_g2", 8, 2), ("k5_e6", 48, 1), ("k3_e3", 24, 1)])
@pytest.mark.parametrize("s", [1, 2])
def test_an_operator_is_its_definition(op, hidden, groups, s):
    torch.manual_seed(0)
    block, x = randomized(FBNet(8, 8, op, s, torch.nn.ReLU())), torch.randn(2, 8, 6, 6)
    assert block.expand.conv.weight.shape == (hidden, 8 // groups, 1, 1)
    with torch.no_grad():
        y = F.relu(normed(block.expand, x))
        # Figure 3: behind the first group convolution channel i of group g is channel groups * i + g.
        shuffled = [y[:, g * hidden // groups + i] for i in range(hidden // groups) for g in range(groups)]
        y = F.relu(normed(block.depthwise, torch.stack(shuffled, 1)))
        y = normed(block.project, y)
        torch.testing.assert_close(block(x), x + y if s == 1 else y)


def test_skip_is_an_identity_or_a_convolution():
    x = torch.randn(1, 8, 4, 4)
    assert FBNet(8, 8, "skip")(x) is x
    assert FBNet(8, 16, "skip", 2)(x).shape == (1, 16, 2, 2)


@pytest.mark.parametrize("op", ["k3", "k0_e1", "e6_k3", "k3_e1_g0", 3])
def test_what_is_no_operator_is_one_line(op):
    with refused("row 0 (FBNet)", repr(op), "k3_e6"):
        Classifier({"nc": 2, "backbone": [[-1, 1, "FBNet", [8, op]]]})


def test_pflds_space_has_its_nine_operators_in_five_stages():
    decisions = Space("pfld_fbnet.yaml").decisions
    assert {label: d.values for label, d in decisions.items()} == {f"stage{i}": OPERATORS for i in range(1, 6)}
    widths = [row.args[0] for row in Space("pfld_fbnet.yaml").config.rows if row.module == "FBNet"]
    assert widths == [32, 32, 64, 64, 64]


def test_every_operator_is_a_slice_of_the_largest():
    rows = [
        [-1, 1, "FBNet", [c, {"choice": [*OPERATORS], "label": f"s{i}"}, s]]
        for i, (c, s) in enumerate([(8, 1), (16, 2), (16, 1)])
    ]
    cfg = {"nc": 4, "activation": "nn.ReLU()", "backbone": [[-1, 1, "Conv", [8, 3, 2]], *rows]}
    for arch, problems in check_elastic(cfg, num=8):
        assert not problems, arch
