"""Small kernels by matrices: the centre at first, and plain networks once they are cut out."""

import copy
import functools
import random

import pytest
import torch

from experiments.tasks.param_groups import parameter_groups
from models import Classifier, Model
from optimizer import match_nas
from spaces import NASBACKBONE, NASDETECTOR, load_into, slice_weights, transform_kernels
from spaces.channel_order import order_channels
from spaces.elements import Elements
from spaces.kernel_transform import is_transform
from spaces.warm_start import warm_start


def choice(*values, **keys):
    return {"choice": list(values), **keys}


BACKBONE = [
    [-1, 1, "Conv", [choice(8, 16), choice(3, 5), 2]],
    [-1, choice(1, 2), "MBConv", [choice(8, 16), choice(3, 5, 7, label="k"), 2, choice(2, 3), 0.25]],
    [-1, 1, "CrossConv", [16, choice(3, 5), 2]],
    [-1, 1, "C3", [16, {"cv1_k": choice(1, 3)}]],
]
CLASSIFIER = {"nc": 3, "backbone": BACKBONE}
DETECTOR = {
    **{"nc": 3, "anchors": [[4, 5, 6, 8]], "backbone": BACKBONE},
    "head": [[-1, 1, "Conv", [choice(8, 16), choice(1, 3)]], [[-1], 1, "Detect", ["nc", "anchors"]]],
}
SMALL = {"row0.1": 3, "k": 3, "row2.1": 3, "row3.cv1_k": 1}


@functools.cache
def built(kind):
    """A supernet, whose copies share what is known of its rows."""
    torch.manual_seed(0)
    return kind(DETECTOR if kind is NASDETECTOR else CLASSIFIER)


def supernet(cfg=CLASSIFIER, transformed=True):
    """With batch norms that do something, and matrices that are no identities."""
    net = copy.deepcopy(built(NASDETECTOR if "head" in cfg else NASBACKBONE))
    torch.manual_seed(1)
    if transformed:
        transform_kernels(net)
    for name, t in net.state_dict().items():
        if is_transform(name):
            t += 0.1 * torch.randn_like(t)
        elif "running_var" in name or name.endswith("bn.weight"):
            t.uniform_(0.5, 1.5)
    return net.eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def output(network, images):
    y = network.eval()(images)
    return y[0] if isinstance(y, tuple) else y


def archs(net, num=8):
    rng = random.Random(0)
    largest = {label: d.values[-1] for label, d in net.space.decisions.items()}
    return [net.space.sample(rng) for _ in range(num)] + [largest, {**largest, **SMALL}]


def test_a_matrix_for_each_pair_of_sizes_that_follow_one_another():
    net = supernet(transformed=False)
    parameters = {k for k, p in net.named_parameters()}
    assert transform_kernels(net) == 1 + 2 * 2 + 2 + 1
    assert transform_kernels(net) == 0
    shapes = {k: tuple(p.shape) for k, p in net.named_parameters() if k not in parameters}
    assert shapes == {
        "model.0.block.conv.to_kernel_3x3": (9, 9),
        **{f"model.1.block.{i}.depthwise.conv.to_kernel_{k}x{k}": (k * k, k * k) for i in (0, 1) for k in (3, 5)},
        "model.2.block.cv1.conv.to_kernel_1x3": (3, 3),
        "model.2.block.cv2.conv.to_kernel_3x1": (3, 3),
        "model.3.block.cv1.conv.to_kernel_1x1": (1, 1),
    }
    for name, p in net.named_parameters():
        assert name in parameters or torch.equal(p, torch.eye(len(p)))


@pytest.mark.parametrize("cfg", [CLASSIFIER, DETECTOR], ids=["classifier", "detector"])
def test_at_first_small_kernels_are_the_centre(cfg, images):
    cropped, net = supernet(cfg, transformed=False), supernet(cfg, transformed=False)
    net.activate(archs(net)[-1])
    output(net, images)  # what was bound before the matrices were there is bound anew
    transform_kernels(net)
    for arch in archs(net):
        cropped.activate(arch)
        net.activate(arch)
        assert torch.equal(output(net, images), output(cropped, images))


@pytest.mark.parametrize("cfg", [CLASSIFIER, DETECTOR], ids=["classifier", "detector"])
def test_the_supernet_is_the_plain_network_that_is_cut_out(cfg, images):
    net = supernet(cfg)
    for arch in archs(net):
        net.activate(arch)
        raw, state = slice_weights(net, arch)
        assert not any(map(is_transform, state))
        plain = (Model if "head" in cfg else Classifier)(raw)
        plain.load_state_dict(state)
        with torch.no_grad():
            assert torch.equal(output(plain, images), output(net, images))
        assert torch.equal(output(plain, images), output(net, images))
    if "head" in cfg:
        matched = match_nas(plain, net, arch=arch)
        assert torch.equal(output(matched, images), output(net, images))


