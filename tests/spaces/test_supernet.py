"""Supernets that follow their `Active`: paths, mixtures, copies."""

import copy
import itertools
import pickle

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear, Repeat
from torch import nn

from spaces import make_supernet
from spaces.active import Active, Mixture
from spaces.blocks import MixedBottleneck, MutableBottleneck
from spaces.supernet import activate, decisions
from tests.random_state import randomized


class Everything(ModelSpace):
    """Every kind of choice, some labels in two places, one in an expression of two."""

    def __init__(self):
        super().__init__()
        width, ratio, kernel = nni.choice("width", [4, 8]), nni.choice("ratio", [1, 2]), nni.choice("kernel", [1, 3])
        self.conv = MutableConv2d(3, width, kernel, padding=kernel // 2, bias=False)
        self.bn = MutableBatchNorm2d(width)
        self.wide = MutableConv2d(width, width * ratio, 1)
        self.narrow = MutableConv2d(width * ratio, 6, 1)
        self.bottleneck = MutableBottleneck(c1=6, c2=6, hidden=nni.choice("hidden", [3, 6]))
        self.deep = Repeat(lambda _: nn.Conv2d(6, 6, 1), (0, 2), label="depth")
        self.one, self.two = (LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], label="act") for _ in range(2))
        nested = nn.Sequential(nn.Conv2d(6, 6, 1), LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, label="inner"))
        self.nested = LayerChoice({"plain": nn.Identity(), "nested": nested}, label="outer")
        self.linear = MutableLinear(6, 2)

    def extra_oneshot_hooks(self, strategy):
        return [MixedBottleneck.mutate]

    def forward(self, x):
        x = self.one(self.bn(self.conv(x)))
        x = self.two(self.narrow(self.wide(x)))
        return self.linear(self.nested(self.deep(self.bottleneck(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return randomized(make_supernet(Everything()), 0)


@pytest.fixture
def x():
    return torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def archs(net):
    found = decisions(net)
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def test_decisions_are_plain_labels_in_the_order_of_the_network(net):
    found = decisions(net)
    assert [*found] == ["width", "kernel", "ratio", "hidden", "depth", "act", "outer", "inner"]
    assert {type(label) for label in found} == {str}
    assert found["outer"] == ("plain", "nested")


def test_a_path_is_what_the_arch_freezes_to(net, x):
    chosen = archs(net)[::37]
    outputs = []
    for arch in chosen:
        outputs.append(activate(net, arch)(x))
        assert torch.equal(outputs[-1], net.freeze(arch).eval()(x)), arch
    assert len({tuple(y.flatten().tolist()) for y in outputs}) > len(chosen) / 2


def test_a_mixture_of_all_on_one_value_is_its_path(net, x):
    for arch in archs(net)[::53]:
        y = activate(net, arch)(x)
        for label, values in decisions(net).items():
            weights = torch.tensor([float(v == arch[label]) for v in values])
            net.active[label] = Mixture.of_all(weights)
        assert torch.allclose(net(x), y, atol=1e-5), arch


def test_layers_mix_by_their_weights(net):
    x, act = torch.randn(3, 2), net.one
    net.active["act"] = Mixture.of_all(torch.tensor([0.2, 0.3, 0.5]))
    assert torch.allclose(act(x), 0.2 * x.relu() + 0.3 * x.tanh() + 0.5 * x)
    net.active["act"] = Mixture(torch.tensor([0.2, 0.3, 0.5]), (0, 2))
    assert torch.allclose(act(x), 0.2 * x.relu() + 0.5 * x)


def test_depths_mix_by_their_weights(net):
    x, deep = torch.randn(1, 6, 2, 2), net.deep
    once = deep.blocks[0](x)
    net.active["depth"] = Mixture.of_all(torch.tensor([0.2, 0.3, 0.5]))
    assert torch.allclose(deep(x), 0.2 * x + 0.3 * once + 0.5 * deep.blocks[1](once))
    net.active["depth"] = Mixture(torch.tensor([0.0, 0.4, 0.6]), (1, 2))
    assert torch.allclose(deep(x), 0.4 * once + 0.6 * deep.blocks[1](once))


def test_depth_computes_no_block_beyond_it(net):
    seen = []
    handles = [b.register_forward_hook(lambda *_, i=i: seen.append(i)) for i, b in enumerate(net.deep.blocks)]
    for setting, expected in ((0, []), (1, [0]), (Mixture(torch.tensor([0.5, 0.5, 0.0]), (0, 1)), [0])):
        net.active["depth"] = setting
        net.deep(torch.randn(1, 6, 2, 2))
        assert seen == expected
        seen.clear()
    for handle in handles:
        handle.remove()


def test_every_decision_of_a_mixture_gets_a_gradient(net, x):
    leaves = {label: torch.rand(len(v), requires_grad=True) for label, v in decisions(net).items()}
    net.active.update({label: Mixture.of_all(leaf.softmax(0)) for label, leaf in leaves.items()})
    net(x).square().sum().backward()
    assert [label for label, leaf in leaves.items() if not leaf.grad.abs().sum() > 0] == []


def test_a_value_of_two_decisions_has_the_product_of_their_weights(net):
    net.active["width"] = Mixture.of_all(torch.tensor([0.25, 0.75]))
    net.active["ratio"] = 1
    assert net.wide.forward_argument("out_channels") == {8: 0.25, 16: 0.75}
    net.active["ratio"] = Mixture.of_all(torch.tensor([0.5, 0.5]))
    weights = net.wide.forward_argument("out_channels")
    # 4 x 2 and 8 x 1 are the same width.
    assert {width: float(w) for width, w in weights.items()} == {4: 0.125, 8: 0.125 + 0.375, 16: 0.375}


@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_a_path_of_its_own(net, x, way):
    first, second = archs(net)[0], archs(net)[-1]
    y = activate(net, first)(x)
    copied = way(net)
    assert torch.equal(copied(x), y)
    assert not torch.equal(activate(copied, second)(x), y)
    assert torch.equal(net(x), y)
    assert {id(m.active) for m in copied.modules() if hasattr(m, "active")} == {id(copied.active)}


def test_mixtures_stay_behind_when_active_is_copied():
    weights = torch.rand(2, requires_grad=True).softmax(0)
    assert copy.deepcopy(Active(a=1, b=Mixture.of_all(weights))) == {"a": 1}


def test_a_frozen_operation_without_bias_can_be_loaded():
    # Fault A of NNI.
    class Bare(ModelSpace):
        def __init__(self):
            super().__init__()
            self.conv = MutableConv2d(3, nni.choice("width", [2, 4]), 1, bias=False)

        def forward(self, x):
            return self.conv(x)

    frozen = make_supernet(Bare()).freeze({"width": 2})
    assert frozen.conv.bias is None
    assert frozen.conv.weight.shape == (2, 3, 1, 1)
