"""Archs that are one network have one code: told by their weights, put into each other, and by counting."""

import itertools
import random

import pytest
import torch
from torch import nn

from models import Classifier, registry
from spaces import CostModel, Space
from spaces.twins import Twins, twins_of

STEM = [-1, 1, "Conv", [8, 3, 2]]


def space(*rows):
    return Space({"nc": 3, "backbone": [STEM, *rows]})


def archs(of):
    return [
        dict(zip(of.decisions, v, strict=True)) for v in itertools.product(*(d.values for d in of.decisions.values()))
    ]


def codes(of):
    """Canonical arch to all that have it."""
    found = {}
    for arch in archs(of):
        found.setdefault(tuple(of.canonical(arch).values()), []).append(arch)
    return found


def network(of, arch):
    torch.manual_seed(0)
    return Classifier(of.freeze(arch)).eval()


def same(one, other):
    """Whether two networks give the same where the weights of the one are put into the other in their order."""
    tensors = [[*net.parameters(), *net.buffers()] for net in (one, other)]
    if [t.shape for t in tensors[0]] != [t.shape for t in tensors[1]]:
        return False
    with torch.no_grad():
        for i, (a, b) in enumerate(zip(*tensors, strict=True)):
            if a.is_floating_point():
                a.copy_(torch.rand(a.shape, generator=torch.Generator().manual_seed(i)) + 0.1)
            b.copy_(a)
        x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(99))
        return torch.equal(one(x), other(x))


SPACES = {
    "identities with a kernel of their own": space(
        *([-1, 1, "MBConv", [8, {"choice": [5, 3]}, 1, {"choice": [3, 0]}]] for _ in range(3)),
    ),
    "an identity that is read elsewhere": space(
        [-1, 1, "MBConv", [8, 3, 1, {"choice": [0, 3]}]],
        [-1, 1, "MBConv", [8, 3, 1, {"choice": [0, 3]}]],
        [[-1, 1], 1, "Add", []],
    ),
    "blocks beyond the depth, and identities within": space(
        [-1, {"choice": [1, 2, 3]}, "MBConv", [8, 3, 1, [{"choice": [2, 0]}, {"choice": [2, 0]}, {"choice": [2, 3]}]]],
    ),
    "depth that one row or the next has": space(
        *([-1, {"choice": [1, 2, 3]}, "Bottleneck", [8]] for _ in range(2)),
        [-1, {"choice": [1, 2]}, "Bottleneck", [8, False]],
    ),
    "ratios that round to one width": space(
        [-1, 1, "C3", [8, True, 1, {"choice": [0.5, 0.51, 0.75]}]], [-1, 1, "C3", [8, True, 1, {"choice": [0.5, 0.51]}]]
    ),
    "a label of two rows": space(
        [-1, 1, "MBConv", [8, {"choice": [3, 5], "label": "k"}, 1, {"choice": [0, 3]}]],
        [-1, 1, "MBConv", [8, {"choice": [3, 5], "label": "k"}, 2, 3]],
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_one_code_is_one_network(name):
    of = SPACES[name]
    found = codes(of)
    for code, twins in found.items():
        first = dict(zip(of.decisions, code, strict=True))
        assert first in twins, "it is one of them"
        assert of.canonical(first) == first
        assert all(same(network(of, first), network(of, arch)) for arch in twins[:4])
    firsts = [network(of, dict(zip(of.decisions, code, strict=True))) for code in found]
    assert not any(same(a, b) for a, b in itertools.combinations(firsts, 2)), "and of two codes there are two"


def test_nasbench_macro_has_3969_networks():
    """Of Su et al. 2021, arXiv:2103.11922: what its table trained as one is one here."""
    of = Space("nasbench_macro.yaml")
    found = codes(of)
    assert of.size() == 6561
    assert len(found) == 3969
    model = CostModel(of, 32, classifier=True)
    for twins in random.Random(0).sample(sorted(found.values(), key=len)[-500:], 50):
        assert len(twins) > 1
        assert len({tuple(model.of(arch).values()) for arch in twins}) == 1
        # An identity of a stage's blocks but the first, which changes the shape, may stand anywhere.
        stages = [
            tuple(tuple(a[f"layer{i}"] for i in stage if i == stage[0] or a[f"layer{i}"]) for stage in STAGES)
            for a in twins
        ]
        assert len(set(stages)) == 1


STAGES = (range(2), range(2, 5), range(5, 8))


@pytest.mark.parametrize("cfg", ["yolov5n_bignas.yaml", "resnet_bignas.yaml"])
def test_a_space_without_twins_is_left_alone(cfg):
    of = Space(cfg)
    assert not twins_of(of).free
    for seed in range(20):
        arch = of.sample(random.Random(seed))
        assert of.canonical(arch) == arch


def test_upstreams_arch_is_canonical():
    of = space(*([-1, 1, "MBConv", [8, 3, 1, {"choice": [0, 3, 6], "plain": 3}]] for _ in range(2)))
    assert of.canonical({"row1.3": 0, "row2.3": 3}) == {"row1.3": 3, "row2.3": 0}
    assert of.canonical(of.upstream()) == of.upstream()


def test_a_constant_of_another_value_is_another_network(monkeypatch):
    class Scaled(nn.Module):
        def __init__(self, c1, c2, by):
            super().__init__()
            self.register_buffer("by", torch.tensor(float(by)))

        def forward(self, x):
            return x * self.by

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    registry.register()(Scaled)
    of = space([-1, 1, "Scaled", [8, {"choice": [1, 2, 4]}]], [-1, 1, "Scaled", [8, {"choice": [1, 3]}]])
    assert len(codes(of)) == 6


def test_values_may_be_written_and_an_arch_that_is_no_network_is_left():
    of = SPACES["identities with a kernel of their own"]
    assert of.canonical({k: str(v) for k, v in of.upstream().items()}) == of.upstream()
    broken = space(
        [-1, {"choice": [1, 2]}, "Conv", [{"choice": [8, 16]}]], [-1, 1, "MBConv", [8, 3, 1, {"choice": [0, 3]}]]
    )
    arch = {"row1.number": 2, "row1.0": 16, "row2.3": 0}
    assert broken.canonical(arch) == arch
    assert Twins(broken)(arch) == arch
