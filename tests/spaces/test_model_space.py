"""A supernet proves itself: at an arch it is the plain network that the arch means, to the last bit."""

import random

import pytest
import torch

from models import Classifier, Detect, Model, read_config
from spaces import NASBACKBONE, NASDETECTOR, Space, fixed_arch, slice_weights
from tests.random_state import randomized
from tests.refusal import refused
from tests.spaces.supernets import SMALL, activate, decide, mix, supernet

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SIZES = [*"nsm", *(pytest.param(size, marks=pytest.mark.slow) for size in "lx")]


def _archs(space, num, seed=0):
    """The first and last value everywhere, and `num` random archs."""
    rng = random.Random(seed)
    first, last = ({k: d.values[i] for k, d in space.decisions.items()} for i in (0, -1))
    return [first, last, *(space.sample(rng) for _ in range(num))]


@torch.no_grad()
@pytest.mark.parametrize("name", ["_nas", "b_nas"])
@pytest.mark.parametrize("size", SIZES)
def test_supernet_is_the_sliced_classifier(size, name):
    torch.manual_seed(0)
    net = supernet(NASBACKBONE(cfg=f"models/yolov5{size}{name}.yaml", nc=10))
    for arch in _archs(net.space, 3 if size in "ns" else 1):
        raw, state = slice_weights(net, arch)
        plain = Classifier(raw)
        plain.load_state_dict(state)
        assert plain.eval()(X).shape == (2, 10)
        assert torch.equal(activate(net, arch)(X), plain(X))


@torch.no_grad()
@pytest.mark.parametrize("cfg", [SMALL, "models/yolov5n_nas.yaml"], ids=["small", "n"])
def test_supernet_is_the_sliced_detector(cfg):
    torch.manual_seed(0)
    net = supernet(NASDETECTOR(cfg=cfg, nc=4))
    assert isinstance(net.head, Detect)
    for arch in _archs(net.space, 3):
        raw, state = slice_weights(net, arch)
        plain = Model(raw)
        plain.load_state_dict(state)
        assert torch.equal(plain.stride, net.stride)
        (decoded, logits), (own, own_logits) = plain.eval()(X), activate(net, arch)(X)
        assert torch.equal(decoded, own)
        assert all(torch.equal(a, b) for a, b in zip(logits, own_logits, strict=True))


def test_training_path_is_the_sliced_networks():
    """Also in training mode, statistics included: what is trained is what is handed over."""
    torch.manual_seed(0)
    net = supernet(NASBACKBONE(cfg=SMALL))
    for arch in _archs(net.space, 3):
        raw, state = slice_weights(net, arch)
        plain = Classifier(raw)
        plain.load_state_dict(state)
        own, expected = activate(net, arch).train()(X), plain.train()(X)
        torch.testing.assert_close(own, expected)
        _, after = slice_weights(net, arch)
        for key, value in plain.state_dict().items():
            torch.testing.assert_close(after[key], value, msg=key)
        expected.sum().backward()
        own.sum().backward()
        grads = {k: p.grad for k, p in plain.named_parameters()}
        assert sum(g.abs().sum() for g in grads.values()) > 0
        total = sum(p.grad.abs().sum() for p in net.parameters() if p.grad is not None)
        torch.testing.assert_close(total, sum(g.abs().sum() for g in grads.values()), rtol=1e-3, atol=1e-3)
        net.zero_grad(set_to_none=True)


def test_no_dead_parameters():
    """Over some archs, every output channel of every parameter gets a gradient.

    But for biases of batch norms: without activations the next norm takes a constant away, and what is left of their
    gradients is rounding, which on some CPUs is 0.
    """
    torch.manual_seed(0)
    net = supernet(NASBACKBONE(cfg="models/yolov5n_nas.yaml", nc=3)).train()
    named = {name: p for name, p in net.named_parameters() if not name.endswith("bn.bias")}
    reached = {name: torch.zeros(len(p), dtype=torch.bool) for name, p in named.items()}
    for width in range(3):
        for kernel in range(3):
            arch = {}
            for label, decision in net.space.decisions.items():
                if label.endswith("_act"):
                    arch[label] = 1  # Identity: no channel is dead by chance
                elif "_m" in label:
                    arch[label] = 2
                else:
                    arch[label] = width if label.startswith("c3") else min(kernel, decision.values[-1])
            activate(net, arch)(X).square().sum().backward()
            for name, p in named.items():
                if p.grad is not None:
                    reached[name] |= p.grad.flatten(1).abs().sum(1).gt(0) if p.ndim > 1 else p.grad.ne(0)
            net.zero_grad(set_to_none=True)
    assert [name for name, channels in reached.items() if not channels.all()] == []
    assert sum(p.numel() for p in net.parameters()) > 10_000_000


def test_widths_share_the_first_channels():
    net = supernet(NASBACKBONE(cfg=SMALL))
    wide = slice_weights(net, {"c3_2_m0": 2})[1]["model.2.m.0.cv1.conv.weight"]
    for ratio in (1, 1.5):
        narrow = slice_weights(net, {"c3_2_m0": ratio})[1]["model.2.m.0.cv1.conv.weight"]
        assert len(narrow) == round(ratio * len(wide) / 2)
        assert torch.equal(narrow, wide[: len(narrow)])


def test_entry_kernels_are_one_decision_over_the_widths():
    net = supernet(NASBACKBONE(cfg=SMALL))
    for chosen in range(3):
        row = slice_weights(net, {"c3_2": chosen, "nasconv_2-1": 1})[0]["backbone"][2]
        assert row[3][-1] == {"cv1_k": 3}


