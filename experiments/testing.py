"""What searchers, strategies, samplers, proxies and cost providers keep, as test classes for people who write one.

Subclass one with `make`, and let pytest find it::

    from experiments.testing import SearcherContract
    from mine import Mine

    class TestMine(SearcherContract):
        make = Mine
"""

from __future__ import annotations

import itertools
import json
import random
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from spaces import CostModel, Sizes, Space
from spaces.choices import Decision
from spaces.space import Arch

from .costs.ranges import parse_range
from .search import Domain, Objective, Search, Searcher, open_storage

# A space of 81 archs.
DECISIONS = {
    "depth": Decision("depth", (1, 2, 3)),
    "width": Decision("width", (8, 16, 24)),
    "act": Decision("act", ("relu", "silu", "none")),
    "k": Decision("k", (3, 5, 7)),
}
BOTH = (Objective("accuracy", True), Objective("flops"))
ALL = [dict(zip(DECISIONS, v, strict=True)) for v in itertools.product(*(d.values for d in DECISIONS.values()))]
BUDGET = 30
# A detector's space of 36 archs, for what needs networks.
CFG: dict[str, Any] = {
    "nc": 2,
    "anchors": 1,
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16], "label": "width"}, 3, 2]],
        [-1, {"range": [1, 3, 1], "label": "depth"}, "C3", [16]],
        [-1, 1, "Conv", [{"choice": [16, 24, 32]}, {"choice": [1, 3], "label": "k"}, 2]],
    ],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}


def flops(arch: Arch) -> float:
    return 10.0 + 7 * arch["depth"] + arch["width"] + (5 if arch["act"] == "silu" else 0) + arch["k"]


def accuracy(arch: Arch) -> float:
    """Between few of the archs and their cost there is a real choice to make."""
    right = 0.3 * arch["depth"] + 0.01 * arch["width"] + (0.25 if arch["act"] == "silu" else 0)
    return float(right - 0.02 * abs(arch["k"] - 5) - (0.2 if arch["act"] == "relu" and arch["depth"] == 3 else 0))


class Flops:
    """A cost that counts how often it is asked."""

    name, unit = "flops", ""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        self.asked += [tuple(a.values()) for a in archs]
        return [flops(a) for a in archs]


def domain(*ranges: str) -> Domain:
    return Domain(DECISIONS, [Flops()], [parse_range(r) for r in ranges])


def run(found: Search, most: int = 10**9, fails: Callable[[Arch], bool] = lambda arch: False) -> list[Arch]:
    """Ask and tell so many times; the archs."""
    archs: list[Arch] = []
    while len(archs) < most and (asked := found.ask()) is not None:
        archs.append(asked.arch)
        found.tell(asked, None if fails(asked.arch) else {"accuracy": accuracy(asked.arch)})
    return archs


