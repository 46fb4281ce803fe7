"""Sandwich training: what is trained, by which loss, with which settings; on classifiers and detectors."""

import copy
import os

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from spaces import NASBACKBONE, NASDETECTOR, CostModel, Sizes, Space, slice_weights  # isort: skip

from data import Batch
from experiments.oneshot.samplers import Uniform
from experiments.run.callbacks import LastCheckpoint
from experiments.strategies import BigNAS
from experiments.tasks.evaluator import Classification, DataLoader, Detection
from experiments.training.distillation import SoftLabels
from models import Classifier, InputError, Model
from tests.experiments.strategies_forked import forked
from tests.experiments.strategies_toys import Data, differences, images, run, trainer
from tests.ports import free_port

BACKBONE = [
    [-1, 1, "Conv", [{"choice": [8, 16]}, {"choice": [3, 5]}, 2]],
    [-1, {"choice": [1, 2]}, "C3", [16, True, {"e": {"choice": [0.5, 1.0]}}]],
]
CFG = {"nc": 3, "backbone": BACKBONE}
ROUND = {**CFG, "resolution": {"choice": [8, 16]}}
DETECTOR = {
    "nc": 3,
    "anchors": [[4, 5, 6, 8]],
    "backbone": [*BACKBONE, [-1, 1, "Conv", [{"choice": [16, 24]}, 3, 2]]],
    "head": [[-1, 1, "Conv", [16, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]],
}
BIG, SMALL = (
    {"row0.0": 16, "row0.1": 5, "row1.number": 2, "row1.e": 1.0},
    {
        "row0.0": 8,
        "row0.1": 3,
        "row1.number": 1,
        "row1.e": 0.5,
    },
)


@pytest.fixture(scope="module")
def cost():
    """Cost models by space, made once."""
    made = {}

    def of(cfg):
        key = str(cfg)
        if key not in made:
            made[key] = CostModel(Space(cfg), 16)
        return made[key]

    return of


def boxes(num=8, side=16):
    """Detection batches of one object an image."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)
    return [(picture, torch.tensor([i % 3, 0.5, 0.5, 0.4, 0.5])) for i, picture in enumerate(pictures)]


def collate(items):
    targets = torch.stack([torch.cat((torch.tensor([i]), label)) for i, (_, label) in enumerate(items)])
    return Batch(torch.stack([image for image, _ in items]), targets.float(), ())


def classification(epochs=1, num=8, callbacks=(), checkpoint=None, sgd=None, processes=1, **settings):
    data = images(num, 16)
    loaders = [DataLoader(Data(data.x, data.y), batch_size=4, shuffle=False) for _ in range(2)]
    fit = {} if checkpoint is None else {"ckpt_path": str(checkpoint), "weights_only": False}
    optimizer = {} if sgd is None else {"optimizer": torch.optim.SGD, "learning_rate": sgd}
    given = {"train_dataloaders": loaders[0], "val_dataloaders": loaders[1], "fit_kwargs": fit}
    how = {} if processes == 1 else {"devices": processes, "strategy": "ddp"}
    return Classification(**optimizer, **given, **settings, **trainer(epochs, callbacks, **how))


def detection(epochs=1, callbacks=(), **_):
    loaders = [DataLoader(boxes(), batch_size=4, collate_fn=collate) for _ in range(2)]
    names = ["a", "b", "c"]
    return Detection(names, 16, train_dataloaders=loaders[0], val_dataloaders=loaders[1], **trainer(epochs, callbacks))


@pytest.fixture
def train(cost):
    """Train with BigNAS: (cfg, settings of the strategy, of the evaluator) -> strategy."""

    def made(cfg=CFG, evaluator=None, seed=0, **settings):
        torch.manual_seed(seed)
        strategy = BigNAS(cost=cost(cfg), seed=seed, **settings)
        space = NASDETECTOR(cfg) if "head" in cfg else NASBACKBONE(cfg)
        make = detection if "head" in cfg else classification
        return run(strategy, space, make(**(evaluator or {})))

    return made


class Watch:
    """Sees every forward of a supernet in training: what was active, and the output."""

    def __init__(self, monkeypatch, kind=NASBACKBONE):
        self.seen, self.outputs, self.inputs, self.training = [], [], [], []
        forward = kind.forward

        def watched(network, x):
            out = forward(network, x)
            if torch.is_grad_enabled() and network.training:
                self.seen.append(dict(network.active))
                self.inputs.append(x)
                self.outputs.append(out)
            return out

        monkeypatch.setattr(kind, "forward", watched)


def indices(cfg, arch):
    decisions = Space(cfg).decisions
    return {label: decisions[label].values.index(value) for label, value in arch.items()}


def test_a_step_trains_the_largest_first_then_what_was_asked_for(train, monkeypatch):
    watch = Watch(monkeypatch)
    strategy = train(subnets=("random", "min", "max", "random"))
    largest, smallest = indices(CFG, BIG), indices(CFG, SMALL)
    sampler = strategy.settings["sampler"]
    assert len(watch.seen) == 2 * 4
    drawn = []
    for step in (watch.seen[:4], watch.seen[4:]):
        assert step[0] == largest
        assert step[3] == smallest
        drawn += step[1:3]
    assert drawn == [indices(CFG, sampler(n)) for n in range(4)], "the draws of all steps are numbered"
    assert strategy.oneshot_module.export() == BIG


def test_one_update_by_the_sum_of_the_gradients(train, monkeypatch):
    """Against the subnets cut out of the supernet and trained on the same batch, the largest by its labels."""
    start = {}
    mutate = BigNAS.mutate_model

    def kept(self, model):
        supernet = mutate(self, model)
        start["net"] = copy.deepcopy(supernet)
        return supernet

    monkeypatch.setattr(BigNAS, "mutate_model", kept)
    strategy = train(subnets=("max", "min"), evaluator={"num": 4, "sgd": 0.1})
    data = images(4, 16)
    largest, smallest = start["net"], copy.deepcopy(start["net"])
    largest.activate(BIG)
    smallest.activate(SMALL)
    out = largest.train()(data.x)
    nn.functional.cross_entropy(out, data.y).backward()
    SoftLabels()(smallest.train()(data.x), out).backward()
    for (name, after), before, other in zip(
        strategy.supernet.named_parameters(), largest.parameters(), smallest.parameters(), strict=True
    ):
        grad = sum(p.grad if p.grad is not None else torch.zeros_like(p) for p in (before, other))
        torch.testing.assert_close(after, before - 0.1 * grad, rtol=1e-4, atol=1e-6, msg=name)
    assert not all((p.grad == 0).all() for p in smallest.parameters() if p.grad is not None)


def test_without_distillation_all_learn_from_labels(train, monkeypatch):
    labels = []
    step = classification().module.__class__.training_step

    def counted(self, batch, batch_idx):
        labels.append(dict(self.model.active))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(classification().module.__class__, "training_step", counted)
    train(subnets=("max", "random", "min"), distill="none", evaluator={"num": 4})
    assert len(labels) == 3
    labels.clear()
    train(subnets=("max", "random", "min"), evaluator={"num": 4})
    assert labels == [indices(CFG, BIG)]
    labels.clear()
    train(subnets=("random", "min"), evaluator={"num": 4})
    assert len(labels) == 2, "there is nobody to learn from"


@pytest.mark.parametrize("distill", ["kl", "alpha"])
def test_classifiers_learn_from_the_largest(distill, train):
    strategy = train(distill=distill, evaluator={"epochs": 12, "sgd": 0.1})
    module = strategy.oneshot_module
    assert {"train_loss", "train_acc", "distill_random", "distill_min"} <= module.trainer.callback_metrics.keys()
    data = images(8, 16)
    for arch in (BIG, SMALL):
        raw, state = slice_weights(strategy.supernet, arch)
        network = Classifier(raw, 3)
        network.load_state_dict(state)
        right = (network.train()(data.x).argmax(1) == data.y).float().mean()
        assert right > 0.7, arch


@pytest.mark.parametrize("settings", [{}, {"distill_boxes": "l1", "distill_rows": [2, 3]}, {"distill": "none"}])
def test_detectors(settings, train, monkeypatch):
    watch = Watch(monkeypatch, NASDETECTOR)
    strategy = train(DETECTOR, evaluator={"epochs": 3}, **settings)
    assert len(watch.seen) == 2 * 3 * 4
    metrics = strategy.oneshot_module.trainer.callback_metrics
    assert all(value.isfinite() for value in metrics.values())
    assert ("distill_min" in metrics) is (settings.get("distill") != "none")
    raw, state = slice_weights(strategy.supernet, strategy.settings["sampler"].sizes.smallest)
    Model(raw).load_state_dict(state)


def test_a_teacher_from_outside_takes_the_place_of_the_largest(train, monkeypatch):
    torch.manual_seed(5)
    teacher = Classifier({"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]]})
    lessons = []
    call = SoftLabels.__call__

    def seen(self, student, lesson):
        lessons.append(lesson)
        return call(self, student, lesson)

    monkeypatch.setattr(SoftLabels, "__call__", seen)
    before = copy.deepcopy(teacher.state_dict())
    strategy = train(teacher=teacher, evaluator={"num": 4})
    expected = teacher.eval()(images(4, 16).x)
    assert len(lessons) == 3
    for lesson in lessons:
        torch.testing.assert_close(lesson, expected)
        assert not lesson.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not any("teacher" in key for key in strategy.oneshot_module.state_dict())


def test_resolution_is_that_of_each_subnet(train, monkeypatch):
    watch = Watch(monkeypatch)
    strategy = train(ROUND)
    sampler = strategy.settings["sampler"]
    sides = [x.shape[-1] for x in watch.inputs]
    assert sides[:4] == [16, sampler(0)["resolution"], sampler(1)["resolution"], 8]
    assert {sampler(n)["resolution"] for n in range(20)} == {8, 16}


def test_resolution_is_one_for_a_step_of_detectors(train, monkeypatch):
    """Their maps are compared, and boxes are shares of the image."""
    watch = Watch(monkeypatch, NASDETECTOR)
    train({**DETECTOR, "resolution": {"choice": [16, 24, 32]}}, evaluator={"epochs": 8})
    sides = [x.shape[-1] for x in watch.inputs]
    steps = [set(sides[i : i + 4]) for i in range(0, len(sides), 4)]
    assert all(len(step) == 1 for step in steps)
    assert set.union(*steps) == {16, 24, 32}


def test_that_resolution_is_the_one_that_the_sampler_drew(train, monkeypatch):
    watch = Watch(monkeypatch, NASDETECTOR)
    train({**DETECTOR, "resolution": {"choice": [16, 24, 32]}}, sampler="stage_wise,resolution=middle")
    assert {x.shape[-1] for x in watch.inputs} == {24}


def test_best_up_trains_the_subnet_of_least_loss(train, monkeypatch):
    watch = Watch(monkeypatch)
    strategy = train(subnets=("random",), sampler="best_up:3:1", evaluator={"num": 4, "sgd": 0.0})
    sampler = strategy.settings["sampler"]
    data = images(4, 16)
    losses = []
    for arch in sampler.candidates(0):
        strategy.supernet.activate(arch)
        losses.append(nn.functional.cross_entropy(strategy.supernet.train()(data.x), data.y).item())
    best = sampler.candidates(0)[losses.index(min(losses))]
    assert watch.seen[0] == indices(CFG, best)
    assert len(set(losses)) > 1


def test_looking_at_candidates_leaves_no_trace_in_the_statistics(train, monkeypatch):
    watch = Watch(monkeypatch)
    strategy = train(subnets=("random",), sampler="best_up:4:1", evaluator={"num": 4})
    candidates = strategy.settings["sampler"].candidates(0)
    assert len({str(a) for a in candidates}) > 1
    (trained,) = watch.seen
    (picked,) = [a for a in candidates if indices(CFG, a) == trained]

    class Picked(Uniform):
        def draw(self, rng, number):
            return dict(picked)

    alone = train(subnets=("random",), sampler=Picked, evaluator={"num": 4})
    state = alone.supernet.state_dict()
    differ = [k for k, v in strategy.supernet.state_dict().items() if not torch.equal(v, state[k])]
    assert not [k for k in differ if "num_batches_tracked" not in k]
    assert {m.momentum for m in strategy.supernet.modules() if isinstance(m, nn.BatchNorm2d)} == {0.03}


@pytest.mark.parametrize("distill", ["kl", "none"])
def test_only_the_largest_is_regularised(distill, train, monkeypatch):
    rates = []
    forward = NASBACKBONE.forward

    def watched(network, x):
        paths = max(m.drop_prob for m in network.modules() if hasattr(m, "drop_prob"))
        before = torch.get_rng_state()
        out = forward(network, x)
        rates.append((paths, not torch.equal(before, torch.get_rng_state())))
        return out

    monkeypatch.setattr(NASBACKBONE, "forward", watched)
    train(dropout=0.5, drop_path=0.5, distill=distill, evaluator={"num": 4})
    assert rates == [(0.5, True), (0.0, False), (0.0, False), (0.0, False)], "and nothing is drawn for the others"


def test_residual_branches_begin_at_zero(cost):
    supernet = BigNAS(cost=cost(CFG)).mutate_model(NASBACKBONE(CFG))
    zeroed = [n for n, m in supernet.named_modules() if isinstance(m, nn.BatchNorm2d) and (m.weight == 0).all()]
    assert len(zeroed) == 2
    assert all(".m." in name and name.endswith("cv2.bn") for name in zeroed)


def test_same_seed_same_weights_and_another_seed_others(train):
    first, second = (train(drop_path=0.2, sampler="flops_bin").supernet.state_dict() for _ in range(2))
    assert not differences(dict(first), dict(second))
    assert differences(dict(first), dict(train(seed=1).supernet.state_dict()))


def test_resumed_equals_uninterrupted(train, tmp_path):
    """After one epoch of three; dropout draws from the generator that the checkpoint holds."""
    settings = {"dropout": 0.2, "drop_path": 0.2, "sampler": "best_up:2"}

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    whole, cut, again = (tmp_path / f"{name}.ckpt" for name in ("whole", "cut", "again"))
    train(evaluator={"epochs": 3, "callbacks": [LastCheckpoint(whole)]}, **settings)
    train(evaluator={"epochs": 3, "callbacks": [LastCheckpoint(cut), Stop()]}, **settings)
    train(evaluator={"epochs": 3, "callbacks": [LastCheckpoint(again)], "checkpoint": cut}, **settings)
    assert torch.load(cut, weights_only=False)["epoch"] == 0
    a, b = (torch.load(f, weights_only=False) for f in (whole, again))
    for key in ("state_dict", "optimizer_states", "global_step", "epoch"):
        assert not differences(a[key], b[key], key)


def test_searches_within_a_budget(train, cost):
    class Budget:
        def feasible(self, archs):
            return [cost(CFG).of(a)["params"] < 2500 for a in archs]

        def cheapest(self):
            return SMALL

        def penalty(self, probabilities):
            return torch.zeros(())

    strategy = train(budget=Budget(), rate=lambda arch: cost(CFG).of(arch)["params"])
    best = strategy.oneshot_module.export()
    params = [cost(CFG).of(arch)["params"] for arch, _ in strategy.rated]
    assert cost(CFG).of(best)["params"] == max(params) < 2500


def one_of_two(rank, port, path):
    """A process with images and generators' states of its own; leaves which subnets it trained, and the weights."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"})
    os.environ.update({"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)})
    seen, forward = [], NASBACKBONE.forward
    NASBACKBONE.forward = lambda self, x: seen.append(dict(self.active)) or forward(self, x)
    torch.manual_seed(0)
    space = NASBACKBONE(CFG)
    torch.manual_seed(rank)
    strategy = BigNAS(cost=CostModel(Space(CFG), 16), seed=0, sampler="best_up:3:2")
    run(strategy, space, classification(epochs=2, processes=2))
    assert strategy.oneshot_module.trainer.world_size == 2
    weights = {k: v.detach() for k, v in strategy.supernet.named_parameters()}
    torch.save((seen, weights), path / f"{rank}.pt")


def test_processes_train_the_same_subnets(tmp_path):
    port = free_port()
    assert forked(tmp_path / "log", one_of_two, *((rank, port, tmp_path) for rank in (0, 1))) == [0, 0], (
        tmp_path / "log"
    ).read_text()
    (seen, weights), (other_seen, other_weights) = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    assert seen == other_seen
    assert len(seen) > 0
    assert not differences(weights, other_weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subnets": ()}, "--subnets : right would be max and min at most once"),
        ({"subnets": ("max", "max")}, "--subnets max,max: right would be"),
        ({"subnets": ("max", "middle")}, "--subnets max,middle: right would be"),
        ({"distill": "dkd"}, "--distill dkd: right would be one of auto, none, kl, alpha, mimic"),
        ({"distill": "mimic"}, "--distill mimic is not for this task; right would be kl or alpha"),
        ({"distill_boxes": "l2"}, "--distill-boxes l2: right would be"),
        ({"sampler": "often"}, "--sampler often: right would be"),
        ({"dropout": 2}, "--dropout 2: right would be"),
        ({"distill": "none", "distill_rows": [1]}, "--distill none: nothing is learnt"),
        ({"distill": "kl", "subnets": ("random", "min")}, "--distill kl: right would be max among the --subnets"),
        ({"distill_rows": [9]}, "--distill-rows 9: the network has the rows 0 to 1"),
    ],
)
def test_bad_input(settings, message, train):
    with pytest.raises(InputError, match=message):
        train(**settings)


def test_rows_of_several_maps_are_not_distilled(train):
    concat = [[2, 2], 1, "Concat", [1]]
    head = [concat, [-1, 1, "Conv", [16, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]]
    with pytest.raises(InputError, match="--distill-rows 3: Concat gives several maps"):
        train({**DETECTOR, "head": head}, distill_rows=[3])


def test_a_teacher_sees_the_side_of_its_students(train, monkeypatch):
    watch, sides = Watch(monkeypatch), []
    teacher = Classifier({"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]]})
    teacher.register_forward_hook(lambda _, given, __: sides.append(given[0].shape[-1]))
    train(ROUND, teacher=teacher, subnets=("max", "random", "random", "min"), evaluator={"num": 16})
    expected = []
    for step in range(4):
        own = watch.seen[4 * step : 4 * step + 4]
        expected += dict.fromkeys([(8, 16)[active["resolution"]] for active in own[1:]])
    assert len(set(expected)) == 2
    assert sides == expected


def test_detectors_are_not_for_kl(train):
    with pytest.raises(InputError, match="--distill kl is not for this task; right would be mimic"):
        train(DETECTOR, distill="kl")


def test_largest_and_smallest_are_the_spaces(cost):
    sizes = Sizes(cost(CFG))
    assert (sizes.largest, sizes.smallest) == (BIG, SMALL)
