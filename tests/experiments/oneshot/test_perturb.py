"""Deciding by measurement: what stays, what is undecided, what the limits leave, and what it leaves of the supernet."""

import pytest
import torch
from torch import nn

from experiments.oneshot.perturb import decide
from tests.experiments.strategies_toys import Cost, Planted, images, search, separable

NAMES = ("darts", "gumbel", "proxyless")


class Alike(Planted):
    """Every candidate lets its half through: which of them it is does not matter."""

    def __init__(self):
        super().__init__((0, 0), candidates=lambda _: [nn.Identity() for _ in range(3)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("good", [(0, 2), (1, 0)])
def test_finds_what_is_planted_whatever_the_probabilities_say(name, good):
    """They say nothing: the architecture does not learn."""
    given = {"space": lambda: Planted(good), "data": separable(512), "training": {"batch": 16}}
    strategy = search(name, epochs=4, derive="perturb", arc_learning_rate=0.0, **given)
    module = strategy.oneshot_module
    arch = module.export()
    assert tuple(int(arch[f"half{n}"]) for n in (0, 1)) == good
    assert module.decided.undecided == ()
    assert {label: module.choices[label][i] for label, i in module.active.items()} == arch, "the supernet is set to it"


def test_what_cannot_be_told_apart_is_undecided_and_the_cheaper_one_is_taken():
    choices = {"half0": (0, 1, 2), "half1": (0, 1, 2)}
    prices = Cost(choices, {"half0": (3, 1, 1.5), "half1": (1, 2, 3)})
    given = {"space": Alike, "data": separable(512), "training": {"batch": 16}}
    strategy = search("darts", derive="perturb", cost=prices.of, **given)
    arch, undecided = strategy.oneshot_module.decided
    assert undecided == ("half0", "half1")
    assert max(prices.prices[label][value] for label, value in arch.items()) < 3, "the dearest is never the cheaper one"


@pytest.mark.parametrize("limit", [2, 3])
def test_limits_are_kept(limit):
    choices = {"half0": (0, 1, 2), "half1": (0, 1, 2)}
    prices = Cost(choices, {"half0": (1, 2, 3), "half1": (1, 2, 3)}, limit)
    given = {"space": lambda: Planted((2, 2)), "data": separable(512), "training": {"batch": 16}}
    strategy = search("darts", epochs=2, derive="perturb", budget=prices, **given)
    assert prices.of(strategy.oneshot_module.export()) <= limit


def test_measuring_leaves_no_trace_and_is_repeatable():
    strategy = search("darts", epochs=1, data=images(24), training={"batch": 4})
    module, batches = strategy.oneshot_module, [*strategy.loaders[1]()]
    before = {k: v.clone() for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    drawn, numbers = module.generator.get_state(), torch.get_rng_state()
    first = decide(module, batches)
    assert torch.equal(torch.get_rng_state(), numbers)
    module.generator.set_state(drawn)
    assert decide(module, batches) == first
    assert [k for k, v in before.items() if not torch.equal(module.state_dict()[k], v)] == []
    assert set(first.arch) == set(module.choices)


def test_weights_are_tuned_between_decisions():
    given = {"data": images(24), "training": {"batch": 4, "optimizer": torch.optim.SGD, "learning_rate": 0.1}}
    tuned, still = (search("darts", derive="perturb", tuning=n, **given) for n in (1, 0))
    a, b = (dict(s.supernet.named_parameters()) for s in (tuned, still))
    assert any(not torch.equal(a[k], b[k]) for k in a)
