"""One contract for every one-shot strategy, and what is particular to each."""

import itertools
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nni
import pytest
import pytorch_lightning as pl
import torch
import yaml
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableConv2d, MutableDropout
from torch import nn

from data import detection
from experiments import strategies
from experiments.oneshot.base import OneShotModule
from experiments.oneshot.proxyless import ProxylessModule
from experiments.oneshot.spos import FairModule, SinglePathModule, _batches, _fingerprint
from experiments.run import registry
from experiments.search import study_of
from experiments.tasks.evaluator import Classification, ClassificationModule, DataLoader, Detection
from experiments.tasks.loaders import search_loaders
from experiments.testing import StrategyContract
from experiments.training.engine import Engine
from experiments.training.options import Learning
from models import InputError, Model
from optimizer import calibrate_bn
from spaces import NASBACKBONE, NASDETECTOR, Space
from spaces.active import Active, Mixture
from tests.experiments import strategies_toys as toys
from tests.experiments.strategies_forked import forked
from tests.experiments.strategies_toys import STRATEGIES, Cost, Data, Planted, differences, images, search, separable
from tests.ports import free_port

SPACE = "tests/assets/tiny_nas.yaml"
# Rows with choices of their own: depth, width and kernel.
CHOSEN_ROWS = {
    "nc": 10,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, {"range": [1, 2, 1]}, "C3", [{"choice": [8, 16]}, True]],
        [-1, 1, "Conv", [16, {"choice": [1, 3]}, 2]],
    ],
}
SGD = {"optimizer": torch.optim.SGD, "learning_rate": 1.0}
WITH_TARGET = [name for name in STRATEGIES if name not in ("spos", "fairnas", "cream")]
LEARNS = [*WITH_TARGET, "cream"]  # something beside the weights
# Prices by index; the cheapest arch is all zeros.
PRICES = {"width": (1, 3), "k": (1, 2), "hidden": (1, 2, 3), "d": (0, 1, 2), "pool": (0, 1), "features": (1, 5)}
CHOICES = {
    "width": (4, 8),
    "k": (1, 3),
    "hidden": (1, 1.5, 2),
    "d": (0, 1, 2),
    "pool": ("max", "mean"),
    "features": (4, 6),
}


class Witness(pl.Callback):
    """What was active in each step, and the module before and after the training."""

    def on_train_start(self, trainer, module):
        self.active = []
        self.before = {k: v.clone() for k, v in module.state_dict().items()}

    def on_train_batch_end(self, trainer, module, *_):
        self.active.append(dict(module.active))

    def on_train_end(self, trainer, module):
        self.after = {k: v.clone() for k, v in module.state_dict().items()}

    @property
    def moved(self):
        return {k for k, v in self.before.items() if not torch.equal(v, self.after[k])}


