"""What is fused equals what it stands for: outputs, gradients and statistics."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks

from spaces import NASBACKBONE, NASDETECTOR
from spaces.active import Mixture
from spaces.fused import fast_layout, mixed_conv, norm_act
from tests.spaces.supernets import SMALL, darts, mix, supernet

# (kernel, padding) of the candidates, stride: rows of the shipped spaces.
CANDIDATES = {
    "entry": ([(1, 0), (3, 1)], 1),
    "down": ([(3, 1), (5, 2)], 2),
    "stem": ([(6, 2), (4, 1), (8, 3)], 2),
}
WEIGHTS = {2: [0.3, 0.7], 3: [0.5, 0.2, 0.3]}
ACTS = [nn.SiLU(), nn.Identity(), nn.ReLU()]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _convs(kind):
    kernels, stride = CANDIDATES[kind]
    return [nn.Conv2d(3, 4, k, stride, p, bias=False, dtype=torch.float64) for k, p in kernels]


def _leaves(convs):
    return [torch.rand(2, 3, 9, 8, dtype=torch.float64).requires_grad_(), *(conv.weight for conv in convs)]


# Mixed kernels.


@pytest.mark.parametrize("paths", ["all", "two", "one"])
@pytest.mark.parametrize("kind", CANDIDATES)
def test_mixed_kernel_is_the_sum_of_convolutions(kind, paths):
    convs = _convs(kind)
    weights = torch.tensor(WEIGHTS[len(convs)], dtype=torch.float64, requires_grad=True)
    mixture = Mixture(weights, tuple(range(len(convs)))[{"all": 0, "two": -2, "one": -1}[paths] :])
    leaves = [*_leaves(convs), weights]
    y = mixed_conv(leaves[0], convs, mixture)
    expected = sum(weights[i] * convs[i](leaves[0]) for i in mixture.paths)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    ours, theirs = (
        torch.autograd.grad(t, leaves, upstream, materialize_grads=True, allow_unused=True) for t in (y, expected)
    )
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("first", [0.5, 0.001, 0.0, 1.0])
@pytest.mark.parametrize("kind", CANDIDATES)
def test_gradient_of_weights_alone(kind, first):
    """By way of the smaller kernels, and where the largest weighs next to nothing."""
    convs = _convs(kind)
    rest = (1 - first) / (len(convs) - 1)
    values = [rest] * (len(convs) - 1)
    values.insert(max(range(len(convs)), key=lambda i: convs[i].kernel_size), first)
    weights = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    for conv in convs:
        conv.requires_grad_(False)
    x = _leaves(convs)[0]
    y = mixed_conv(x, convs, Mixture.of_all(weights))
    upstream = torch.randn_like(y)
    expected = [(upstream * conv(x)).sum() for conv in convs]
    grad_x, grad = torch.autograd.grad(y, [x, weights], upstream)
    torch.testing.assert_close(grad, torch.stack(expected))
    plain = sum(w * conv(x) for w, conv in zip(weights, convs, strict=True))
    torch.testing.assert_close(grad_x, torch.autograd.grad(plain, x, upstream)[0])


def test_gradient_of_weights_alone_takes_no_gradient_of_a_kernel(monkeypatch):
    asked = []
    conv_backward = torch.ops.aten.convolution_backward

    def listen(*args):
        asked.append(args[-1])
        return conv_backward(*args)

    monkeypatch.setattr("spaces.fused.aten", type("aten", (), {"convolution_backward": staticmethod(listen)}))
    convs = _convs("entry")
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    for conv in convs:
        conv.requires_grad_(False)
    mixed_conv(_leaves(convs)[0], convs, Mixture.of_all(weights)).sum().backward()
    assert asked == [(True, False, False)]


# Batch normalisation and activations.


def _norm(training, channels=4):
    bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03, dtype=torch.float64).train(training)
    for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        tensor.data.uniform_(0.5, 1.5)
    return bn


def _plain(x, bn, acts, weights, mask):
    z = bn(x)
    y = acts[0](z) if weights is None else sum(w * act(z) for w, act in zip(weights, acts, strict=True))
    return y if mask is None else y * mask.view(1, -1, 1, 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kinds", [(0,), (1,), (2,), (0, 1, 2), (2, 1), (1, 0), (2, 0)])
def test_norm_act(kinds, training, masked):
    for layout in (torch.contiguous_format, torch.channels_last):
        bn = _norm(training)
        plain = copy.deepcopy(bn)
        acts = [ACTS[i] for i in kinds]
        x = torch.randn(3, 4, 5, 2, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        mask = torch.rand(4, dtype=torch.float64, requires_grad=True) if masked else None
        weights = torch.rand(len(kinds), dtype=torch.float64, requires_grad=True) if len(kinds) > 1 else None
        y, expected = norm_act(x, bn, acts, weights, mask), _plain(x, plain, acts, weights, mask)
        torch.testing.assert_close(y, expected)
        for own, other in zip(bn.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(own, other)
        upstream = torch.randn_like(y)
        inputs = [t for t in (x, mask, weights) if t is not None]
        ours = torch.autograd.grad(y, [*inputs, *bn.parameters()], upstream)
        theirs = torch.autograd.grad(expected, [*inputs, *plain.parameters()], upstream)
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, other)


@pytest.mark.parametrize("training", [False, True])
def test_norm_act_gradients(training):
    bn = _norm(training)
    x, weights, mask = torch.randn(2, 4, 3, 2), torch.rand(3), torch.rand(4)
    inputs = [t.double().requires_grad_() for t in (x, weights, mask)]
    assert gradcheck(lambda x, w, m: norm_act(x, bn, ACTS, w, m), inputs)


def test_norm_act_takes_the_first_channels():
    bn = _norm(True, 6)
    narrow = _norm(True)
    narrow.load_state_dict({k: v if v.ndim == 0 else v[:4] for k, v in bn.state_dict().items()})
    x, beyond = torch.randn(2, 4, 3, 3, dtype=torch.float64), bn.running_mean[4:].clone()
    torch.testing.assert_close(norm_act(x, bn, [nn.SiLU()]), nn.functional.silu(narrow(x)))
    torch.testing.assert_close(bn.running_mean[:4], narrow.running_mean)
    assert torch.equal(bn.running_mean[4:], beyond)


def test_norm_act_with_the_mean_of_all_batches():
    bn = _norm(True)
    bn.momentum = None
    bn.reset_running_stats()
    plain = copy.deepcopy(bn)
    for _ in range(3):
        x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
        norm_act(x, bn, [nn.SiLU()])
        plain(x)
    torch.testing.assert_close(bn.running_mean, plain.running_mean)


def test_other_activations_are_mixed_as_they_are():
    bn, acts = _norm(True), [nn.LeakyReLU(0.1), nn.SiLU()]
    x, weights = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    expected = _plain(x, copy.deepcopy(bn), acts, weights, None)
    torch.testing.assert_close(norm_act(x, bn, acts, weights), expected)


def test_norm_act_keeps_its_input_alone():
    x = torch.randn(2, 4, 16, 16, dtype=torch.float64, requires_grad=True)
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm_act(x, _norm(True), ACTS, torch.rand(3, dtype=torch.float64, requires_grad=True))
    assert [t.data_ptr() for t in kept if t.numel() >= x.numel()] == [x.data_ptr()]


def test_small_maps_stay_planes():
    assert fast_layout(torch.rand(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    assert fast_layout(torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)).is_contiguous()


# Whole supernets.


def _weights(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        label: torch.rand(len(d.values), generator=generator, dtype=torch.float64).softmax(0).requires_grad_()
        for label, d in net.space.decisions.items()
    }


def _twin(kind, seed=1, **keys):
    """NNI's DARTS on a space, with random architecture parameters: network, label to parameter."""
    torch.manual_seed(seed)
    net = darts(kind(cfg=SMALL, **keys)).double().train()
    alphas = {}
    for module in net.modules():
        found = getattr(module, "_arch_alpha", None)
        if found is not None:
            alphas.update(dict(found) if isinstance(found, nn.ParameterDict) else {module.label: found})
    for alpha in alphas.values():
        alpha.data.normal_()
    return net, alphas