@torch.no_grad()
@pytest.mark.parametrize("cfg", [SMALL, "models/yolov5nb_nas.yaml"], ids=["small", "n"])
def test_decided_mixture_is_the_sliced_network(cfg):
    torch.manual_seed(0)
    net = supernet(NASBACKBONE(cfg=cfg, nc=3))
    for arch in _archs(net.space, 3):
        raw, state = slice_weights(net, arch)
        plain = Classifier(raw)
        plain.load_state_dict(state)
        torch.testing.assert_close(decide(net, arch)(X), plain.eval()(X), rtol=1e-4, atol=1e-4)


def test_undecided_widths_get_a_gradient():
    net = supernet(NASBACKBONE(cfg=SMALL)).train()
    weights = {k: torch.full((len(d.values),), 1 / len(d.values)) for k, d in net.space.decisions.items()}
    mix(net, {label: w.requires_grad_() for label, w in weights.items()})(X).square().sum().backward()
    assert any("c3_2_m0" in label for label in weights)
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in weights.values())


def test_slicing_copies():
    net = supernet(NASBACKBONE(cfg=SMALL))
    _, state = slice_weights(net, {})
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("keys", [{"nc": 7}, {"ch": 1}, {"nc": 7, "ch": 4}])
def test_overrides_reach_the_sliced_network(keys):
    x = torch.rand(2, keys.get("ch", 3), 64, 64)
    net = supernet(NASBACKBONE(cfg=SMALL, **keys))
    raw, state = slice_weights(net, {})
    plain = Classifier(raw)
    plain.load_state_dict(state)
    assert torch.equal(activate(net, {})(x), plain.eval()(x))
    assert plain(x).shape == (2, keys.get("nc", 3))
    net = supernet(NASDETECTOR(cfg=SMALL, anchors=2, **keys))
    raw, state = slice_weights(net, {})
    plain = Model(raw)
    plain.load_state_dict(state)
    assert torch.equal(activate(net, {})(x)[0], plain.eval()(x)[0])


def test_width_rule_knows_the_overriding_classes():
    # 3 x (3 + 5) = 24 outputs: a nominal width of 24 stays as it is, in searchable rows as in plain ones.
    cfg = {**SMALL, "anchors": 3, "backbone": [[-1, 1, "NASConv", [24, 3, 2]], [-1, 1, "Conv", [24]]], "head": []}
    assert NASBACKBONE(cfg=cfg, nc=3).channels == [24, 24]
    assert NASBACKBONE(cfg=cfg, nc=4).channels == [16, 16]


# Within fixed_arch.


@pytest.mark.parametrize("given", ["mapping", "file"])
def test_fixed_arch_builds_the_plain_network(tmp_path, given):
    arch = {"nasconv_0": "1", "c3_2": 2, "c3_2_m1": 1.5, "nasconv_4_act": 1}
    path = tmp_path / "arch.json"
    path.write_text('{"nasconv_0": "1", "c3_2": 2, "c3_2_m1": 1.5, "nasconv_4_act": 1}')
    with fixed_arch(arch if given == "mapping" else path):
        backbone = NASBACKBONE(cfg=SMALL, nc=6, ch=1)
        detector = NASDETECTOR(cfg=SMALL, anchors=2)
    assert type(backbone) is Classifier
    assert type(detector) is Model
    assert detector.head.na == 2
    assert backbone(torch.rand(2, 1, 64, 64)).shape == (2, 6)
    net = supernet(NASBACKBONE(cfg=SMALL, nc=6, ch=1))
    backbone.load_state_dict(slice_weights(net, arch)[1])  # the same keys and shapes
    assert isinstance(NASBACKBONE(cfg=SMALL), NASBACKBONE)  # outside it is a space again


def test_fixed_arch_refuses_what_does_not_fit(tmp_path):
    with refused("'zz' is not of the space"), fixed_arch({"zz": 1}):
        NASBACKBONE(cfg=SMALL)
    with refused("gone.json", "no such arch file"), fixed_arch(tmp_path / "gone.json"):
        pass


# Refusals.


def test_slicing_needs_a_supernet_and_its_arch():
    with refused("without shared weights", "one-shot"):
        slice_weights(NASBACKBONE(cfg=SMALL), {})
    net = supernet(NASBACKBONE(cfg=SMALL))
    with refused("'nasconv_9' is not of the space model dict"):
        slice_weights(net, {"nasconv_9": 0})
    with refused("'nasconv_0'", "valid are 0, 1, 2"):
        slice_weights(net, {"nasconv_0": 3})


def test_searchable_row_of_open_input_width_is_refused():
    rows = [[-1, 1, "Conv", [{"choice": [16, 32]}]], [-1, 1, "NASConv", [16]]]
    with refused("model dict: row 1 (NASConv)", "input has a width that is open"):
        NASBACKBONE(cfg={"nc": 2, "backbone": rows})


def test_searchable_row_with_two_inputs_is_refused():
    rows = [[-1, 1, "Conv", [16]], [[-1, 0], 1, "NASConv", [16]]]
    with refused("model dict: row 1 (NASConv)", "takes one input"):
        NASBACKBONE(cfg={"nc": 2, "backbone": rows})


def test_space_is_found_wherever_it_is_given(tmp_path):
    raw = read_config("models/yolov5nb_nas.yaml").raw
    assert NASBACKBONE(cfg=raw, nc=2).space.decisions == Space("yolov5nb_nas.yaml").decisions
    assert randomized(NASBACKBONE(cfg=raw, nc=2))(X).shape == (2, 2)  # a model space is a network of first choices