class KeepSecond(pl.Callback):
    """The checkpoint that is there after two epochs, put aside."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            shutil.copy(self.path, self.path.with_name("second.ckpt"))


def is_architecture(key):
    return key.startswith(("alphas", "controller", "meta"))


@pytest.fixture(scope="class", params=STRATEGIES)
def name(request):
    return request.param


@pytest.fixture(scope="class")
def searched(name, tmp_path_factory):
    """A strategy that has searched for four epochs, what was seen of it, and its last checkpoint."""
    path, witness = tmp_path_factory.mktemp(name) / "last.ckpt", Witness()
    strategy = search(name, path, epochs=4, callbacks=[witness, KeepSecond(path)])
    return strategy, witness, path


class TestContract(StrategyContract):
    @pytest.fixture(autouse=True, params=registry.names("oneshot"))
    def registered(self, request):
        self.make = registry.load("oneshot", request.param)


class TestEveryStrategy:
    def test_exports_an_arch_that_freezes_to_what_the_supernet_is_at_it(self, searched):
        strategy, _, _ = searched
        module, net = strategy.oneshot_module, strategy.supernet.eval()
        arch = module.export()
        assert arch.keys() == CHOICES.keys()
        assert all(arch[label] in values for label, values in CHOICES.items())
        assert module.export() == arch
        module.activate(arch)
        x = images().x
        assert torch.equal(net.freeze(arch).eval()(x), net(x))
        for label, distribution in module.export_probs().items():
            assert tuple(distribution) == CHOICES[label]
            assert sum(distribution.values()) == pytest.approx(1)

    def test_activates_valid_paths_and_mixtures_only(self, searched):
        _, witness, _ = searched
        assert len(witness.active) == 4 * 2
        for active in witness.active:
            assert active.keys() == CHOICES.keys()
            for label, setting in active.items():
                n = len(CHOICES[label])
                if isinstance(setting, Mixture):
                    assert setting.weights.shape == (n,)
                    assert float(setting.weights.detach().sum()) == pytest.approx(1)
                    assert set(setting.paths) <= set(range(n))
                else:
                    assert 0 <= setting < n

    def test_trains_weights_and_architecture(self, name, searched):
        _, witness, _ = searched
        weights = {k for k in witness.before if k.startswith("training_module._model") and k.endswith("weight")}
        assert len(weights & witness.moved) > 0.7 * len(weights)
        architecture = {k for k in witness.before if is_architecture(k)}
        assert bool(architecture) is (name in LEARNS)
        assert architecture <= witness.moved

    def test_architecture_steps_leave_the_weights_alone(self, name, monkeypatch):
        monkeypatch.setattr(OneShotModule, "step_weights", lambda *_: torch.zeros(()))
        witness = Witness()
        search(name, callbacks=[witness])
        parameters = {k for k in witness.moved if k.endswith(("weight", "bias"))}
        assert all(map(is_architecture, parameters))

    def test_warmup_leaves_the_architecture_alone(self, name):
        if name not in LEARNS:
            pytest.skip("has no parameters of the architecture")
        witness = Witness()
        search(name, callbacks=[witness], warmup_epochs=1)
        assert witness.moved
        assert not any(map(is_architecture, witness.moved))

    @pytest.mark.parametrize(("seed", "good"), enumerate([(0, 2), (1, 0), (2, 1)]))
    def test_learns_a_planted_answer(self, name, seed, good):
        by_reward = name in ("enas", "proxyless-reinforce")
        settings = {"warmup_epochs": 3} if name in WITH_TARGET else {}
        options = {"data": separable(), "training": {"batch": 16}, "epochs": 40 if by_reward else 15}
        strategy = search(name, seed=seed, space=lambda: Planted(good), **options, **settings)
        assert tuple(strategy.oneshot_module.export().values()) == good

    def test_resumed_equals_uninterrupted(self, name, searched):
        strategy, _, whole = searched
        resumed = whole.with_name("second.ckpt")
        # Under another seed: everything comes from the checkpoint.
        again = search(name, resumed, epochs=4, seed=5, training={"checkpoint": resumed})
        states = [torch.load(path, weights_only=False) for path in (whole, resumed)]
        assert states[0]["epoch"] == 3
        assert differences(*states) == []
        assert again.oneshot_module.export() == strategy.oneshot_module.export()
        assert differences(again.supernet.state_dict(), strategy.supernet.state_dict()) == []

    def test_seed_decides(self, name, searched):
        _, witness, _ = searched
        same, other = Witness(), Witness()
        search(name, callbacks=[same])
        assert differences(same.before, witness.before) == []
        assert differences(same.active, witness.active[:2]) == []
        search(name, callbacks=[other], seed=1)
        assert differences(other.before, witness.before)
        assert differences(other.active, same.active)

    def test_keeps_hard_limits(self, name, searched):
        cost = Cost(CHOICES, PRICES)
        if name in WITH_TARGET:
            module = searched[0].oneshot_module
            for limit in range(4, 17):
                module.budget = Cost(CHOICES, PRICES, limit)
                arch = module.export()
                assert cost.of(arch) <= limit
                if limit == 4:
                    assert arch == cost.cheapest()
            module.budget = None
            return
        for limit in (4, 7):
            strategy = search(name, budget=Cost(CHOICES, PRICES, limit))
            assert all(cost.of(arch) <= limit for arch, _ in strategy.rated)
            assert strategy.oneshot_module.export() in [arch for arch, _ in strategy.rated]
            assert limit > 4 or strategy.oneshot_module.export() == cost.cheapest()

    def test_a_target_steers(self, name):
        if name not in WITH_TARGET:
            pytest.skip("its training has no preference among archs; limits bound its search")
        cost = Cost(CHOICES, PRICES, weight=5.0)
        strategy = search(name, epochs={"enas": 40, "proxyless-reinforce": 40}.get(name, 12), budget=cost)
        uniform = {label: torch.full((len(v),), 1 / len(v)) for label, v in CHOICES.items()}
        found, least = strategy.oneshot_module.probabilities(), cost.of(cost.cheapest())
        excess = [float(cost.penalty(p).detach()) / 5.0 - least for p in (found, uniform)]
        assert excess[0] < 0.4 * excess[1]

    def test_clips_the_gradient_of_the_weights(self, name):
        witness = Witness()
        search(name, callbacks=[witness], training={"batch": 6, **SGD}, gradient_clip_val=1e-3)
        trained = [k for k in witness.moved if k.endswith(("weight", "bias")) and not is_architecture(k)]
        step = torch.stack([(witness.after[k] - witness.before[k]).norm() for k in trained]).norm()
        assert float(step) == pytest.approx(1e-3, rel=1e-2)

    def test_takes_a_choice_of_one(self, name):
        strategy = search(name, space=lambda: Planted((0, 0), lambda _: [nn.Identity()]), data=separable(16))
        assert strategy.oneshot_module.export() == {"half0": 0, "half1": 0}

    @pytest.mark.parametrize("cfg", [SPACE, CHOSEN_ROWS], ids=["blocks", "rows"])
    def test_searches_a_yaml_on_the_proxy(self, name, cfg):
        strategy = search(name, space=lambda: NASBACKBONE(cfg, 10), data=images(8, 32, 10))
        arch = strategy.oneshot_module.export()
        assert Space(cfg).complete(arch) == arch

    @pytest.mark.parametrize("row", [["nc", "anchors"], ["nc"]], ids=["anchors", "anchor-free"])
    def test_searches_a_yaml_on_the_detection_loss(self, name, row, digits_yaml):
        data = detection(digits_yaml, 32, seed=0)
        loaders = search_loaders(data, 4, 0)
        pl.seed_everything(0, verbose=False)
        evaluator = Detection(data.names, 32, **loaders, **toys.trainer())
        raw = yaml.safe_load(Path(SPACE).read_text())
        raw["head"][-1][3] = row
        raw |= {"anchors": raw["anchors"] if "anchors" in row else None}
        strategy = toys.run(STRATEGIES[name](), NASDETECTOR(raw, data.nc), evaluator)
        arch = strategy.oneshot_module.export()
        assert type(Model(Space(raw).freeze(arch)).head).__name__ == ("Detect" if "anchors" in row else "DetectDFL")
        assert Space(raw).complete(arch) == arch


@pytest.fixture(scope="module")
def digits_yaml(digits):
    return digits(8, 32)


def module_of(name, space, **settings):
    """A strategy's module on a supernet, without a trainer, in float64."""
    torch.manual_seed(0)
    strategy = STRATEGIES[name](**settings)
    net = strategy.mutate_model(space)
    training = ClassificationModule()
    training.log = lambda *_, **__: None
    training.set_model(net)
    return strategy.configure_oneshot_module(training).double()


