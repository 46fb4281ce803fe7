"""Batch norm statistics taken anew: those of all images together, in a copy."""

import copy

import pytest
import torch
from torch import nn

from models import Classifier, InputError
from optimizer import calibrate_bn
from tests.random_state import randomized

CFG = {
    "nc": 3,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 2, "C3", [16]], [-1, 1, "Conv", [16, 3, 2]]],
}


@pytest.fixture
def network():
    return randomized(Classifier(CFG), 0)


def images(seed=0, sizes=(5, 3, 8)):
    """Batches that differ in size, in mean and in spread."""
    generator = torch.Generator().manual_seed(seed)
    return [(i + 1) * torch.rand(n, 3, 16, 16, generator=generator) + 2 * i for i, n in enumerate(sizes)]


def in_one_batch(network, x):
    """The statistics that PyTorch takes of one batch."""
    network = copy.deepcopy(network).train()
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        network(x)
    return {k: v for k, v in network.state_dict().items() if "running" in k}


def assert_statistics(network, expected):
    state = network.state_dict()
    assert expected
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_the_whole_subset_in_one_batch_at_every_layer(network):
    x = torch.cat(images())
    assert_statistics(calibrate_bn(network, [x]), in_one_batch(network, x))


def test_batches_pool_to_the_statistics_of_the_whole():
    """Of the layer whose inputs do not depend on the batches: mean, variance within and between batches, unbiased."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    batches = images()
    assert_statistics(calibrate_bn(layer, batches), in_one_batch(layer, torch.cat(batches)))
    within = torch.stack([layer[0](x).var((0, 2, 3)) for x in batches]).mean(0)
    assert calibrate_bn(layer, batches)[1].running_var.sum() > 2 * within.sum(), "batches differ in mean"


def test_batches_pool_at_deep_layers_as_they_come_in(network):
    seen = {}
    batches = images()
    watched = copy.deepcopy(network).train()
    norms = {name: m for name, m in watched.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, m in norms.items():
        m.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(x[0]))
    with torch.no_grad():
        for batch in batches:
            watched(batch)
    whole = {name: torch.cat(inputs) for name, inputs in seen.items()}
    expected = {f"{name}.running_mean": x.mean((0, 2, 3)) for name, x in whole.items()}
    expected |= {f"{name}.running_var": x.var((0, 2, 3)) for name, x in whole.items()}
    assert_statistics(calibrate_bn(network, batches), expected)


def test_values_far_from_zero_keep_their_variance():
    layer = nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 50, 50) + 1000
    found = calibrate_bn(layer, x.split(1)).running_var
    torch.testing.assert_close(found, x.double().var((0, 2, 3)).float(), rtol=1e-4, atol=0)


def test_a_copy_is_calibrated_and_nothing_else_changes(network):
    network.train()
    before = copy.deepcopy(network.state_dict())
    calibrated = calibrate_bn(network, images())
    assert network.training
    assert not calibrated.training
    for key, value in before.items():
        assert torch.equal(network.state_dict()[key], value)
        if "running" not in key and "tracked" not in key:
            assert torch.equal(calibrated.state_dict()[key], value)
    for m, own in zip(calibrated.modules(), network.modules(), strict=True):
        assert not m._forward_pre_hooks
        if isinstance(m, nn.BatchNorm2d):
            assert m.momentum == own.momentum


def test_dropout_has_no_part_in_it():
    layer = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(calibrate_bn(layer, [x])[1].running_mean, x.mean((0, 2, 3)))


def test_too_little_to_take_statistics_from(network):
    with pytest.raises(InputError, match="there is no batch"):
        calibrate_bn(network, [])
    with pytest.raises(InputError, match="two values a channel"):
        calibrate_bn(nn.Sequential(nn.BatchNorm1d(3)), [torch.rand(1, 3)])
