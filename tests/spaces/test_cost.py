"""The cost model against what is counted on built networks."""

import itertools
import random
import re
import time

import numpy as np
import pytest
import torch
from torch import nn

from models import count_flops, count_params, read_config, register
from models.grammar import MODELS
from models.network import Network
from spaces import CostModel, Space
from spaces.cost_rows import signed_terms
from tests.models.block_rows import ROWS
from tests.refusal import refused
from tests.spaces.supernets import SMALL

TINY = "tests/assets/tiny_nas.yaml"
# Of YOLOv10 the smallest and the largest: the others have their rows.
SHIPPED = sorted(p for p in MODELS.rglob("*.yaml") if not re.match("yolov10[smbl]", p.name))
PLAIN = [p for p in SHIPPED if not any(sign in p.read_text() for sign in ("NAS", "choice:", "range:"))]
SPACES = [p for p in SHIPPED if p not in PLAIN]
LARGE = ("yolov5s", "yolov5m", "yolov5l", "yolov5x")


def choice(*values, **label):
    return {"choice": list(values), **label}


# Every kind of choice: widths that change the next rows' inputs and meet in a Concat, a shared width, depth, kernel,
# expansion, a table, and the size of the images.
ELASTIC = {
    "nc": 3,
    "anchors": 2,
    "width_multiple": 0.5,
    "resolution": choice(32, 64),
    "backbone": [
        [-1, 1, "Conv", [choice(16, 32, label="w"), choice(3, 5), 2]],
        [-1, {"range": [1, 3, 1]}, "C3", [choice(32, 48), True, {"e": choice(0.5, 0.75)}]],
        [-1, 1, "Conv", [choice(16, 32, label="w"), 3, 2]],
        [-1, {"table": {1: 2, 2: 2, 3: 4}, "by": "row1.number"}, "C3TR", [32]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 1, 0], 1, "Concat", [1]],
        [-1, 2, "C3", [32, False, 1, {"table": {16: 0.5, 32: 1}, "by": "w"}]],
        [[3, 6], 1, "Detect", ["nc", "anchors"]],
    ],
}
# 1,296 combinations in one row, some of which change what the next is fed with.
MANY = {
    "backbone": [
        [-1, 1, "Conv", [choice(16, 24), 3, 2]],
        [
            -1,
            4,
            "C3",
            [choice(16, 24), True, 1, choice(0.5, 1), {"m_e": [choice(0.5, 1, 2)] * 4, "cv1_k": choice(1, 3)}],
        ],
        [-1, 1, "Conv", [16, 3, 2]],
    ]
}


def activations(network, x):
    """Elements that convolutions and linear layers put out, the projections of attention among them."""
    total = 0

    def count(module, _, output):
        nonlocal total
        attention = isinstance(module, nn.MultiheadAttention)
        # It calls no layers: query, key and value are projected in one, and then the output.
        total += 4 * output[0].numel() if attention else output.numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention)
    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    network.eval()(x)
    for handle in handles:
        handle.remove()
    return total


def counted(cfg, imgsz):
    config = read_config(cfg)
    network = Network()
    try:
        with torch.device("meta"):
            network.build(config)
    except ValueError:  # some blocks compute with tensors as they are built
        network.build(config)
        network.to("meta")
    with torch.no_grad():
        elements = activations(network, torch.zeros(1, config.ch, imgsz, imgsz, device="meta"))
    return {
        "params": count_params(network),
        "flops": count_flops(network, imgsz, config.ch),
        "activations": elements,
    }


def archs_of(space):
    labels = list(space.decisions)
    for values in itertools.product(*(d.values for d in space.decisions.values())):
        yield dict(zip(labels, values, strict=True))


def assert_exact(space, model, archs):
    for arch in archs:
        frozen = space.freeze(arch)
        costs = model.of(arch)
        assert costs == counted(frozen, frozen.get("resolution", model.imgsz))
        assert all(type(cost) is int for cost in costs.values())


@pytest.fixture(scope="module")
def tiny():
    return CostModel(Space(TINY), 64)


@pytest.fixture(scope="module")
def nano():
    return CostModel(Space("yolov5n_nas.yaml"), 64)


# Exactness.


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.stem)
def test_plain_yaml(path):
    imgsz = 128 if "p7" in path.stem else 64
    assert CostModel(Space(path), imgsz).of({}) == counted(path, imgsz)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("number", [1, 2])