class Tiny(ModelSpace):
    """Two decisions, with batch norm."""

    def __init__(self):
        super().__init__()
        self.first = LayerChoice([nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.Tanh())], label="first")
        self.bn = nn.BatchNorm1d(3)
        self.second = LayerChoice([nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.SiLU())], label="second")

    def forward(self, x):
        return self.second(self.bn(self.first(x)))


class TestSecondOrder:
    RATE = 0.7

    @pytest.fixture
    def module(self):
        module = module_of("darts-2nd", Tiny())
        module.weights_optimizer = lambda: SimpleNamespace(param_groups=[{"lr": self.RATE}])
        return module

    @pytest.fixture
    def batch(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 8, 4, generator=generator, dtype=torch.float64)
        return {"train": (x[0], torch.arange(8) % 2), "val": (x[1], torch.arange(8) // 4)}

    def unrolled_loss(self, module, batch):
        """L_val(w - rate * grad_w L_train(w, alpha), alpha), equation 6; the weights are put back."""
        weights = list(module.model.parameters())
        module.mix(module.probabilities())
        step = torch.autograd.grad(module.loss(batch["train"], 0), weights)
        before = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, step, strict=True):
                w -= self.RATE * g
            loss = module.loss(batch["val"], 0)
            for w, old in zip(weights, before, strict=True):
                w.copy_(old)
        return float(loss)

    def test_is_the_numeric_gradient_of_the_unrolled_loss(self, module, batch):
        found = module.unrolled_gradient(batch, 0)
        h = 1e-5
        for alpha, gradient in zip(module.alphas, found, strict=True):
            numeric = torch.zeros_like(alpha)
            for i in range(len(alpha)):
                sides = []
                for sign in (1, -1):
                    alpha.data[i] += sign * h
                    sides.append(self.unrolled_loss(module, batch))
                    alpha.data[i] -= sign * h
                numeric[i] = (sides[0] - sides[1]) / (2 * h)
            assert torch.allclose(gradient, numeric, rtol=1e-2, atol=1e-6)
            # The second-order term is not lost in the tolerance.
        module.weights_optimizer = lambda: SimpleNamespace(param_groups=[{"lr": 0.0}])
        first_order = module.unrolled_gradient(batch, 0)
        assert not torch.allclose(torch.cat(found), torch.cat(first_order), rtol=0.1)

    def test_leaves_weights_and_statistics_as_they_were(self, module, batch):
        before = {k: v.clone() for k, v in module.state_dict().items()}
        module.unrolled_gradient(batch, 0)
        assert differences(dict(module.state_dict()), before) == []
        assert all(p.grad is None for p in module.model.parameters())


class TestGumbel:
    def test_temperature_falls_exponentially_from_first_to_last(self):
        seen = []

        class Temperatures(pl.Callback):
            def on_train_epoch_start(self, trainer, module):
                seen.append(module.temperature)

        search("gumbel", epochs=5, callbacks=[Temperatures()], temperature=(4.0, 0.25))
        assert seen == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25])

    def test_default_is_the_papers_schedule(self):
        module = module_of("gumbel", Tiny())
        module.trainer = SimpleNamespace(max_epochs=90, current_epoch=1)
        assert module.temperature == pytest.approx(5 * math.exp(-0.045), rel=1e-3)

    def test_draws_follow_the_probabilities(self):
        module = module_of("gumbel", Planted((0, 1)), temperature=(0.01, 0.01))
        module.trainer = SimpleNamespace(max_epochs=1, current_epoch=0)
        module.alphas[0].data = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
        counts = torch.zeros(3, dtype=torch.float64)
        for _ in range(2000):
            module.draw()
            counts += module.active["half0"].weights.detach().round()
        assert torch.allclose(counts / 2000, module.alphas[0].softmax(0), atol=0.03)


