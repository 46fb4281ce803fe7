"""Samplers draw what they say, as often as they say."""

from collections import Counter

import pytest

from experiments.oneshot.samplers import PRESETS, make_sampler
from experiments.oneshot.sampling_rules import RULES
from experiments.run import registry
from experiments.testing import SamplerContract
from models import InputError
from spaces import CostModel, Sizes, Space

# Depths of three and of two values; widths that overlap; kernels; two blocks of a row with expansions of their own.
CFG = {
    "nc": 3,
    "anchors": 2,
    "resolution": {"choice": [32, 64]},
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16, 24]}, {"choice": [3, 5]}, 2]],
        [-1, {"choice": [1, 2, 3]}, "C3", [{"choice": [16, 24, 32]}, True, {"e": {"choice": [0.5, 0.75]}}]],
        [-1, 1, "Conv", [{"choice": [16, 32, 48]}, {"choice": [3, 5]}, 2]],
        [-1, 2, "C3", [32, True, {"m_e": [{"choice": [1, 1.5, 2]}, {"choice": [1, 1.5, 2]}]}]],
        [-1, {"choice": [1, 2]}, "Conv", [32, {"choice": [3, 5]}]],
    ],
    "head": [[-1, 1, "Conv", [{"choice": [8, 16]}, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]],
}
EXAMPLES = [*RULES, *PRESETS, *registry.names("sampler"), "stage_wise,k=net_wise", "ordered_stage_wise:1:2"]
DRAWS = 3000


@pytest.fixture(scope="module")
def sizes():
    return Sizes(CostModel(Space(CFG), 64))


def draws(text, sizes, count=DRAWS, seed=0):
    sampler = make_sampler(text, sizes, seed)
    return [sampler(number) for number in range(count)]


def shares(archs, *labels):
    """Values, or tuples of them, to their share."""
    counts = Counter(tuple(a[k] for k in labels) if len(labels) > 1 else a[labels[0]] for a in archs)
    return {value: count / len(archs) for value, count in counts.items()}


def evenly(*values):
    return pytest.approx(dict.fromkeys(values, 1 / len(values)), abs=0.04)


class TestContract(SamplerContract):
    cfg = CFG

    @pytest.fixture(autouse=True, params=[e for e in EXAMPLES if e != "net_wise_index"])
    def text(self, request):
        self.make = lambda sizes, seed: make_sampler(request.param, sizes, seed)
        return request.param

    def test_other_seed_other_archs(self, text, sizes):
        if text != "middle":
            assert draws(text, sizes, 20, seed=4) != draws(text, sizes, 20, seed=3)


@pytest.mark.parametrize("text", ["uniform", "block_wise"])
def test_uniform_decides_every_decision_evenly_and_alone(text, sizes):
    archs = draws(text, sizes)
    assert shares(archs, "row0.0") == evenly(8, 16, 24)
    assert shares(archs, "row1.number", "row4.number") == evenly(*((a, b) for a in (1, 2, 3) for b in (1, 2)))
    assert len(shares(archs, "row3.m_e.0", "row3.m_e.1")) == 9


def test_fair_gives_every_value_its_turn(sizes):
    archs = draws("fair", sizes, 60)
    for label, decision in sizes.cost.space.decisions.items():
        n = len(decision.values)
        for start in range(0, 60 - n + 1, n):
            assert sorted(a[label] for a in archs[start : start + n]) == sorted(decision.values)
    orders = {tuple(a["row0.0"] for a in archs[i : i + 3]) for i in range(0, 60, 3)}
    assert len(orders) > 3, "the order is drawn"
    assert len(shares(archs, "row0.0", "row1.0")) == 9, "and for each decision anew"


def test_flops_bins_are_drawn_evenly(sizes):
    sampler = make_sampler("flops_bin:5", sizes)
    low, high = (sizes.cost.of(arch)["flops"] for arch in (sizes.smallest, sizes.largest))

    def bins(archs):
        flops = sizes.cost.batch(sizes.cost.indices(archs))["flops"]
        return Counter(min(int((f - low) / (high - low) * 5), 4) for f in flops.tolist())

    found = bins([sampler(n) for n in range(2000)])
    assert {b: c / 2000 for b, c in found.items()} == evenly(*range(5))
    assert bins(draws("uniform", sizes, 2000))[4] < 40, "which uniform archs hardly reach"
    top = {str(a) for n in range(2000) if bins([a := sampler(n)])[4]}
    assert len(top) > 30, "of one bin many archs"


def test_best_up_and_worst_up_choose_by_loss_within_a_bin(sizes):
    low, high = (sizes.cost.of(arch)["flops"] for arch in (sizes.smallest, sizes.largest))
    for name, expected in (("best_up:4:8", 2), ("worst_up:4:8", 1)):
        sampler = make_sampler(name, sizes)
        for number in range(50):
            candidates = sampler.candidates(number)
            flops = sizes.cost.batch(sizes.cost.indices(candidates))["flops"]
            bins = ((flops - low) / (high - low) * 8).clip(0, 7.99).astype(int)
            assert len(candidates) == 4
            assert len(set(bins.tolist())) == 1
        assert sampler.pick([0.5, 0.9, 0.1, float("nan")]) == expected
    assert make_sampler("uniform", sizes).candidates(7) == [make_sampler("uniform", sizes)(7)]


