"""NNI's hub spaces, and a user's own, by the one-shot strategies: trained two steps, an arch exported, cut out."""

import itertools
import random

import pytest
import torch

from experiments.run import registry
from models import InputError
from spaces.hub import HUB, NetworkSpace
from spaces.supernet import activate, decisions, make_supernet
from tests.experiments.strategies_toys import images, search
from tests.random_state import randomized

CELLS = "(width=4, num_cells=3)"
# A small space of each class of the hub that is one for supernets.
SPACES = {
    "MobileNetV3": "(base_widths=(8,)*9, width_multipliers=(0.5, 1.0), expand_ratios=(1., 2.), depth_range=(1, 2))",
    "NasBench201": "(stem_out_channels=4, num_modules_per_stack=1)",
    "ShuffleNet": "",
    "ProxylessNAS": "(width_mult=0.1)",
    "AutoFormer": "(search_embed_dim=(16, 24), search_num_heads=(1, 2), search_depth=(1, 2), patch_size=8)",
    **dict.fromkeys(("DARTS", "ENAS", "NASNet", "PNAS", "AmoebaNet"), CELLS),
}
SPACES["MobileNetV3"] = SPACES["MobileNetV3"].replace("(8,)*9", str((8,) * 9))
FIT = [name for name in registry.names("oneshot") if not registry.load("oneshot", name).of_yamls]
PAIRS = [*itertools.product(FIT, SPACES)]
# Of all pairs, every strategy, and every space of another kind, at least once; the others are slow.
QUICK = [
    ("spos", "MobileNetV3"),
    ("darts-2nd", "NasBench201"),
    ("fairnas", "ShuffleNet"),
    ("proxyless", "ProxylessNAS"),
    ("darts", "AutoFormer"),
    ("gumbel", "DARTS"),
    ("enas", "ENAS"),
    ("cream", "NASNet"),
]
FEW = {"spos": {"evaluations": 2}, "fairnas": {"evaluations": 2}}


def space_of(name, arguments=None):
    return NetworkSpace(f"nni:{name}{SPACES[name] if arguments is None else arguments}", 3, 32)


@pytest.fixture
def x():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_strategies_that_need_yamls():
    assert {*registry.names("oneshot")} - {*FIT} == {"bignas", "ofa"}
    assert {*HUB} - {*SPACES} == {"NasBench101"}


def test_quick_pairs_have_all_strategies():
    assert {strategy for strategy, _ in QUICK} == {*FIT}


def check(strategy, name, x):
    space = space_of(name)
    data = images(num=8, side=32)  # 4 for the weights and 4 for the architecture: two steps
    found = search(strategy, space=space.build, data=data, training={"batch": 2}, **FEW.get(strategy, {}))
    arch = space.complete(found.oneshot_module.export())
    supernet = found.supernet.eval()
    path, network = activate(supernet, arch)(x), supernet.freeze(arch).eval()
    assert torch.allclose(network(x), path, atol=1e-6)
    plain = space.plain(arch, network).eval()
    assert torch.allclose(plain(x), path, atol=1e-6)
    assert not any("Mixed" in type(m).__name__ for m in plain.modules())


@pytest.mark.parametrize(("strategy", "name"), QUICK)
def test_search_hands_over_what_the_supernet_is_at_the_arch(strategy, name, x):
    check(strategy, name, x)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "name"), [pair for pair in PAIRS if pair not in QUICK])
def test_every_strategy_searches_every_space(strategy, name, x):
    check(strategy, name, x)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, None) for name in ("MobileNetV3", "AutoFormer")),
        ("ENAS", "(width=(4, 8), num_cells=(6, 7))"),  # of depths, widths and loose ends
        ("DARTS", "(width=4, num_cells=3, dataset='imagenet')"),
    ],
)
def test_paths_are_what_archs_freeze_to(name, arguments, x):
    space = space_of(name, arguments)
    supernet = randomized(make_supernet(space.build()), 0).eval()
    rng = random.Random(0)
    outputs = []
    for arch in (space.sample(rng) for _ in range(3)):
        with torch.no_grad():
            outputs.append(activate(supernet, arch)(x))
            assert torch.allclose(supernet.freeze(arch).eval()(x), outputs[-1], rtol=1e-4, atol=1e-5)
    assert len({tuple(y.flatten().tolist()) for y in outputs}) > 1
    assert [*decisions(supernet)] != []


def test_stages_of_one_cell_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"'stages.0' may have one cell or more.*num_cells=\(8, 12\)") as e:
        make_supernet(space_of("NASNet", "(width=4, num_cells=(4, 8))").build())
    assert "\n" not in str(e.value)