def computed(space):
    """A set that fills with (label, index) of the candidates that are computed."""
    seen = set()
    for choice in space.modules():
        if isinstance(choice, LayerChoice):
            for i, candidate in enumerate(choice):
                candidate.register_forward_hook(lambda *_, key=(choice.label, i): seen.add(key))
    return seen


class TestProxyless:
    DATA = (torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2)

    @pytest.fixture
    def module(self):
        return module_of("proxyless", Planted((0, 2), lambda _: [nn.Linear(4, 4) for _ in range(4)]))

    def test_computes_two_paths_a_decision_for_the_architecture_and_one_for_the_weights(self, module):
        seen = computed(module.model)
        module.step_alphas = lambda loss: loss.backward(inputs=list(module.alphas))
        for _ in range(5):
            seen.clear()
            module.arch_step({"val": self.DATA}, 0)
            assert sorted(label for label, _ in seen) == ["half0"] * 2 + ["half1"] * 2
            seen.clear()
            module.activate_for_weights()
            module.loss(self.DATA, 0)
            assert sorted(label for label, _ in seen) == ["half0", "half1"]

    def test_gradient_is_equation_4(self, module):
        module.step_alphas = lambda loss: loss.backward(inputs=list(module.alphas))
        for alpha in module.alphas:
            alpha.data = torch.randn(4, dtype=torch.float64)
        alphas = [alpha.detach().clone() for alpha in module.alphas]
        module.arch_step({"val": self.DATA}, 0)
        drawn = dict(module.active)
        for setting in drawn.values():
            gates = setting.weights.detach()
            assert sorted(gates.tolist()) == [0, 0, 0, 1]
            assert len(setting.paths) == 2
            assert int(gates.argmax()) in setting.paths
        # By brute force: the loss by the gates, and equation 4 on the pair.
        leaves = {label: s.weights.detach().clone().requires_grad_() for label, s in drawn.items()}
        module.active.update({label: Mixture(leaf, drawn[label].paths) for label, leaf in leaves.items()})
        by_gate = torch.autograd.grad(module.loss(self.DATA, 0), list(leaves.values()))
        for alpha, start, dg, setting in zip(module.alphas, alphas, by_gate, drawn.values(), strict=True):
            p = start[list(setting.paths)].softmax(0)
            expected = torch.zeros(4, dtype=torch.float64)
            for i, j in itertools.product(range(2), repeat=2):
                expected[setting.paths[i]] += dg[setting.paths[j]] * p[j] * (float(i == j) - p[i])
            assert torch.allclose(alpha.grad, expected)
            assert expected.abs().sum() > 0

    @pytest.mark.parametrize("weight", [0.0, 3.0])
    def test_values_that_were_not_sampled_keep_their_probability(self, weight):
        seen = []

        class Before(pl.Callback):
            def on_train_batch_start(self, trainer, module, *_):
                original, before = ProxylessModule.arch_step, module.probabilities()

                def arch_step(batch, batch_idx):
                    original(module, batch, batch_idx)
                    pairs = {k: m.paths for k, m in module.active.items()}
                    seen.append((before, module.probabilities(), pairs))

                module.arch_step = arch_step

        cost = Cost(CHOICES, PRICES, weight=weight)
        search("proxyless", epochs=5, callbacks=[Before()], budget=cost)
        changed = 0
        for before, after, pairs in seen:
            for label, pair in pairs.items():
                others = [i for i in range(len(before[label])) if i not in pair]
                assert torch.allclose(before[label][others], after[label][others], atol=1e-6)
                changed += not torch.allclose(before[label], after[label], atol=1e-4)
        assert changed > len(seen)

    def test_reinforce_takes_the_loss_against_its_moving_average(self):
        module = module_of("proxyless-reinforce", Planted((0, 2)))
        losses = iter([2.0, 4.0])
        module.loss = lambda *_: torch.tensor(next(losses), dtype=torch.float64)
        gradients = []
        module.step_alphas = lambda loss: gradients.append(torch.autograd.grad(loss, list(module.alphas)))
        module.arch_step({"val": None}, 0)
        assert all(not g.any() for g in gradients[0])  # nothing to compare with
        module.arch_step({"val": None}, 0)
        for label, alpha, g in zip(module.choices, module.alphas, gradients[1], strict=True):
            one_hot = nn.functional.one_hot(torch.tensor(module.active[label]), 3)
            assert torch.allclose(g, 2.0 * (one_hot - alpha.detach().softmax(0)))
        assert float(module.baseline) == pytest.approx(0.95 * 2 + 0.05 * 4)