@pytest.mark.parametrize("size", [32, 64])
def test_mixture_is_nnis(size):
    """Outputs, gradients of weights and of architecture, and batch norm statistics are those of NNI's own DARTS."""
    theirs, alphas = _twin(NASBACKBONE)
    ours = supernet(NASBACKBONE(cfg=SMALL)).double().train()
    state = {k: v for k, v in theirs.state_dict().items() if "_arch_alpha" not in k}
    assert set(state) == set(ours.state_dict())
    ours.load_state_dict(state)
    own = {label: alpha.detach().clone().requires_grad_() for label, alpha in alphas.items()}
    assert set(own) == set(ours.space.decisions)
    x = torch.rand(4, 3, size, size, dtype=torch.float64)
    y, expected = mix(ours, {k: a.softmax(0) for k, a in own.items()})(x), theirs(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    parameters = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, parameters[name].grad, msg=name)
    for label, alpha in own.items():
        torch.testing.assert_close(alpha.grad, alphas[label].grad, msg=label)
    after = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, after[name], msg=name)


def test_detector_mixture_is_nnis():
    theirs, alphas = _twin(NASDETECTOR, nc=2)
    ours = supernet(NASDETECTOR(cfg=SMALL, nc=2)).double().train()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if "_arch_alpha" not in k})
    mix(ours, {label: alpha.detach().softmax(0) for label, alpha in alphas.items()})
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    for own, other in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(own, other)


