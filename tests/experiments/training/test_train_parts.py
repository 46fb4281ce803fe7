"""Average, schedule, recipes, parameter groups, anchors and weights: against their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data import EpochSampler, InOrder, detection
from experiments.tasks.param_groups import build_optimizer, parameter_groups
from experiments.tasks.resize import resized
from experiments.training.anchors import best_possible_recall, box_sizes, fit_anchors, kmeans_anchors
from experiments.training.ema import EMA, decay_at
from experiments.training.engine import multi_scale_side
from experiments.training.recipes import recipe_of
from experiments.training.schedule import Schedule, yolov5_accumulate, yolov5_warmup
from experiments.training.weights import read_weights, transfer
from models import Model, read_config, save_detector
from models.errors import InputError


def test_ema_follows_its_formula():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    ema = EMA(network, decay=0.9, tau=5)
    expected = {k: v.clone().double() for k, v in network.state_dict().items()}
    for update in range(1, 8):
        network(torch.randn(2, 3, 8, 8))
        for p in network.parameters():
            p.data += torch.randn_like(p)
        ema.update(network)
        d = 0.9 * (1 - math.exp(-update / 5))
        assert d == pytest.approx(decay_at(update, 0.9, 5))
        for k, v in network.state_dict().items():
            expected[k] = d * expected[k] + (1 - d) * v.double() if v.dtype.is_floating_point else v
    for k, v in ema.network.state_dict().items():
        torch.testing.assert_close(v.double(), torch.as_tensor(expected[k]).double(), rtol=1e-4, atol=1e-5)
    assert ema.updates == 7


def test_ema_stays_in_eval_mode_and_needs_no_gradient():
    owner = nn.Module()
    owner.ema = EMA(nn.BatchNorm1d(3))
    owner.train()
    assert not any(m.training for m in owner.ema.modules())
    assert not any(p.requires_grad for p in owner.ema.parameters())


def test_ema_is_saved_with_its_number_of_updates():
    network = nn.Linear(2, 2)
    ema = EMA(network)
    for _ in range(3):
        ema.update(network)
    other = EMA(nn.Linear(2, 2))
    other.load_state_dict(ema.state_dict())
    assert other.updates == 3
    assert torch.equal(other.network.weight, ema.network.weight)


@pytest.mark.parametrize(("updates", "decay"), [(1, 0.0004999), (2000, 0.63206), (20000, 0.99985)])
def test_yolov5_decay(updates, decay):
    assert decay_at(updates) == pytest.approx(decay, rel=1e-3)


# 40 epochs of 13 batches of 16, as BCCD has: values computed by hand from upstream's definitions.
BCCD = Schedule(epochs=40, batches=13, warmup=100, accumulate=4.0)


@pytest.mark.parametrize(
    ("iteration", "lr", "bias_lr", "momentum", "accumulate"),
    [
        (0, 0.0, 0.1, 0.8, 1),
        (50, 0.5 * 0.01 * (1 - 0.99 * 3 / 40), 0.5 * (0.1 + 0.01 * (1 - 0.99 * 3 / 40)), 0.8685, 2),  # round(2.5)
        (100, 0.01 * (1 - 0.99 * 7 / 40), 0.01 * (1 - 0.99 * 7 / 40), 0.937, 4),
        (259, 0.01 * (1 - 0.99 * 19 / 40), 0.01 * (1 - 0.99 * 19 / 40), 0.937, 4),
        (519, 0.01 * (1 - 0.99 * 39 / 40), 0.01 * (1 - 0.99 * 39 / 40), 0.937, 4),
    ],
)
def test_schedule(iteration, lr, bias_lr, momentum, accumulate):
    rates = BCCD.at(iteration)
    assert rates.accumulate == accumulate
    assert (rates.lr, rates.bias_lr, rates.momentum) == pytest.approx((lr, bias_lr, momentum))


def test_cosine_schedule():
    cosine = replace(BCCD, cosine=True, lrf=0.1)
    assert [cosine.decay(e) for e in (0, 20, 40)] == pytest.approx([1, 0.55, 0.1])
    assert cosine.decay(10) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 64), (16, 4), (24, 64 / 24), (64, 1), (128, 1)])
def test_nominal_batch(batch, accumulate):
    assert yolov5_accumulate(batch) == pytest.approx(accumulate)


def test_recipes():
    assert (yolov5_warmup(13), yolov5_warmup(500)) == (100, 1500)
    upstream = recipe_of("yolov5", epochs=40, batches=13, batch=16)
    assert (upstream.accumulate, upstream.warmup, upstream.loss_scale, upstream.decay_scale) == (4, 100, 1, 1)
    assert recipe_of("yolov5", 40, 13, 128).decay_scale == 2
    small = recipe_of("auto", epochs=40, batches=13, batch=16)
    assert (small.accumulate, small.warmup, small.loss_scale) == (1, 52, 4)
    assert (small.bn_momentum, upstream.bn_momentum) == (0.1, 0.03)
    middle = recipe_of("auto", epochs=300, batches=13, batch=16)
    assert (middle.accumulate, middle.loss_scale) == (2, 2)
    assert recipe_of("auto", epochs=10, batches=10, batch=2).loss_scale == 4
    large = recipe_of("auto", epochs=300, batches=7393, batch=16)
    assert large == recipe_of("yolov5", epochs=300, batches=7393, batch=16)
    with pytest.raises(InputError, match="--recipe fast"):
        recipe_of("fast", 1, 1, 1)


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5s-transformer.yaml", "yolov5s-ghost.yaml"])
def test_groups_hold_every_parameter_once(cfg):
    network = Model(cfg)
    groups = parameter_groups(network)
    ids = [id(p) for group in groups.values() for p in group]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    assert {id(p) for p in groups["norm"]} == {id(m.weight) for m in norms}
    names = {id(p): n for n, p in network.named_parameters()}
    assert {names[id(p)] for p in groups["bias"]} == {n for n in names.values() if n.rsplit(".", 1)[-1] == "bias"}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_decay(name):
    optimizer = build_optimizer(Model("yolov5n.yaml"), name, 0.01, 0.9, 0.3)
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {"bias": 0, "norm": 0, "weight": 0.3}
    group = optimizer.param_groups[0]
    assert group.get("nesterov", True)
    assert group.get("momentum", group.get("betas", [None])[0]) == 0.9


def test_unknown_optimizer():
    with pytest.raises(InputError, match="--optimizer adam: right would be one of sgd, adamw"):
        build_optimizer(nn.Linear(1, 1), "adam", 0.1)


def test_best_possible_recall():
    anchors = np.array([[10.0, 10.0], [100.0, 50.0]])
    sizes = np.array([[10, 39], [10, 41], [2.6, 10], [2.4, 10], [399, 199], [401, 50]], dtype=float)
    assert best_possible_recall(sizes, anchors) == pytest.approx(3 / 6)


def test_kmeans_finds_the_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[8, 30], [40, 12], [40, 40], [90, 200]], dtype=float)
    sizes = np.concatenate([c * np.exp(rng.normal(0, 0.05, (50, 2))) for c in centres])
    np.testing.assert_allclose(kmeans_anchors(sizes, 4), centres, rtol=0.06)


@pytest.mark.parametrize("different", [1, 3])
def test_kmeans_with_fewer_boxes_than_anchors(different):
    found = kmeans_anchors(np.array([[20.0, 30.0], [40.0, 50.0], [80.0, 60.0]])[:different], 6)
    assert found.shape == (6, 2)
    assert np.isfinite(found).all()
    assert len(np.unique(found.round(3), axis=0)) == 6


def test_box_sizes_are_of_the_letterboxed_image(digits):
    data = detection(digits(4, 96), 64, None)
    seen = [data.train[i].labels[:, 3:5] * 64 for i in range(4)]
    np.testing.assert_allclose(box_sizes(data.train), torch.cat(seen), rtol=1e-5)


def test_anchors_that_fit_are_kept_and_others_replaced(digits, tiny_cfg):
    train = detection(digits(), 64, None).train
    good = read_config(tiny_cfg)
    kept = fit_anchors(good, train)
    assert not kept.replaced
    assert kept.anchors == good.anchors
    assert kept.recall >= 0.98

    large = [[200, 300, 300, 200], [400, 400, 500, 500]]
    replaced = fit_anchors(read_config(tiny_cfg, anchors=large), train)
    assert replaced.replaced
    assert replaced.recall_before == 0
    assert replaced.recall >= 0.98
    assert np.shape(replaced.anchors) == (2, 4)

    number = fit_anchors(read_config(tiny_cfg, anchors=3), train)
    assert number.recall_before is None
    assert np.shape(number.anchors) == (2, 6)
    model = Model(read_config(tiny_cfg, anchors=number.anchors))
    pixels = model.head.anchors * model.stride.view(-1, 1, 1)
    torch.testing.assert_close(pixels.flatten(1), torch.tensor(number.anchors))


def test_weights_fit_by_name_and_shape(tiny_cfg, tmp_path):
    source = Model(read_config(tiny_cfg, nc=10))
    save_detector(source, tmp_path / "detector.pt")
    start = read_weights(tmp_path / "detector.pt")

    same = Model(read_config(tiny_cfg, nc=10))
    assert str(transfer(start, same)) == f"{len(source.state_dict()) - 1} of {len(source.state_dict()) - 1} tensors"
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in source.state_dict().items())

    fewer = Model(read_config(tiny_cfg, nc=3, anchors=[[1, 2, 3, 4], [5, 6, 7, 8]]))
    head, anchors = fewer.head.m[0].weight.clone(), fewer.head.anchors.clone()
    done = transfer(start, fewer)
    assert done.left == [f"model.6.m.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    assert torch.equal(fewer.head.m[0].weight, head)
    assert torch.equal(fewer.head.anchors, anchors), "anchors are the new detector's own"
    assert torch.equal(fewer.model[0].conv.weight, source.model[0].conv.weight)


def test_outputs_of_classes_are_taken_by_name(tiny_cfg, tmp_path):
    source = Model(read_config(tiny_cfg, nc=3))
    source.names = dict(enumerate(["cat", "dog", "cow"]))
    for conv in source.head.m:
        conv.bias.data = torch.arange(conv.bias.numel()).float()
    save_detector(source, tmp_path / "detector.pt")
    start = read_weights(tmp_path / "detector.pt")

    def given(*names):
        model = Model(read_config(tiny_cfg, nc=3))
        model.names = dict(enumerate(names))
        fresh = [conv.bias.detach().clone().view(2, -1) for conv in model.head.m]
        said = str(transfer(start, model))
        return said, fresh, [conv.bias.detach().view(2, -1) for conv in model.head.m]

    theirs = [conv.bias.detach().view(2, -1) for conv in source.head.m]
    said, _, found = given("cow", "cat", "dog")
    assert "classes" not in said
    for a, b in zip(theirs, found, strict=True):
        assert torch.equal(b, a[:, [0, 1, 2, 3, 4, 7, 5, 6]])
    said, fresh, found = given("cow", "pig", "cat")
    assert said.endswith("; classes by name: the data has pig and lacks dog")
    for a, new, b in zip(theirs, fresh, found, strict=True):
        assert torch.equal(b[:, [0, 1, 2, 3, 4, 5, 7]], a[:, [0, 1, 2, 3, 4, 7, 5]])
        assert torch.equal(b[:, 6], new[:, 6]), "a class that the file has not begins anew"
    said, _, found = given("class0", "class1", "class2")  # no names: by number
    assert "classes" not in said
    assert all(map(torch.equal, theirs, found))


def test_weights_of_another_network_are_refused(tiny_cfg, tmp_path):
    save_detector(Model("yolov5n.yaml"), tmp_path / "n.pt")
    with pytest.raises(InputError, match="of another network"):
        transfer(read_weights(tmp_path / "n.pt"), Model(tiny_cfg))
    (tmp_path / "text.pt").write_text("hello")
    for name in ("text.pt", "missing.pt"):
        with pytest.raises(InputError, match=f"--weights .*{name}"):
            read_weights(tmp_path / name)


def test_multi_scale_sides():
    sides = [multi_scale_side(320, 32, 0, i) for i in range(300)]
    assert set(sides) == set(range(160, 481, 32))
    assert sides == [multi_scale_side(320, 32, 0, i) for i in range(300)]
    assert resized(torch.zeros(2, 3, 64, 64), 96).shape == (2, 3, 96, 96)


@pytest.mark.parametrize(("num_images", "world"), [(12, 1), (12, 2), (13, 2)])
def test_shares_make_up_the_batch_of_a_single_process(num_images, world, monkeypatch):
    class Set:
        def __len__(self):
            return num_images

        def set_epoch(self, epoch):
            pass

    def share(rank, world, sampler):
        monkeypatch.setattr("data.seeded._process", lambda: (rank, world))
        items = list(sampler)
        assert len(items) == len(sampler)
        return items

    whole = share(0, 1, EpochSampler(Set(), 0, 5))
    shares = [share(rank, world, EpochSampler(Set(), 0, 5)) for rank in range(world)]
    in_order = [share(rank, world, InOrder(Set())) for rank in range(world)]
    assert sorted(i for share in in_order for i in share) == list(range(num_images))
    assert in_order[-1][0] == world - 1
    assert {len(s) for s in shares} == {num_images // world}
    for k in range(num_images // 4):
        batch = [i for share in shares for i in share[k * 4 // world : (k + 1) * 4 // world]]
        assert sorted(batch) == sorted(whole[4 * k : 4 * (k + 1)])