def paths_of(module_class, choices):
    module = module_class(ClassificationModule(), Active(), choices)
    module.generator.manual_seed(1)
    return lambda: [tuple(path) for path in module.paths()]


class TestSinglePaths:
    CHOICES = {"a": (0, 1), "b": (0, 1, 2), "c": (0, 1, 2, 3), "one": (0,)}  # noqa: RUF012

    def test_uniform_paths_pass_a_chi_square_test(self):
        paths, n = paths_of(SinglePathModule, self.CHOICES), 9600
        drawn = [path for _ in range(n) for path in paths()]
        assert len(drawn) == n
        cells = list(itertools.product(*(range(len(v)) for v in self.CHOICES.values())))
        expected = n / len(cells)
        chi_square = sum((drawn.count(cell) - expected) ** 2 / expected for cell in cells)
        assert chi_square < 41.6  # 23 degrees of freedom, p = 0.01

    def test_fair_paths_take_every_value_once(self):
        paths = paths_of(FairModule, self.CHOICES)
        totals = [[0] * len(v) for v in self.CHOICES.values()]
        steps = 400
        for _ in range(steps):
            step = paths()
            assert len(step) == 4
            for counts, values, total in zip(zip(*step, strict=True), self.CHOICES.values(), totals, strict=True):
                found = [counts.count(i) for i in range(len(values))]
                assert max(found) - min(found) <= (0 if 4 % len(values) == 0 else 1)
                total[:] = [a + b for a, b in zip(total, found, strict=True)]
        assert [min(t) for t in totals[:1] + totals[2:]] == [2 * steps, steps, 4 * steps]
        # 4 passes over 3 values: one has one more, each equally often.
        assert all(abs(t - steps * 4 / 3) < 40 for t in totals[1])

    def test_fair_paths_are_not_always_the_same_pairs(self):
        paths = paths_of(FairModule, {"a": (0, 1, 2), "b": (0, 1, 2)})
        assert len({path for _ in range(30) for path in paths()}) == 9

    def test_a_fair_step_is_one_update_down_the_sum_of_its_paths(self):
        def silent():
            return Planted((0, 2), lambda _: [nn.Identity() for _ in range(3)])

        # Inputs of zeros: the bias alone is trained.
        witness, data = Witness(), Data(torch.zeros(12, 8), torch.zeros(12, dtype=torch.long))
        strategy = search("fairnas", callbacks=[witness], space=silent, data=data, training={"batch": 6, **SGD})
        assert strategy.oneshot_module.trainer.global_step == 1
        # Each of the three paths has the gradient of softmax - one-hot.
        bias = "training_module._model.classifier.bias"
        start = witness.before[bias]
        step = start.softmax(0) - torch.tensor([1.0, 0.0])
        assert torch.allclose(witness.after[bias], start - 3 * step)

    def test_calibration_is_that_of_a_slice(self):
        strategy = search("spos")
        arch = {"width": 4, "k": 3, "hidden": 1.5, "d": 1, "pool": "max", "features": 4}
        found = strategy.calibrated(arch).state_dict()
        slice_of = strategy.supernet.freeze(arch)
        expected = calibrate_bn(slice_of, [x for x, _ in _batches(strategy.loaders[0](), 20)]).state_dict()
        statistics = [k for k in found if "running" in k]
        assert len(statistics) == 8
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert any(not torch.equal(found[key], slice_of.state_dict()[key]) for key in statistics)

    def test_the_supernet_is_as_trained_after_a_rating(self):
        strategy = search("spos")
        before = {k: v.clone() for k, v in strategy.supernet.state_dict().items()}
        strategy.minus_loss(strategy.rated[0][0])
        assert strategy.oneshot_module.training_module.model is strategy.supernet
        assert all(torch.equal(v, before[k]) for k, v in strategy.supernet.state_dict().items())

    def test_a_search_that_was_killed_rates_nothing_again(self, tmp_path):
        whole, asked = search("spos", storage=study_of(tmp_path / "whole")), []
        assert len({tuple(arch.values()) for arch, _ in whole.rated}) == len(whole.rated) > 8

        class KilledError(BaseException):
            pass

        def rate(arch):
            asked.append(arch)
            if len(asked) == 10:
                raise KilledError
            return ratings[tuple(arch.values())]

        ratings = {tuple(arch.values()): rating for arch, rating in whole.rated}
        with pytest.raises(KilledError):
            search("spos", storage=study_of(tmp_path / "cut"), rate=rate)
        again = search("spos", storage=study_of(tmp_path / "cut"), rate=rate)
        assert again.rated == whole.rated
        assert len(asked) == len(whole.rated) + 1
        assert again.oneshot_module.export() == max(whole.rated, key=lambda pair: pair[1])[0]

    def test_ratings_of_another_supernet_are_left_behind(self, tmp_path):
        url = study_of(tmp_path)
        first = search("spos", storage=url, rate=lambda arch: 1.0)
        assert {rating for _, rating in first.rated} == {1.0}
        again = search("spos", storage=url, rate=lambda arch: 2.0)
        assert {rating for _, rating in again.rated} == {1.0}
        other = search("spos", storage=url, rate=lambda arch: 3.0, seed=1)
        assert {rating for _, rating in other.rated} == {3.0}

    def test_ratings_in_the_file_of_earlier_versions_are_known(self, tmp_path):
        whole, asked = search("spos"), []
        lines = [json.dumps([json.dumps(arch), rating]) for arch, rating in whole.rated[:9]]
        head = _fingerprint(whole.supernet.state_dict())
        (tmp_path / "ratings.txt").write_text("\n".join([head, *lines, '["half a li']))
        ratings = {tuple(arch.values()): rating for arch, rating in whole.rated}
        rate = lambda arch: asked.append(arch) or ratings[tuple(arch.values())]  # noqa: E731
        again = search("spos", rate=rate, earlier=tmp_path / "ratings.txt")
        assert again.rated == whole.rated
        assert len(asked) == len(whole.rated) - 9


