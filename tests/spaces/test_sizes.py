"""What is large and small in a space, and what its decisions are about."""

import itertools
from pathlib import Path

import pytest

from spaces import CostModel, Sizes, Space
from spaces.kinds import depth_of, kind_of

TINY = Path(__file__).parents[1] / "assets/tiny_nas.yaml"
ELASTIC = {
    "nc": 3,
    "resolution": {"range": [32, 64, 16]},
    "activation": "nn.ReLU()",
    "backbone": [
        [-1, 1, "Conv", [{"choice": [16, 8]}, {"choice": [5, 3]}, 2]],
        [-1, {"choice": [1, 3], "label": "deep"}, "C3", [{"choice": [16, 24]}, True, {"e": {"choice": [0.5, 0.75]}}]],
        [-1, 1, "Conv", [32, 3, 2, None, {"choice": [1, 8]}]],
        [-1, 1, "Conv", [16, 1, 1, {"act": {"choice": ["nn.SiLU()", "nn.ReLU()"]}}]],
    ],
}


@pytest.fixture(scope="module")
def sizes():
    return Sizes(CostModel(Space(ELASTIC), 64))


def test_values_are_ranked_by_cost_and_else_by_number(sizes):
    assert sizes.ranked == {
        "row0.0": (8, 16),
        "row0.1": (3, 5),
        "deep": (1, 3),
        "row1.0": (16, 24),
        "row1.e": (0.5, 0.75),
        "row2.4": (8, 1),  # more groups cost less
        "row3.act": ("nn.SiLU()", "nn.ReLU()"),
        "resolution": (32, 48, 64),
    }


def test_largest_and_smallest_cost_most_and_least(sizes):
    labels = list(sizes.ranked)
    archs = [dict(zip(labels, a, strict=True)) for a in itertools.product(*sizes.ranked.values())]
    flops = sizes.cost.batch(sizes.cost.indices(archs))["flops"]
    assert sizes.cost.of(sizes.largest)["flops"] == flops.max()
    assert sizes.cost.of(sizes.smallest)["flops"] == flops.min()


def test_largest_is_so_beside_the_largest_values_of_the_others():
    """Which width costs more depends on a depth that is decided after it: in one pass 32 would be the larger one."""
    rows = [
        [-1, 1, "Conv", [{"choice": [32, 8], "label": "width"}, 3, 2]],
        [-1, {"choice": [1, 4], "label": "deep"}, "C3", [{"table": {32: 8, 8: 16}, "by": "width"}]],
    ]
    sizes = Sizes(CostModel(Space({"nc": 3, "backbone": rows}), 32))
    archs = [{"width": width, "deep": deep} for width in (32, 8) for deep in (1, 4)]
    flops = [sizes.cost.of(arch)["flops"] for arch in archs]
    assert flops[0] > flops[2], "of shallow networks"
    assert sizes.largest == archs[flops.index(max(flops))] == {"width": 8, "deep": 4}
    assert sizes.ranked["width"] == (32, 8)


def test_of_equal_costs_upstreams_is_meant():
    space = Space(TINY)
    sizes = Sizes(CostModel(space, 32))
    for arch in (sizes.largest, sizes.smallest):
        assert all(arch[label] == 0 for label in space.decisions if label.endswith("_act"))
    assert sizes.ranked["nasconv_0"] == (1, 0, 2), "kernels are 4, 2 and 6"
    assert (sizes.smallest["nasconv_0"], sizes.largest["nasconv_0"]) == (1, 2)


def test_kinds_are_the_arguments_of_the_plain_blocks():
    assert kind_of(Space(ELASTIC)) == {
        "row0.0": "c2",
        "row0.1": "k",
        "deep": "number",
        "row1.0": "c2",
        "row1.e": "e",
        "row2.4": "g",
        "row3.act": "act",
        "resolution": "resolution",
    }
    assert depth_of(Space(ELASTIC)) == {1: "deep"}
    kinds = kind_of(Space(TINY))
    assert [kinds[k] for k in ("nasconv_0", "nasconv_2-1_act", "c3_2", "c3_4_m1")] == ["k", "act", "e", "m_e"]