def test_every_block(name, number):
    row = list(ROWS[name][0])
    alone = not isinstance(row[0], list)
    if number == 2 and alone and ROWS[name][1] == 16 and name != "nn.BatchNorm2d":
        row[1] = 2
    # Rows of several inputs may want them of one width.
    rows = [[-1, 1, "Conv", [choice(16, 32) if alone or name == "Concat" else choice(16), 3, 1]]]
    rows += [[-1, 1, "Conv", [16, 3, 1]]]
    # It takes a list that one row gives.
    rows += [[[-1, 0], 1, "SharedTowers", [8]], [-1, 1, "Pick", [1]]] if name == "Pick" else [row]
    space = Space({"nc": 2, "anchors": 3, "backbone": rows})
    assert_exact(space, CostModel(space, 16), archs_of(space))


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] if p.stem.startswith(LARGE) else [], id=p.stem) for p in SPACES],
)
def test_shipped_space(path):
    space, rng = Space(path), random.Random(0)
    model = CostModel(space, 64)
    assert_exact(space, model, [space.upstream(), *(space.sample(rng) for _ in range(2))])


@pytest.mark.parametrize("cfg", [ELASTIC, SMALL, MANY], ids=["elastic", "small", "many"])
def test_space_of_choices(cfg):
    space, rng = Space(cfg), random.Random(0)
    model = CostModel(space, 32)
    assert_exact(space, model, [space.sample(rng) for _ in range(8)])


def test_resolution_stands_for_imgsz():
    plain = Space(ELASTIC).freeze({**Space(ELASTIC).upstream(), "resolution": 64})
    assert CostModel(Space(plain), 32).of({}) == CostModel(Space({**plain, "resolution": None}), 64).of({})


def test_input_channels():
    cfg = {"ch": 5, "backbone": [[-1, 1, "Conv", [16, 3, 2]]]}
    assert CostModel(Space(cfg), 32).of({}) == counted(cfg, 32)


def test_few_terms_stand_for_many_combinations(nano):
    tables = [t for kind in nano._kinds for t in kind]
    assert sum(t.values.size for t in tables) < 2000
    assert len(tables) < 30