class Module(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(separable(16), batch_size=8)

    val_dataloader = train_dataloader


@pytest.mark.parametrize("name", ["darts", "enas", "spos"])
def test_takes_a_datamodule(name):
    # Fault B of NNI: its ENAS trains no weights then, and does not say so.
    witness = Witness()
    evaluator = Classification(datamodule=Module(), **toys.trainer(1, [witness]))
    toys.run(STRATEGIES[name](), Planted((0, 2)), evaluator)
    assert any(key.endswith("classifier.weight") for key in witness.moved)


class Refused(ModelSpace):
    def __init__(self, make):
        super().__init__()
        self.block = make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InputChoice(2, None, label="input"),
            "'input' is a CategoricalMultiple; one-shot strategies take choices",
        ),
        (lambda: MutableDropout(nni.choice("p", [0.1, 0.5])), "'block' is a MutableDropout with a choice"),
        (lambda: MutableConv2d(3, 4, 1, bias=nni.choice("bias", [True, False])), "'block': Unsupported mutable arg"),
    ],
)
def test_refuses_what_supernets_do_not_know(make, message):
    with pytest.raises(InputError) as refusal:
        strategies.DARTS().mutate_model(Refused(make))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


LINEAR = {"candidates": lambda _: [nn.Linear(4, 4) for _ in range(3)]}


