"""Progressive shrinking: what is open when, who teaches, what a phase begins with; on classifiers and detectors."""

import copy
import itertools
import os
import random
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn

from experiments.oneshot import ofa
from experiments.oneshot.ofa import OFAModule, largest_of
from experiments.oneshot.phases import Phase, counts_of, default_phases, read_phases
from experiments.run.callbacks import LastCheckpoint
from experiments.strategies import OFA
from experiments.tasks.evaluator import Classification, DataLoader
from experiments.training.distillation import SoftLabels
from experiments.training.engine import Engine
from experiments.training.options import Learning
from experiments.training.schedule import Schedule, starts_of
from models import InputError, Model
from spaces import NASBACKBONE, NASDETECTOR, CostModel, Sizes, Space, slice_weights
from spaces.kernel_transform import is_transform
from tests.experiments.oneshot.test_bignas import DETECTOR, Watch, classification, detection, indices
from tests.experiments.strategies_forked import forked
from tests.experiments.strategies_toys import Data, differences, images, run, trainer
from tests.ports import free_port

CFG = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16]}, 3, 2]],
        [-1, {"choice": [1, 2, 3]}, "MBConv", [24, {"choice": [3, 5]}, 1, {"choice": [1, 2, 3]}]],
    ],
}
BIG = {"row0.0": 16, "row1.number": 3, "row1.1": 5, "row1.3": 3}
PHASES = [
    Phase("largest", share=2),
    Phase("kernel", {"kernel": None}),
    Phase("depth", {"depth": 2}, 2),
    Phase("depth", {"depth": None}, 2),
    Phase("width", {"width": None}, 4, sort=True),
]


@pytest.fixture(scope="module")
def cost():
    return CostModel(Space(CFG), 16)


@pytest.fixture(scope="module")
def built():
    """A supernet, whose copies share what is known of its rows."""
    torch.manual_seed(0)
    return NASBACKBONE(CFG)


@pytest.fixture
def train(cost, built):
    """Train by OFA: (cfg, settings of the strategy, of the evaluator) -> strategy."""

    def made(cfg=CFG, evaluator=None, seed=0, engine=None, **settings):
        strategy = OFA(cost=cost if cfg is CFG else None, seed=seed, **{"phases": PHASES, **settings})
        strategy.weights_engine = engine
        make = detection if "head" in cfg else classification
        network = (NASDETECTOR if "head" in cfg else NASBACKBONE)(cfg) if cfg is not CFG else copy.deepcopy(built)
        torch.manual_seed(seed)
        return run(strategy, network, make(**{"epochs": 2, "num": 12, **(evaluator or {})}))

    return made