def test_frozen_weights_leave_the_gradient_of_the_architecture_as_it_is():
    net = supernet(NASBACKBONE(cfg=SMALL)).double().train()
    weights = _weights(net)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    grads = []
    for frozen in (False, True):
        net.requires_grad_(not frozen)
        loss = mix(net, weights)(x).square().sum()
        grads.append(torch.autograd.grad(loss, list(weights.values())))
    for free, fixed in zip(*grads, strict=True):
        torch.testing.assert_close(free, fixed)


def test_two_paths_are_two_paths():
    """What is no path is not computed, and equals a weight of zero."""
    net = supernet(NASBACKBONE(cfg=SMALL)).double().train()
    weights = _weights(net)
    paths = {label: (0, len(w) - 1) if len(w) > 2 else (0,) for label, w in weights.items()}
    cut = {k: torch.stack([w[i] if i in paths[k] else 0 * w[i] for i in range(len(w))]) for k, w in weights.items()}
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    expected = mix(net, cut)(x)
    y = mix(net, weights, paths)(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    c3 = net.model[2]
    assert all(p.grad is None for p in c3[1].parameters())
    assert c3[0].cv1.conv[0].weight.grad is not None
    assert c3[0].cv1.conv[1].weight.grad is None
    assert all(weights[label].grad[1] == 0 for label, w in weights.items() if len(w) > 2)
    assert [int(c.cv3.bn.num_batches_tracked) for c in c3] == [2, 1, 2]


def test_single_path_touches_the_chosen_width_alone():
    net = supernet(NASBACKBONE(cfg=SMALL)).train()
    net.activate({"c3_2": 1})
    net(torch.rand(2, 3, 64, 64)).sum().backward()
    for i, candidate in enumerate(net.model[2]):
        assert (candidate.cv1.bn.num_batches_tracked == 1) == (i == 1)
        assert all((p.grad is None) == (i != 1) for p in candidate.cv3.parameters())


@pytest.mark.parametrize("label", ["c3_2", "nasconv_0", "nasconv_0_act", "nasconv_2-1", "c3_2_m0"])
def test_one_mixture_among_paths(label):
    """Decisions may be mixtures while others are paths: the weighted sum of two paths if there is one mixture."""
    net = supernet(NASBACKBONE(cfg=SMALL)).double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    one_hot = mix(net, {label: torch.eye(len(net.space.decisions[label].values), dtype=torch.float64)[1]})(x)
    net.active[label] = 1
    torch.testing.assert_close(net(x), one_hot)


def test_mixture_under_autocast():
    net = supernet(NASBACKBONE(cfg=SMALL)).train()
    weights = {label: w.detach().float().requires_grad_() for label, w in _weights(net).items()}
    x = torch.rand(4, 3, 64, 64)
    expected = mix(net, weights)(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
    y.float().square().sum().backward()
    assert all(w.grad.isfinite().all() and w.grad.abs().sum() > 0 for w in weights.values())
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