def distributed(name, engine, rank, port, path):
    """One of two processes on its share of the batches, or the only one on all of them; leaves its state dict."""
    world, data = 2 if port else 1, separable(48)
    if port:
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"})
        os.environ.update({"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)})
    # The generator of another process must not matter, nor the weights that it starts from.
    pl.seed_everything(rank, verbose=False)
    parallel = {"strategy": "ddp", "devices": world, "use_distributed_sampler": False} if port else {}
    share = Data(data.x[rank::world], data.y[rank::world])
    evaluator = toys.evaluator(share, toys.trainer(2, **parallel), 12 // world, shuffle=False, **SGD)
    strategy = STRATEGIES[name]()
    if engine:
        strategy.weights_engine = Engine(Learning(lr0=0.1, recipe="yolov5"), 12, sums_loss=False)
    toys.run(strategy, Planted((0, 0), **LINEAR), evaluator)
    torch.save({"state": strategy.oneshot_module.state_dict(), "arch": strategy.oneshot_module.export()}, path)


@pytest.mark.parametrize("engine", [False, True], ids=["evaluator", "engine"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_processes_equal_one_on_both_their_batches(name, engine, tmp_path):
    paths = [tmp_path / name for name in ("first", "second", "only")]
    port = free_port()
    jobs = [(name, engine, 0, port, paths[0]), (name, engine, 1, port, paths[1]), (name, engine, 0, None, paths[2])]
    assert forked(tmp_path / "log", distributed, *jobs) == [0, 0, 0], (tmp_path / "log").read_text()
    first, second, only = (torch.load(path) for path in paths)
    assert differences(first["state"], second["state"]) == []
    for key, value in only["state"].items():
        # Of differences in the last digit of the rewards Adam makes steps of full size.
        if not key.startswith(("controller", "meta")):
            assert torch.allclose(first["state"][key], value, atol=1e-5, equal_nan=True), key
    assert first["arch"] == second["arch"] == only["arch"]