class TestPhases:
    def test_by_default_they_are_those_of_the_paper(self):
        found = [(p.name, p.opens, p.subnets, p.share, p.rate, p.sort) for p in default_phases(Space(CFG))]
        assert found == [
            ("largest", {}, 1, 180, 1.0, False),
            ("kernel", {"kernel": None}, 1, 125, 0.4, False),
            ("depth 2", {"depth": 2}, 2, 25, 0.03, False),
            ("depth 3", {"depth": None}, 2, 125, 0.1, False),
            ("width 2", {"width": 2}, 4, 25, 0.03, True),
            ("width 3", {"width": None}, 4, 125, 0.1, True),
        ]
        plain = Space({"nc": 3, "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}]]]})
        assert [p.name for p in default_phases(plain)] == ["largest", "width 2"]

    def test_what_is_open_stays_open(self):
        counts = counts_of(PHASES, Space(CFG))
        labels = ["row0.0", "row1.number", "row1.1", "row1.3"]
        assert [[c[label] for label in labels] for c in counts] == [
            *([1, 1, 1, 1], [1, 1, 2, 1]),
            *([1, 2, 2, 1], [1, 3, 2, 1], [2, 3, 2, 3]),
        ]

    def test_the_largest_values_come_first(self, cost):
        sizes = Sizes(cost)
        assert [largest_of(sizes, "row1.3", n) for n in (1, 2, 3)] == [[3], [3, 2], [3, 2, 1]]

    def test_are_read_from_a_yaml(self, tmp_path):
        (tmp_path / "phases.yaml").write_text(
            "- {share: 3}\n- {name: all, open: {kernel: all, number: 2}, subnets: 2, rate: 0.5}\n"
            "- {open: {depth: all, e: 2}}\n- {open: {width: all}, sort: false}\n"
        )
        assert read_phases(tmp_path / "phases.yaml", Space(CFG)) == [
            Phase("largest", {}, 1, 3.0, 1.0, False),
            Phase("all", {"kernel": None, "number": 2}, 2, 1.0, 0.5, False),
            Phase("depth all e 2", {"depth": None, "e": 2}, 1, 1.0, 1.0, True),
            Phase("width all", {"width": None}, 1, 1.0, 1.0, False),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({}, "right would be a list of phases"),
            ([3], "phase 1: it is no mapping; right would be keys of name, open"),
            ([{}, {"opens": 1}], "phase 2: 'opens' means nothing; right would be keys of"),
            ([{"open": ["k"]}], "phase 1: open: ['k']: right would be a mapping"),
            ([{"open": {"heads": 2}}], "this space has no 'heads'; right would be one of kernel, depth, width, c2"),
            ([{"open": {"depth": 0}}], "phase 1: open: depth: 0: right would be all, or"),
            ([{"subnets": True}], "phase 1: subnets: True: right would be 1 or more"),
            ([{"share": 0}], "phase 1: share: 0: right would be a number above 0"),
            ([{"rate": "big"}], "phase 1: rate: big: right would be a number above 0"),
            ([{"sort": 1}], "phase 1: sort: 1: right would be true or false"),
            (
                [{"open": {"kernel": "all", "width": "all", "depth": 2}}],
                "of the 3 values of 'row1.number' 2 are trained at the end; right would be a phase with depth: all",
            ),
        ],
    )
    def test_bad_ones_are_refused(self, content, message, tmp_path):
        path = tmp_path / "phases.yaml"
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(InputError) as refusal:
            read_phases(path, Space(CFG))
        assert message in str(refusal.value)
        assert str(refusal.value).startswith(f"--phases {path}")
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("count", [0, 2, 5, 9, 100])
    def test_each_begins_where_the_shares_before_it_end(self, count):
        starts = starts_of([180, 125, 25, 125], count)
        assert starts[0] == 0
        assert starts == sorted(starts)
        if count == 100:
            assert starts == [0, 40, 67, 73]
        if count >= 4:
            assert len({*starts}) == 4
            assert starts[-1] < count

    def test_each_has_a_learning_rate_of_its_own_that_decays(self):
        schedule = Schedule(epochs=4, batches=5, lr0=0.1, lrf=0.1, warmup=0, cycles=((0, 1.0), (10, 0.5), (15, 0.2)))
        rates = [schedule.at(i).lr for i in (0, 5, 9, 10, 14, 15, 19)]
        assert rates == pytest.approx([0.1, 0.1 * 0.55, 0.1 * 0.19, 0.05, 0.05 * 0.28, 0.02, 0.02 * 0.28])
        assert Schedule(epochs=4, batches=5, warmup=0).at(7).lr == pytest.approx(0.01 * (1 - 0.99 / 4))


def test_subnets_of_what_is_open_are_trained_phase_by_phase(train, monkeypatch):
    watch = Watch(monkeypatch)
    train(evaluator={"num": 24})  # 12 steps: two a phase, of the first four
    large, decisions = indices(CFG, BIG), Space(CFG).decisions
    counts = counts_of(PHASES, Space(CFG))
    seen = iter(watch.seen)
    for phase, (each, steps) in enumerate(zip((1, 1, 2, 2, 4), (4, 2, 2, 2, 2), strict=True)):
        for active in itertools.islice(seen, each * steps):
            for label, index in active.items():
                open_values = len(decisions[label].values) - counts[phase][label]
                assert index >= open_values
                if not phase:
                    assert active == large
    assert next(seen, None) is None


def test_all_that_is_open_is_drawn(train):
    module = train(evaluator={"num": 4, "epochs": 1}).oneshot_module
    for phase, counts in enumerate(module.counts):
        module.phase = phase
        drawn = [module.draw(random.Random(i)) for i in range(60)]
        for label, count in counts.items():
            assert {arch[label] for arch in drawn} == set(largest_of(module.sizes, label, count)), (phase, label)


def test_the_largest_network_as_the_first_phase_leaves_it_teaches(train, monkeypatch):
    """Its outputs, beside the labels; nothing that is learnt later changes them."""
    left, lessons, students = [], [], []
    enter, call, labels = OFAModule._enter, SoftLabels.__call__, Classification().module.__class__.training_step

    def watched(self, phase):
        if phase == 1:
            left.append(self.model.freeze(BIG))
        enter(self, phase)

    def seen(self, student, lesson):
        lessons.append(lesson)
        return call(self, student, lesson)

    def counted(self, batch, batch_idx):
        students.append(batch)
        return labels(self, batch, batch_idx)

    monkeypatch.setattr(OFAModule, "_enter", watched)
    monkeypatch.setattr(SoftLabels, "__call__", seen)
    monkeypatch.setattr(Classification().module.__class__, "training_step", counted)
    strategy = train(evaluator={"sgd": 0.1})
    (teacher,) = left
    assert len(lessons) == 1 + 2 + 2 + 4
    assert len(students) == 2 + len(lessons), "all learn from labels too"
    x = images(12, 16).x
    batches = [teacher.train()(x[i : i + 4]).detach() for i in (0, 4, 8)]
    for lesson, place in zip(lessons, (2, 0, 0, 1, 1, 2, 2, 2, 2), strict=True):
        torch.testing.assert_close(lesson, batches[place])
        assert not lesson.requires_grad
    now = strategy.supernet.freeze(BIG).train()(x[:4])
    assert not torch.allclose(now, batches[0], atol=1e-3)
    assert not any("teacher" in key for key in strategy.oneshot_module.state_dict())


def test_matrices_of_kernels_learn_once_kernels_are_open(train):
    strategy = train(evaluator={"sgd": 0.1})
    moved = [not torch.equal(p, torch.eye(len(p))) for n, p in strategy.supernet.named_parameters() if is_transform(n)]
    assert len(moved) == 3
    assert any(moved)
    raw, state = slice_weights(strategy.supernet, {**BIG, "row1.1": 3})
    assert not any(map(is_transform, state))
    assert raw["backbone"][1][3][1] == 3
    unopened = train(phases=[Phase("largest")], evaluator={"sgd": 0.1}).supernet
    assert all(torch.equal(p, torch.eye(len(p))) for n, p in unopened.named_parameters() if is_transform(n))


def test_before_widths_channels_are_ordered_with_all_that_goes_with_them(train, monkeypatch):
    """Gradients of an unfinished step, momentum and the average of the weights; no function is changed."""
    order, compared = ofa.order_channels, []

    def watched(supernet, also=()):
        if not also:  # before the training, to see whether they can be
            return order(supernet)
        names = {name for name, _ in supernet.named_parameters()}
        sets = [dict(supernet.state_dict()), *map(dict, also)]
        places = {k: torch.arange(v.numel()).view(v.shape) for k, v in sets[0].items()}
        before = [{k: v.clone() for k, v in tensors.items()} for tensors in sets]
        x = images(4, 16).x
        small = {**BIG, "row1.1": 3, "row1.number": 1}
        outputs = [supernet.freeze(arch).eval()(x) for arch in (BIG, small)]
        order(supernet, also=[*also, places])
        for arch, y in zip((BIG, small), outputs, strict=True):
            torch.testing.assert_close(supernet.freeze(arch).eval()(x), y, rtol=1e-5, atol=1e-5)
        moved = {k for k, v in places.items() if not torch.equal(v.flatten(), torch.arange(v.numel()))}
        for tensors, old in zip(sets, before, strict=True):
            for key in tensors:
                torch.testing.assert_close(tensors[key], old[key].take(places[key].clone()), rtol=0, atol=0)
        weights = [k for k in moved & names if "conv.weight" in k]
        compared.append(
            [sum(not torch.equal(t[k], b[k]) for k in weights if k in t) for t, b in zip(sets, before, strict=True)]
        )
        return None

    monkeypatch.setattr(ofa, "order_channels", watched)
    # The pace of small batches: the phase of widths, from the third batch of an epoch on, begins within a step's.
    engine = Engine(Learning(recipe="yolov5", lr0=0.1), 1, sums_loss=False)
    others = Phase("others", {"kernel": None, "depth": None}, share=6)
    phases = [Phase("largest", share=12), replace(PHASES[-1], share=12), others]
    train(engine=engine, evaluator={"num": 20, "epochs": 6}, phases=phases)
    ((weights, gradients, momentum, average),) = compared
    assert weights == momentum == average > 3
    assert gradients > 3


def test_resolution_is_one_for_a_step_and_open_from_the_first(train, monkeypatch):
    watch = Watch(monkeypatch)
    train({**CFG, "resolution": {"choice": [8, 16, 24]}}, phases=PHASES[::4], evaluator={"num": 24})
    sides = [x.shape[-1] for x in watch.inputs]
    assert {*sides[:8]} == {8, 16, 24}
    steps = [{*sides[i : i + 4]} for i in range(8, len(sides), 4)]
    assert len(steps) == 4
    assert all(len(step) == 1 for step in steps)


@pytest.mark.parametrize("distill", ["auto", "none"])
def test_detectors(distill, train):
    phases = [Phase("largest"), Phase("all", {"kernel": None, "depth": None, "width": None}, 2, sort=True)]
    strategy = train(DETECTOR, phases=phases, distill=distill, evaluator={"epochs": 3})
    metrics = strategy.oneshot_module.trainer.callback_metrics
    assert all(value.isfinite() for value in metrics.values())
    assert ("distill_random" in metrics) is (distill == "auto")
    assert (strategy.oneshot_module._teacher[0] is None) is (distill == "none")
    raw, state = slice_weights(strategy.supernet, strategy.settings["sampler"].sizes.smallest)
    Model(raw).load_state_dict(state)


def test_a_teacher_from_outside_takes_its_place(train, monkeypatch):
    from models import Classifier

    torch.manual_seed(5)
    teacher, lessons, call = Classifier({"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]]}), [], SoftLabels.__call__

    def seen(self, student, lesson):
        lessons.append(lesson)
        return call(self, student, lesson)

    monkeypatch.setattr(SoftLabels, "__call__", seen)
    strategy = train(teacher=teacher, phases=[*PHASES[:2]], evaluator={"num": 4, "epochs": 2})
    assert len(lessons) == 1
    torch.testing.assert_close(lessons[0], teacher.eval()(images(4, 16).x))
    assert strategy.oneshot_module._teacher[0] is teacher


class Stop(pl.Callback):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = trainer.current_epoch == 1


def test_resumed_equals_uninterrupted(train, tmp_path):
    """Cut in the phase of kernels, whose teacher has to be there again; another phase begins after it."""
    whole, cut, again = (tmp_path / f"{name}.ckpt" for name in ("whole", "cut", "again"))

    def go(path, *callbacks, **more):
        engine = Engine(Learning(lr0=0.1), 4, sums_loss=False)
        given = {"epochs": 4, "callbacks": [LastCheckpoint(path), *callbacks], **more}
        return train(engine=engine, dropout=0.2, evaluator=given, seed=0)

    uncut = go(whole)
    go(cut, Stop())
    torch.manual_seed(9)
    resumed = go(again, checkpoint=cut)
    left = torch.load(cut, weights_only=False)
    assert (left["epoch"], left["ofa"]["phase"]) == (1, 1)
    assert left["ofa"]["teacher"] is not None
    a, b = (torch.load(f, weights_only=False) for f in (whole, again))
    assert a["ofa"]["phase"] == len(PHASES) - 1
    for key in ("state_dict", "optimizer_states", "global_step", "epoch", "ofa", "engine"):
        assert not differences(a[key], b[key], key)
    assert not differences(dict(uncut.supernet.state_dict()), dict(resumed.supernet.state_dict()))
    with pytest.raises(InputError, match="--phases: the run was begun with others"):
        train(phases=PHASES[1:], engine=Engine(Learning(), 4), evaluator={"epochs": 4, "checkpoint": cut})


def one_of_two(rank, port, path):
    """A process with images and generators' states of its own; leaves what it trained, its weights and its teacher."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"})
    os.environ.update({"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)})
    seen, forward = [], NASBACKBONE.forward
    NASBACKBONE.forward = lambda self, x: seen.append(dict(self.active)) or forward(self, x)
    torch.manual_seed(0)
    space = NASBACKBONE(CFG)
    torch.manual_seed(rank)
    strategy = OFA(cost=CostModel(Space(CFG), 16), seed=0, phases=PHASES)
    run(strategy, space, classification(epochs=6, processes=2))
    assert strategy.oneshot_module.trainer.world_size == 2
    module = strategy.oneshot_module
    weights = {k: v.detach() for k, v in strategy.supernet.named_parameters()}
    teacher = {k: v.detach() for k, v in module._teacher[0].named_parameters()}
    torch.save((seen, weights, teacher, module.phase), path / f"{rank}.pt")


def test_processes_train_the_same_subnets(tmp_path):
    port = free_port()
    assert forked(tmp_path / "log", one_of_two, *((rank, port, tmp_path) for rank in (0, 1))) == [0, 0], (
        tmp_path / "log"
    ).read_text()
    (seen, weights, teacher, phase), other = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    assert seen == other[0]
    assert phase == len(PHASES) - 1
    assert not differences(weights, other[1])
    assert not differences(teacher, other[2])


def stripes(num=24, side=8):
    """Horizontal or vertical stripes, of which single pixels say nothing."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(num) % 2
    lines = (torch.arange(side) % 2).float()[:, None].expand(side, side)
    x = torch.stack([lines if label else lines.T for label in y])[:, None].expand(num, 3, side, side)
    return Data((x + 0.1 * torch.rand(num, 3, side, side, generator=generator)).contiguous(), y)


def test_finds_a_planted_answer():
    """A kernel of 3 tells stripes apart and one of 1 cannot; the limits let either the kernel or the width be large."""
    rows = [[-1, 1, "Conv", [8, {"choice": [1, 3]}]], [-1, 1, "Conv", [{"choice": [8, 24]}]]]
    cfg = {"nc": 2, "backbone": rows}

    class Budget:
        def feasible(self, archs):
            return [arch != {"row0.1": 3, "row1.0": 24} for arch in archs]

        def cheapest(self):
            return {"row0.1": 1, "row1.0": 8}

        def penalty(self, probabilities):
            return torch.zeros(())

    torch.manual_seed(0)
    data = stripes()
    loaders = [DataLoader(data, batch_size=12) for _ in range(2)]
    given = {"train_dataloaders": loaders[0], "val_dataloaders": loaders[1]}
    strategy = OFA(cost=CostModel(Space(cfg), 8), budget=Budget(), evaluations=4)
    run(
        strategy,
        NASBACKBONE(cfg),
        Classification(optimizer=torch.optim.Adam, learning_rate=0.02, **given, **trainer(10)),
    )
    assert strategy.oneshot_module.export() == {"row0.1": 3, "row1.0": 8}
    ratings = {tuple(arch.values()): rating for arch, rating in strategy.rated}
    assert ratings[3, 8] > -0.2
    assert max(ratings[1, 8], ratings[1, 24]) < -0.5


def test_channels_that_cannot_be_ordered_are_refused_before_the_training(monkeypatch, cost, built):
    def refuse(supernet, also=()):
        raise InputError("its channels cannot be ordered")

    monkeypatch.setattr(ofa, "order_channels", refuse)
    net = copy.deepcopy(built)
    with pytest.raises(InputError, match="cannot be ordered"):
        OFA(cost=cost, phases=PHASES).mutate_model(copy.deepcopy(built))
    OFA(cost=cost, phases=PHASES[:4]).mutate_model(net)
    assert isinstance(net, nn.Module)