def test_matrices_are_chained_from_size_to_size():
    net = supernet()
    conv = net.model[1].block.get_submodule("0.depthwise.conv")
    arch = archs(net)[-1]
    state = slice_weights(net, arch)[1]
    five = conv.weight[:, :, 1:6, 1:6].reshape(-1, 25) @ conv.to_kernel_5x5
    three = five.view(-1, 1, 5, 5)[:, :, 1:4, 1:4].reshape(-1, 9) @ conv.to_kernel_3x3
    torch.testing.assert_close(state["model.1.0.depthwise.conv.weight"], three.view(-1, 1, 3, 3))
    assert not torch.allclose(three.view(-1, 1, 3, 3), conv.weight[:, :, 2:5, 2:5], atol=1e-2)


def test_kernels_and_matrices_learn(images):
    net = supernet().train()
    arch = archs(net)[-1]
    net.activate(arch)
    net(images).square().sum().backward()
    conv = net.model[1].block.get_submodule("0.depthwise.conv")
    # By hand: what the plain kernel's gradient is of the matrices.
    raw, state = slice_weights(net, arch)
    plain = Classifier(raw)
    plain.load_state_dict(state)
    plain.train()(images).square().sum().backward()
    plain_grad = plain.get_submodule("model.1.0.depthwise.conv").weight.grad
    weight = conv.weight.detach().requires_grad_()
    matrices = [m.detach().requires_grad_() for m in (conv.to_kernel_5x5, conv.to_kernel_3x3)]
    five = (weight[:, :, 1:6, 1:6].reshape(-1, 25) @ matrices[0]).view(-1, 1, 5, 5)
    three = (five[:, :, 1:4, 1:4].reshape(-1, 9) @ matrices[1]).view(-1, 1, 3, 3)
    three.backward(plain_grad)
    for mine, expected in zip((conv.weight, conv.to_kernel_5x5, conv.to_kernel_3x3), (weight, *matrices), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_matrices_do_not_decay():
    net = supernet()
    groups = parameter_groups(net)
    matrices = [p for name, p in net.named_parameters() if is_transform(name)]
    kept = {id(p) for p in groups["norm"]}
    assert matrices
    assert all(id(p) in kept for p in matrices)
    assert sum(map(len, groups.values())) == len([*net.parameters()])


def test_order_of_channels_changes_no_function(images):
    net = supernet(DETECTOR)
    before, arch = slice_weights(net, archs(net)[-1])[1], archs(net)[-1]
    wide = {label: d.values[-1] for label, d in net.space.decisions.items()}
    outputs = []
    for _ in range(2):
        outputs.append([])
        for at in (wide, {**wide, **SMALL}):
            net.activate(at)
            outputs[-1].append(output(net, images).detach())
        order_channels(net)
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
    after = slice_weights(net, arch)[1]
    assert any(not torch.equal(after[k], v) for k, v in before.items())


def test_what_goes_with_the_weights_is_ordered_as_they_are():
    net = supernet()
    numbers = {k: torch.arange(v.numel()).view(v.shape) for k, v in net.state_dict().items() if v.is_floating_point()}
    before, places = {k: v.clone() for k, v in net.state_dict().items()}, {k: v.clone() for k, v in numbers.items()}
    del places["model.0.block.conv.weight"]  # they need not be complete
    order_channels(net, also=[places])
    moved = 0
    for name, value in net.state_dict().items():
        if name in places:
            assert torch.equal(before[name].take(places[name]), value), name
            moved += not torch.equal(places[name], numbers[name])
    assert moved > 10


def test_a_supernet_with_matrices_is_loaded_and_gone_on_with(images):
    net, other = supernet(), supernet(transformed=False)
    load_into(other, net.state_dict())
    again = supernet(transformed=False)
    warm_start(again, CLASSIFIER, net.state_dict())
    for arch in archs(net):
        for one in (net, other, again):
            one.activate(arch)
        assert torch.equal(output(net, images), output(other, images))
        assert torch.equal(output(net, images), output(again, images))


def test_numbers_of_elements_are_those_without_matrices():
    net, plain = supernet(), supernet(transformed=False)
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    for arch in archs(net, 3):
        a, b = Elements(net), Elements(plain)
        assert a.total == b.total
        found, expected = a.of(arch), b.of(arch)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())