def test_plug_in_needs_no_formula():
    @register()
    class Wave(nn.Module):
        """Functional operations, a bare parameter, and a constructor that computes with tensors."""

        def __init__(self, c1, c2, k):
            super().__init__()
            width = int(torch.linspace(0, c2, 3)[1])
            self.weight = nn.Parameter(torch.zeros(width, c1, k, k))
            self.out = nn.Conv2d(width, c2, 1)

        def forward(self, x):
            return self.out(nn.functional.conv2d(x, self.weight).relu())

    row = [-1, 1, "Wave", [choice(8, 16), choice(1, 3)]]
    space = Space({"backbone": [[-1, 1, "Conv", [choice(8, 16), 3, 2]], row]})
    state = torch.get_rng_state()
    model = CostModel(space, 16)
    assert torch.equal(torch.get_rng_state(), state)  # it was built, not only described
    for arch in archs_of(space):
        costs, c1, c2, k = model.of(arch), arch["row0.0"], arch["row1.0"], arch["row1.1"]
        stem, side = 27 * c1, 9 - k
        assert costs["params"] == stem + 2 * c1 + c2 // 2 * c1 * k * k + c2 // 2 * c2 + c2
        assert costs["activations"] == 64 * c1 + side**2 * (c2 // 2 + c2)
        assert costs["flops"] == 2 * (64 * stem + side**2 * (c2 // 2 * c1 * k * k + c2 // 2 * c2))


def test_interactions_that_hide_are_found():
    @register()
    class Rare(nn.Module):
        """The kernels of two convolutions depend on one another in a corner; what is put out depends on neither."""

        def __init__(self, c1, c2, a, b, d, e):
            super().__init__()
            kernels = (3 if (a, b) == (1, 1) else 1), (3 if (d, e) == (1, 1) else 1)
            groups = zip(kernels, (1, 2), strict=True)
            self.m = nn.Sequential(*(nn.Conv2d(c1, c1, k, padding=k // 2, groups=g) for k, g in groups))
            self.out = nn.Conv2d(c1, c2, 1)

        def forward(self, x):
            return self.out(self.m(x))

    rare = [-1, 1, "Rare", [choice(8, 16), *[choice(0, 1, 2)] * 4]]
    space = Space({"backbone": [[-1, 1, "Conv", [8]], rare, [-1, 1, "Conv", [8]]]})
    model = CostModel(space, 8)
    for arch in archs_of(space):
        c2, *kernels = (arch[f"row1.{i}"] for i in range(5))
        wide = [kernels[:2] == [1, 1], kernels[2:] == [1, 1]]
        params = sum(8 * 8 // g * (9 if w else 1) + 8 for w, g in zip(wide, (1, 2), strict=True))
        assert model.of(arch)["params"] == (3 * 8 + 16) + params + (8 * c2 + c2) + (c2 * 8 + 16)


def test_signed_terms():
    groups = [frozenset(g) for g in ("abc", "cd", "ae", "f", "c")]
    rng = random.Random(0)
    parts = {(g, x): rng.random() for g in groups for x in itertools.product(range(2), repeat=len(g))}

    def f(x):
        return sum(parts[g, tuple(x[k] for k in sorted(g))] for g in groups)

    terms = signed_terms(groups)
    assert set(terms) <= {*groups, *map(frozenset, ("a", ""))}
    for values in itertools.product(range(2), repeat=6):
        x = dict(zip("abcdef", values, strict=True))
        total = sum(factor * f({k: x[k] if k in labels else 1 for k in x}) for labels, factor in terms.items())
        assert total == pytest.approx(f(x))


# The interface.


def test_interface(tiny):
    space = Space(TINY)
    assert tiny.names == ("params", "flops", "activations")
    assert tiny.labels == tuple(space.decisions)
    assert tiny.values == {k: d.values for k, d in space.decisions.items()}


def test_batch_is_of(tiny):
    space, rng = Space(TINY), random.Random(0)
    archs = [space.sample(rng) for _ in range(50)]
    indices = tiny.indices(archs)
    assert indices.shape == (50, len(tiny.labels))
    assert [[tiny.values[k][i] for k, i in zip(tiny.labels, row, strict=True)] for row in indices] == [
        [arch[k] for k in tiny.labels] for arch in archs
    ]
    costs = tiny.batch(indices)
    assert all(column.dtype == np.int64 and column.shape == (50,) for column in costs.values())
    assert [tiny.of(arch) for arch in archs] == [{k: v[i] for k, v in costs.items()} for i in range(50)]
    assert {k: v.shape for k, v in tiny.batch(tiny.indices([])).items()} == dict.fromkeys(tiny.names, (0,))


def test_archs_are_completed(tiny):
    space = Space(TINY)
    assert tiny.of({}) == tiny.of(space.upstream())
    assert tiny.of({"c3_2": "2"}) == tiny.of({**space.upstream(), "c3_2": 2}) != tiny.of({})
    with refused("'c3_2'", "valid are 0, 1, 2"):
        tiny.of({"c3_2": 7})


def test_batch_is_fast(nano):
    indices = np.stack([np.random.default_rng(0).integers(0, len(v), 20_000) for v in nano.values.values()], 1)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        nano.batch(indices)
        seconds.append(time.perf_counter() - start)
    assert len(indices) / min(seconds) > 100_000


# Expectation: of all archs, weighed by their probability.

COUPLED = {
    "backbone": [
        [-1, 1, "Conv", [choice(8, 16, label="w"), choice(1, 3), 2]],
        [-1, {"range": [1, 2, 1]}, "C3", [choice(8, 16, label="w"), True, {"e": choice(0.5, 1)}]],
        [-1, 1, "NASConv", [8, 3, 1, 1]],
    ]
}


def random_probs(model, seed=0, **kwargs):
    g = torch.Generator().manual_seed(seed)
    return {
        k: torch.rand(len(v), generator=g, dtype=torch.float64).softmax(0).requires_grad_()
        for k, v in model.values.items()
    }


@pytest.fixture(scope="module")
def coupled():
    return CostModel(Space(COUPLED), 16)


def test_expectation_is_the_average_over_all_archs(coupled):
    probs = random_probs(coupled)
    archs = list(archs_of(coupled.space))
    weights = np.array([np.prod([probs[k][coupled.values[k].index(v)].item() for k, v in a.items()]) for a in archs])
    assert weights.sum() == pytest.approx(1)
    expected = coupled.expected(probs)
    for name, costs in coupled.batch(coupled.indices(archs)).items():
        assert expected[name].shape == ()
        assert expected[name].item() == pytest.approx((costs * weights).sum(), rel=1e-12)


def test_expectation_has_the_gradient(coupled):
    probs = random_probs(coupled)
    for name in coupled.names:
        grads = torch.autograd.grad(coupled.expected(probs)[name], list(probs.values()), allow_unused=True)
        for (label, p), grad in zip(probs.items(), grads, strict=True):
            for i in range(len(p)):
                with torch.no_grad():
                    up, down = (
                        coupled.expected({**probs, label: p + sign * 0.01 * torch.eye(len(p), dtype=p.dtype)[i]})[name]
                        for sign in (1, -1)
                    )
                numeric = ((up - down) / 0.02).item()
                assert (0.0 if grad is None else grad[i].item()) == pytest.approx(numeric, rel=1e-9, abs=1e-6)


def test_certain_probabilities_give_the_arch(tiny):
    rng = random.Random(0)
    arch = tiny.space.sample(rng)
    probs = {k: torch.tensor([float(v == arch[k]) for v in values]) for k, values in tiny.values.items()}
    expected = {k: v.item() for k, v in tiny.expected(probs).items()}
    assert expected == tiny.of(arch)
    assert {k: v.item() for k, v in tiny.expected({}).items()} == tiny.of({})


def test_probabilities_that_do_not_fit(coupled):
    probs = random_probs(coupled)
    with refused("probabilities of 'row0.1'", "missing"):
        coupled.expected({k: p for k, p in probs.items() if k != "row0.1"})
    with refused("'w'", "(3,)", "2 values"):
        coupled.expected({**probs, "w": torch.ones(3) / 3})
    with refused("'x'", "no such label"):
        coupled.expected({**probs, "x": torch.ones(1)})


def test_least(coupled):
    costs = coupled.batch(coupled.indices(archs_of(coupled.space)))
    for name in coupled.names:
        assert coupled.of(coupled.least({name: 1}))[name] == costs[name].min()
    least = coupled.of(coupled.least({"flops": 1.0, "params": -200.0}))
    assert least["flops"] - 200 * least["params"] == (costs["flops"] - 200 * costs["params"]).min()


# What cannot be.


def test_image_that_does_not_fit():
    with refused("yolov5n.yaml: row 12 (Concat): does not fit its input (1x128x8x8, 1x128x7x7)"):
        CostModel(Space("yolov5n.yaml"), 100)
    with refused("row 5 (Detect)", "60 pixels"):
        CostModel(Space(TINY), 60)


def test_row_that_cannot_be_built_at_some_arch():
    with refused("row 1 (Conv): cannot be built"):
        CostModel(
            Space({"backbone": [[-1, 1, "Conv", [choice(8, 16)]], [-1, 1, "Conv", [8, 3, 1, 1, choice(1, 16)]]]}), 8
        )


@pytest.mark.parametrize("resolution", [64.5, "64", True, -64])
def test_resolution_that_is_none(resolution):
    with refused("resolution: must be positive integers"):
        CostModel(Space({**COUPLED, "resolution": choice(32, resolution)}), 32)


def test_more_combinations_than_can_be_tabled():
    rows = [[-1, 1, "Conv", [{"range": [8, 32, 8]}]] for _ in range(12)]
    concat = [[list(range(12)), 1, "Concat", [1]]]
    with refused("row 12 (Concat)", "16,777,216 combinations"):
        CostModel(Space({"backbone": [*rows, *concat]}), 8)


# Latency.


class PerOperation:
    """Milliseconds by what a submodule is: enough to tell whether it is counted, and counted once."""

    offset = 0.0

    def __init__(self):
        self.blocks = set()

    def parts(self, block):
        self.blocks.add(block.key)
        return parts_of(block.build_meta())


def parts_of(module):
    return {name: part_of(m) for name, m in module.named_modules()}


def part_of(m):
    return {nn.SiLU: 3.0, nn.ReLU: 2.0, nn.Conv2d: 10.0 + sum(p.numel() for p in m.parameters())}.get(type(m), 0.5)


@pytest.mark.parametrize("cfg", [TINY, SMALL, COUPLED], ids=["tiny", "small", "coupled"])
def test_latency_is_the_sum_of_the_parts(cfg):
    space, rng = Space(cfg), random.Random(0)
    given = PerOperation()
    model = CostModel(space, 64, given)
    assert model.names == ("params", "flops", "activations", "latency")
    assert len(given.blocks) < 150
    archs = [space.sample(rng) for _ in range(8)]
    batch = model.batch(model.indices(archs))["latency"]
    assert batch.dtype == np.float64
    for arch, in_batch in zip(archs, batch, strict=True):
        with torch.device("meta"):
            network = Network()
            network.build(read_config(space.freeze(arch)))
        assert (
            model.of(arch)["latency"]
            == in_batch
            == pytest.approx(sum(sum(parts_of(m).values()) for m in network.model))
        )
    probs = random_probs(model)
    assert model.expected(probs)["latency"].requires_grad


def test_least_latency():
    model = CostModel(Space(COUPLED), 16, PerOperation())
    costs = model.batch(model.indices(archs_of(model.space)))["latency"]
    assert model.of(model.least({"latency": 1}))["latency"] == pytest.approx(costs.min())