def test_stage_wise_blocks_of_a_row_agree(sizes):
    archs = draws("stage_wise", sizes)
    assert shares(archs, "row3.m_e.0", "row3.m_e.1") == evenly((1, 1), (1.5, 1.5), (2, 2))
    assert shares(archs, "row0.1", "row2.1") == evenly(*((a, b) for a in (3, 5) for b in (3, 5)))


def test_stage_wise_depth_follows_the_depth_where_counts_agree(sizes):
    archs = draws("stage_wise_depth", sizes)
    assert shares(archs, "row1.number", "row1.0") == evenly((1, 16), (2, 24), (3, 32))
    assert shares(archs, "row4.number", "row4.1") == evenly((1, 3), (2, 5))
    assert len(shares(archs, "row1.number", "row1.e")) == 6, "three depths, two expansions"
    assert shares(archs, "resolution") == evenly(32, 64)


def test_compofa_couples_width_to_depth_and_leaves_kernels_alone(sizes):
    archs = draws("compofa", sizes)
    assert shares(archs, "row1.number", "row1.0") == evenly((1, 16), (2, 24), (3, 32))
    # Two expansions to three depths: as far up as the depth is.
    assert set(shares(archs, "row1.number", "row1.e")) == {(1, 0.5), (2, 0.5), (3, 0.75)}
    assert len(shares(archs, "row4.number", "row4.1")) == 4
    assert shares(archs, "row0.0") == evenly(8, 16, 24), "a row without depth is free"


def test_ordered_widths_rise_within_the_slopes(sizes):
    archs = draws("ordered_stage_wise:1:2", sizes)
    widths = shares(archs, "row0.0", "row1.0", "row2.0")
    for first, second, third in widths:
        assert first <= second <= 2 * first
        assert second <= third <= 2 * second
    # Evenly of the values that leave a way on, one row after the other: from 8 only to 16, then 16 or 32.
    assert widths[(8, 16, 16)] == pytest.approx(1 / 3 / 2, abs=0.03)
    assert widths[(24, 32, 48)] == pytest.approx(1 / 3 / 2 / 2, abs=0.03)
    assert shares(archs, "row5.0") == evenly(8, 16), "the neck is not of the order"
    assert len(shares(archs, "row1.number", "row4.number")) == 6


def test_ordered_depths(sizes):
    archs = draws("ordered_stage_wise_depth", sizes)
    assert set(shares(archs, "row1.number", "row4.number")) == {(1, 1), (1, 2), (2, 2)}, "from 3 there is no way on"
    assert set(shares(archs, "row1.number", "row1.0")) == {(1, 16), (2, 24)}


def test_net_wise_is_one_value_and_net_wise_index_one_index(sizes):
    archs = draws("stage_wise,k=net_wise,c2=block_wise", sizes)
    assert shares(archs, "row0.1", "row2.1", "row4.1") == evenly((3, 3, 3), (5, 5, 5))
    assert {a["row1.0"] for a in draws("net_wise", sizes, 10)} == {16}, "the only width that all rows have"
    archs = draws("k=net_wise_index,m_e=net_wise_index", sizes)
    assert shares(archs, "row0.1", "row2.1", "row4.1") == evenly((3, 3, 3), (5, 5, 5))
    backbone = Sizes(CostModel(Space({**CFG, "head": []}), 64))
    archs = draws("c2=net_wise_index", backbone)
    assert shares(archs, "row0.0", "row1.0", "row2.0") == evenly((8, 16, 16), (16, 24, 32), (24, 32, 48))
    rows = [[-1, 1, "Conv", [{"choice": [8, 16]}]], [-1, 1, "Conv", [{"choice": [24, 32]}]]]
    with pytest.raises(InputError, match="'c2' have no value in common"):
        make_sampler("net_wise", Sizes(CostModel(Space({"nc": 3, "backbone": rows}), 64)))


def test_middle(sizes):
    (arch,) = {tuple(a.items()) for a in draws("middle", sizes, 10)}
    arch = dict(arch)
    assert (arch["row0.0"], arch["row1.number"], arch["row0.1"], arch["row3.m_e.1"]) == (16, 2, 3, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sandwich", "--sampler sandwich: right would be one of uniform, fair"),
        ("", "right would be one of"),
        ("stage_wise,k=often", "--sampler often: right would be"),
        ("stage_wise,kernel=net_wise", "no decisions on 'kernel'; it has c2, k"),
        ("uniform,k=net_wise", "uniform draws whole archs"),
        ("best_up:x", "--sampler best_up:x: these numbers"),
        ("best_up:0", "1 arch or more"),
        ("flops_bin:0", "1 or more"),
        ("middle:3", "these numbers are not what middle takes"),
        ("net_wise_index", "'number' have 2 or 3 values"),
        ("ordered_stage_wise:5:6", "no values of 'c2' rise by 5 to 6"),
    ],
)
def test_bad_input(text, message, sizes):
    with pytest.raises(InputError, match=message):
        make_sampler(text, sizes)