class SearcherContract:
    """`make()` gives the searcher, whose searches are of `budget` archs: some more than it draws before it learns."""

    make: Callable[[], Searcher]
    budget = BUDGET

    def search(self, *ranges: str, objectives: Any = BOTH, budget: int | None = None, **kwargs: Any) -> Search:
        made, budget = self.make(), self.budget if budget is None else budget
        return Search(domain(*ranges), objectives[: made.most_objectives], made, budget=budget, **kwargs)

    def test_asks_valid_archs_that_differ_and_no_more_than_the_budget(self) -> None:
        archs = run(self.search())
        assert len(archs) == self.budget
        assert all(arch in ALL for arch in archs)
        assert len({tuple(a.values()) for a in archs}) == self.budget

    def test_asks_every_arch_of_a_space_that_is_smaller_than_the_budget(self) -> None:
        found = self.search("flops=:35", budget=60)
        inside = [a for a in ALL if flops(a) <= 35]
        assert 0 < len(inside) < 60
        archs = run(found)
        assert sorted(map(str, archs)) == sorted(map(str, inside))

    def test_asks_for_every_network_once(self) -> None:
        def canonical(arch: Arch) -> Arch:
            return {**arch, "k": 3} if arch["act"] == "none" else arch

        inside = {str(canonical(a)) for a in ALL if flops(canonical(a)) <= 36}
        made = self.make()
        twins = Domain(DECISIONS, [Flops()], [parse_range("flops=:36")], canonical=canonical)
        found = Search(twins, BOTH[: made.most_objectives], made, budget=60)
        archs = run(found)
        assert len(inside) < sum(flops(a) <= 36 for a in ALL)
        assert sorted(map(str, archs)) == sorted(inside)

    def test_evaluates_nothing_outside_of_the_ranges(self) -> None:
        low, high = 38.0, 42.0
        assert {low, high} <= {flops(a) for a in ALL}, "both ends are costs of archs"
        archs = run(self.search("flops=38:42", budget=9))
        assert len(archs) == 9
        assert all(low <= flops(a) <= high for a in archs)

    def test_takes_one_objective(self) -> None:
        archs = run(self.search(objectives=BOTH[:1]))
        assert len(archs) == self.budget

    def test_takes_three_objectives_or_says_so(self) -> None:
        objectives = (*BOTH, Objective("k", True))
        if self.make().most_objectives < 3:
            with pytest.raises(InputError, match=r"looks at \d objective"):
                Search(domain(), objectives, self.make(), budget=15)
            return
        found = self.search(objectives=objectives, budget=15)
        while (asked := found.ask()) is not None:
            found.tell(asked, {"accuracy": accuracy(asked.arch), "k": asked.arch["k"]})
        assert len(found.results()) == 15
        assert found.losses(found.results()).shape == (15, 3)

    def test_goes_on_after_failures(self) -> None:
        found = self.search()
        archs = run(found, fails=lambda arch: arch["act"] == "none")
        assert len(archs) == self.budget
        assert len({tuple(a.values()) for a in archs}) == self.budget, "a failed arch is not asked again"
        results = found.results()
        assert len(results) == self.budget
        assert {r.arch["act"] == "none" for r in results if r.values is None} <= {True}
        assert not any(r.arch["act"] == "none" for r in results if r.values is not None)

    def test_same_seed_same_archs(self) -> None:
        assert run(self.search(seed=3)) == run(self.search(seed=3))

    def test_interrupted_and_resumed_is_uninterrupted(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'study.db'}"
        archs = run(self.search(storage=open_storage(url)), self.budget // 2)
        interrupted = self.search(storage=open_storage(url))
        under_way = interrupted.ask()
        assert under_way is not None
        interrupted.abandon(under_way)  # what is under way when Ctrl-C comes
        archs += run(self.search(storage=open_storage(url)), self.budget // 4)
        resumed = self.search(storage=open_storage(url))
        archs += run(resumed)
        whole = self.search()
        assert archs == run(whole)
        assert [(r.number, r.arch, r.values) for r in resumed.results()] == [
            (r.number, r.arch, r.values) for r in whole.results()
        ]

    def test_more_trials_go_on_the_same_way(self, tmp_path: Path) -> None:
        storage = open_storage(f"journal:{tmp_path / 'study.log'}")
        few, more = self.budget // 2, self.budget * 4 // 3
        archs = run(self.search(budget=few, storage=storage))
        archs += run(self.search(budget=more, storage=storage))
        assert len(archs) == len({tuple(a.values()) for a in archs}) == more
        # As if a search that began with few had not been told to stop.
        whole = self.search(budget=few)
        whole.budget = more
        assert archs == run(whole)

    def test_an_arch_without_costs_is_a_failed_evaluation(self) -> None:
        class Fails(Flops):
            def __call__(self, archs: Sequence[Arch]) -> list[float]:
                if any(a["depth"] == 2 and a["k"] == 5 for a in archs):
                    raise RuntimeError("no such kernel")
                return super().__call__(archs)

        found = Search(Domain(DECISIONS, [Fails()]), BOTH[:1], self.make(), budget=12)
        run(found)
        results = found.results()
        assert len(results) == 12
        for r in results:
            fails = r.arch["depth"] == 2 and r.arch["k"] == 5
            assert (r.values is None) is fails
            assert r.record.get("error") == ("RuntimeError: no such kernel" if fails else None)


class ProviderContract:
    """`make(space, imgsz)` gives the provider."""

    make: Callable[..., Any]
    space, imgsz = Space(CFG), 32

    @property
    def some(self) -> list[Arch]:
        """Four archs, the first once more at the end."""
        decisions = self.space.decisions
        every = [
            dict(zip(decisions, v, strict=True)) for v in itertools.product(*(d.values for d in decisions.values()))
        ]
        return [every[i] for i in (17, 0, 35, 8, 17)]

    def test_says_what_it_is(self) -> None:
        provider = self.make(self.space, self.imgsz)
        assert provider.name
        assert isinstance(provider.unit, str)
        json.dumps(provider.settings)

    def test_batched_equals_one_by_one_and_again(self) -> None:
        provider, some = self.make(self.space, self.imgsz), self.some
        costs = provider(some)
        assert costs == [provider([arch])[0] for arch in some] == provider(some)
        assert self.make(self.space, self.imgsz)(some[::-1]) == costs[::-1]
        assert all(type(c) in (int, float) and c > 0 for c in costs)
        assert costs[0] == costs[4]

    def test_nothing_is_asked(self) -> None:
        assert self.make(self.space, self.imgsz)([]) == []

    def test_unknown_archs_are_refused(self) -> None:
        provider, arch = self.make(self.space, self.imgsz), self.some[0]
        for wrong in ([arch, {**arch, "widht": 8}], [{**arch, "width": 12}]):
            with pytest.raises(InputError, match="width"):
                provider(wrong)


class SamplerContract:
    """`make(sizes, seed)` gives the sampler."""

    make: Callable[..., Any]
    cfg: Any = CFG

    def test_draws_are_archs_and_depend_on_seed_and_number_alone(self) -> None:
        sizes = Sizes(CostModel(Space(self.cfg), 64))
        sampler = self.make(sizes, 3)
        first = [sampler(n) for n in range(20)]
        random.seed(1)
        again = self.make(sizes, 3)
        assert [again(n) for n in reversed(range(20))] == first[::-1]
        for arch in first:
            assert list(arch) == list(sizes.cost.space.decisions)
            assert sizes.cost.space.complete(arch) == arch
        candidates = sampler.candidates(0)
        assert candidates
        assert sampler.pick([float(i) for i in range(len(candidates))]) in range(len(candidates))


class StrategyContract:
    """`make` is the strategy's class; it searches the 36 backbones of `CFG` as classifiers, on 16 x 16 digits."""

    make: Any

    def searched(self, folder: Path, **options: Any) -> tuple[Any, Arch]:
        """A strategy that has searched for an epoch, and the arch that it exports."""
        import pytorch_lightning as pl

        from spaces.nni_compat import RawFormatModelSpace, SequentialExecutionEngine

        from .costs.budget import read_budget
        from .oneshot.base import Context
        from .oneshot.options import Options
        from .run.options import made
        from .supernets.rating import Rating
        from .tasks.task import open_task

        cfg = {"nc": 10, "backbone": CFG["backbone"]}
        few = {"epochs": 1, "batch": 256, "population": 4, "generations": 2, "cost_imgsz": 32}
        given = {"cfg": cfg, "data": "digits", "imgsz": 16, "device": "cpu", **few, **options}
        told = made(Options, Namespace(**given))
        _, task, accelerator = open_task(told)
        costs = task.costs(told.cost_imgsz)
        budget = read_budget(told, costs)
        pl.seed_everything(told.seed, verbose=False)
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        evaluator = task.evaluator(max_epochs=1, accelerator=accelerator, devices=1, **dict.fromkeys(quiet, False))
        rating = Rating(lambda: strategy.supernet, task, 8)
        strategy = self.make.from_options(told, Context(task, costs, budget, rating, folder))
        with rating:
            strategy(RawFormatModelSpace(task.space(), evaluator), SequentialExecutionEngine())
        return strategy, strategy.supernet.space.complete(strategy.oneshot_module.export())

    def test_exports_an_arch_that_freezes_to_what_the_supernet_is_at_it(self, tmp_path: Path) -> None:
        import torch

        strategy, arch = self.searched(tmp_path)
        module, net = strategy.oneshot_module, strategy.supernet.eval()
        module.activate(module.export())
        x = torch.rand(2, 3, 16, 16)
        assert torch.equal(net.freeze(arch).eval()(x), net(x))
        for label, distribution in module.export_probs().items():
            assert tuple(distribution) == net.space.decisions[label].values
            assert sum(distribution.values()) == pytest.approx(1)

    def test_same_seed_same_arch(self, tmp_path: Path) -> None:
        archs = [self.searched(tmp_path / name, seed=2)[1] for name in ("one", "other")]
        assert archs[0] == archs[1]

    def test_keeps_hard_limits(self, tmp_path: Path) -> None:
        space = Space({"nc": 10, "backbone": CFG["backbone"]})
        model = CostModel(space, 32, classifier=True)
        limit = model.of(Sizes(model).smallest)["params"]
        strategy, arch = self.searched(tmp_path, max_params=limit)
        assert strategy.budget.model.of(arch)["params"] <= limit


class ProxyContract:
    """`make` is the proxy: a function as ``staticmethod(mine)``, or an instance."""

    make: Any

    @pytest.mark.parametrize("kind", ["classifier", "detector"])
    def test_same_seed_same_score_and_the_network_stays_as_it_was(self, kind: str) -> None:
        import torch

        from models import Classifier, Model

        space = Space(CFG)
        cfg = space.freeze(space.upstream())
        torch.manual_seed(0)
        network = Classifier(cfg) if kind == "classifier" else Model(cfg)
        images, modules = torch.rand(4, 3, 64, 64), [str(m) for m in network.modules()]

        def loss(of: Any) -> Any:
            outputs = of(images)
            return sum(y.square().mean() for y in ([outputs] if kind == "classifier" else outputs))

        before = {name: value.clone() for name, value in network.state_dict().items()}
        scores = []
        for _ in range(2):
            torch.manual_seed(1)
            scores.append(self.make(network, images, loss))
        assert isinstance(scores[0], (int, float))
        assert abs(scores[0]) < float("inf")
        assert scores[0] == scores[1]
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert [str(m) for m in network.modules()] == modules
        assert all(m.training for m in network.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
        assert all(p.grad is None and p.requires_grad for p in network.parameters())


class HeadContract:
    """`row` is a detector's last row from its module on, such as ``["Detect", ["nc"]]``, and `top` the YAML's keys."""

    row: Sequence[Any]
    top: dict[str, Any] = {}  # noqa: RUF012  (read only)

    @property
    def space(self) -> Space:
        backbone = CFG["backbone"]
        return Space({"nc": 3, **self.top, "backbone": backbone, "head": [[[1, 2], 1, *self.row]]})

    def plain(self, arch: Arch | None = None) -> Any:
        """A plain detector with batch norms that do something, in eval mode."""
        import torch

        from models import Model

        space = self.space
        torch.manual_seed(0)
        model = Model(space.freeze(arch or {label: d.values[0] for label, d in space.decisions.items()}))
        for _ in range(2):
            model(torch.rand(2, 3, 64, 64))
        return model.eval()

    def test_learns_from_images_with_and_without_objects(self) -> None:
        import torch

        model, images = self.plain(), torch.rand(2, 3, 64, 64)
        loss = model.head.loss(64)
        some = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.6], [0, 2, 0.3, 0.3, 0.4, 0.2]])
        for targets in (some, some[:0]):
            for mode in (True, False):
                model.zero_grad()
                output = model.train(mode)(images)
                # Where there is an object, its mask is a square; a label map is of bands.
                square, halves = torch.ones(len(targets), 16, 16), torch.arange(2 * 256).view(2, 16, 16) // 128 % 3
                given = {"boxes": (), "masks": (square,), "labels": (halves,)}
                masks = given[model.head.finds]
                value, parts = loss(output if mode else output[1], targets, *masks)
                assert tuple(parts) == model.head.parts
                assert all(not part.requires_grad for part in parts.values())
                assert value.item() == pytest.approx(2 * float(sum(parts.values())), rel=1e-5)
                value.backward()
                found = [p.grad for p in model.parameters() if p.grad is not None]
                assert found
                assert all(torch.isfinite(g).all() for g in found)
                if mode and len(targets):
                    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    def test_detects_in_pixels(self) -> None:
        import torch

        from models.postprocess import non_max_suppression

        model = self.plain()
        decoded, logits = model(torch.rand(2, 3, 64, 96))
        assert isinstance(logits, list)
        if model.head.finds == "labels":
            stride = int(model.stride[0])
            assert decoded.shape == (2, model.head.nc, 64 // stride, 96 // stride)
            return
        head, behind = model.head, model.head.num_coefficients
        width = {"objectness": 5 + head.nc, "classes": 4 + head.nc, "detections": 6}[head.form]
        assert decoded.ndim == 3
        assert decoded.shape[::2] == (2, width + behind)
        scores = decoded[..., 4:5] if head.form == "detections" else decoded[..., 4:width]
        assert (scores >= 0).all()
        assert (scores <= 1).all()
        detections = non_max_suppression(decoded, 0.0, max_det=7, form=head.form, num_coefficients=behind)
        for found in detections:
            assert 1 <= len(found) <= 7
            assert (found[1:, 4] <= found[:-1, 4]).all()
            assert set(found[:, 5].tolist()) <= set(range(head.nc))
            assert found.shape[1] == 6 + behind
        if head.finds == "masks":
            assert head.prototypes(logits).shape[:2] == (2, behind)

    def test_modelled_costs_are_the_counted_ones(self) -> None:
        from models import count_flops, count_params

        costs, rng = CostModel(self.space, 64), random.Random(0)
        for _ in range(3):
            arch = self.space.sample(rng)
            model, said = self.plain(arch), costs.of(arch)
            assert (said["params"], said["flops"]) == (count_params(model), count_flops(model, 64))

    def test_every_slice_is_the_plain_network(self) -> None:
        from spaces.check_elastic import check_elastic

        for arch, problems in check_elastic(self.space.config.raw, num=1):
            assert not problems, arch

    def test_a_supernet_begins_with_trained_weights_class_by_class(self) -> None:
        import torch

        from models import Model
        from spaces import NASDETECTOR, slice_weights
        from spaces.warm_start import warm_start

        plain, net, x = self.plain(), NASDETECTOR(self.space.config.raw), torch.rand(1, 3, 64, 64)
        net.names = {0: "c", 1: "a", 2: "b"}
        done = warm_start(net, plain.config, plain.state_dict(), names=["a", "b", "c"])
        assert done.is_exact
        raw, state = slice_weights(net, done.arch)
        found = Model(raw)
        found.load_state_dict(state)
        own, other = plain(x)[1], found.eval()(x)[1]
        torch.testing.assert_close(found.head.of_classes(other, [1, 2, 0]), plain.head.of_classes(own, [0, 1, 2]))

    def test_a_searched_detector_is_carried_over(self) -> None:
        import torch

        from models import Model
        from optimizer import match_nas

        plain, x = self.plain(), torch.rand(1, 3, 64, 64)
        matched = match_nas(Model(plain.config.raw), plain)
        assert all(name.endswith(".anchors") for name in matched.initialised)  # they are each detector's own
        torch.testing.assert_close(matched.eval()(x)[0], plain(x)[0])

    @pytest.mark.parametrize("nms", [False, True])
    def test_an_exported_file_computes_the_same(self, nms: bool, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        from optimizer.exporters import NMS, export_onnx

        model, path = self.plain(), tmp_path / "detector.onnx"
        if nms and model.head.form in ("detections", "labels"):
            with pytest.raises(InputError, match=r"each object once|classes of pixels"):
                export_onnx(model, path, 64, nms=NMS())
            return
        done = export_onnx(model, path, 64, batch=2, nms=NMS(conf=0.01) if nms else None)  # compares
        assert (done.num_detections is not None) == nms
