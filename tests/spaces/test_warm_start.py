"""A trained network in a supernet: the subnet that is it, what is grown around it, and the order of its channels."""

import random

import pytest
import torch
from torch import nn

from models import Classifier, Model, read_config
from models.blocks import Bottleneck, GhostBottleneck, ResBasic, activation, default_activation
from models.blocks.mobile import InvertedResidual
from models.grammar import Call
from optimizer import calibrate_bn
from spaces import NASBACKBONE, NASDETECTOR, Space, apply_policy, make_supernet, slice_weights
from spaces.channel_order import order_channels
from spaces.elastic_trace import layers
from spaces.identity import make_identity
from spaces.warm_start import warm_start
from tests.random_state import randomized
from tests.refusal import refused
from tests.spaces.supernets import SMALL

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NAMES = ["cat", "dog", "emu"]


def choice(*values, **keys):
    return {"choice": list(values), **keys}


def plain(**changes):
    """A small detector with what the elastic rules are about, by arguments that a space may leave open."""
    at = {"stem": 16, "k": 3, "n": 1, "wide": 24, "e": 0.5, "out": 32, "n_head": 1, "head": 24, "act": "nn.SiLU()"}
    at |= changes
    return {
        "nc": 3,
        "names": NAMES,
        "activation": at["act"],
        "channel_multiple": 4,
        "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
        "backbone": [
            [-1, 1, "Conv", [at["stem"], 6, 2, 2]],
            [-1, 1, "Conv", [at["wide"], at["k"], 2]],
            [-1, at["n"], "C3", [at["wide"], {"e": at["e"]}]],
            [-1, 1, "Bottleneck", [at["wide"]]],
            [-1, 1, "Conv", [at["out"], at["k"], 2]],
            [-1, 1, "SPPF", [at["out"], 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, at["n_head"], "C3", [at["head"], False]],
            [[-1, 5], 1, "Detect", ["nc", "anchors"]],
        ],
    }


def elastic(**changes):
    """The space around `plain`."""
    return plain(
        **{
            "stem": choice(8, 16, 24, label="stem", plain=16),
            "k": choice(3, 5, label="k", plain=3),
            "n": choice(1, 2, 3, label="n", plain=1),
            "wide": choice(16, 24, 32, label="wide", plain=24),
            "e": choice(0.25, 0.5, 0.75, label="e", plain=0.5),
            "out": choice(24, 32, 40, label="out", plain=32),
            "n_head": choice(1, 2, label="n_head", plain=1),
            "head": choice(16, 24, 32, label="head", plain=24),
            **changes,
        }
    )


# Rows of many sorts: a ghost convolution, squeeze-and-excite, a depth-wise convolution, a sum, a grouped convolution.
SORTS = {
    "nc": 3,
    "channel_multiple": 4,
    "backbone": [
        [-1, 1, "Conv", [choice(16, 24, label="a", plain=16), 3, 2]],
        [-1, 1, "GhostConv", [choice(16, 24, label="b", plain=16), 1]],
        [-1, 1, "Conv", [choice(16, 24, label="b", plain=16), 1]],
        [-1, choice(1, 2, plain=1), "MBConv", [choice(16, 24, label="b", plain=16), 3, 1, choice(2, 3, plain=2), 0.25]],
        [-1, 1, "Conv", [32, 1]],
        [-1, 1, "DWConv", [32, 3, 2]],
        [-1, 1, "Conv", [choice(16, 24, label="c", plain=16), 3]],
        [-2, 1, "Conv", [choice(16, 24, label="c", plain=16), 1]],
        [[-1, -2], 1, "Add", []],
        [-1, 1, "BottleneckCSP", [choice(24, 32, label="d", plain=24)]],
        [-1, 1, "ResBasic", [choice(24, 32, label="d", plain=24), 3, 1, choice(0.5, 1.0, plain=0.5)]],
        [-1, 1, "Conv", [32, 1]],
        [-1, 1, "Conv", [32, 3, 1, "None", 4]],
    ],
}
# Sums of maps, and towers that run on each of several maps.
TOWERS = {**read_config("resnet_bignas.yaml").raw, "width_multiple": 0.125, "channel_multiple": 4, "nc": 3}


def supernet(cfg, seed=0, **keys):
    torch.manual_seed(seed)
    is_detector = read_config(cfg).rows[-1].module == "Detect"
    return randomized(make_supernet((NASDETECTOR if is_detector else NASBACKBONE)(cfg, **keys)), seed)


def trained(cfg, seed=1, **keys):
    """A plain network whose batch norms do something."""
    torch.manual_seed(seed)
    config = read_config(cfg, **keys)
    return randomized((Model if config.rows[-1].module == "Detect" else Classifier)(config), seed)


def warm(cfg, network, **keys):
    net = supernet(cfg, **keys)
    return net, warm_start(net, network.config.raw, network.state_dict())


@torch.no_grad()
def output(network):
    """Logits; of a detector, of all levels."""
    y = network.eval()(X)
    return torch.cat([level.flatten(1) for level in y[1]], 1) if isinstance(y, tuple) else y


def subnet(net, arch):
    raw, state = slice_weights(net, arch)
    found = (Model if isinstance(net, NASDETECTOR) else Classifier)(raw)
    found.load_state_dict(state)
    return found.eval()


def differ(a, b):
    return float((a - b).abs().max() / b.abs().max())


def between(start, space, rng, fixed=()):
    """An arch that holds the network: every decision at its value, at a larger one, or at that of the largest."""
    found = {}
    for label, decision in space.decisions.items():
        low, high = (decision.values.index(arch[label]) for arch in (start.arch, start.largest))
        # Kernels of NASConv are in no order; its larger one is the last.
        between = [low, high] if high < low or label.startswith("nasconv") else range(low, high + 1)
        found[label] = start.arch[label] if label in fixed else decision.values[rng.choice(list(between))]
    return found


NETWORKS = {
    "small": lambda: (elastic(), plain(), {}),
    "sorts": lambda: (SORTS, Space(SORTS).freeze(Space(SORTS).upstream()), {}),
    "towers": lambda: (TOWERS, Space(TOWERS).freeze(Space(TOWERS).upstream()), {}),
    "n_bignas": lambda: ("yolov5n_bignas.yaml", "yolov5n.yaml", {"nc": 4}),
    "s_bignas": lambda: ("yolov5s_bignas.yaml", "yolov5s.yaml", {"nc": 4}),
    "policy": lambda: (apply_policy("yolov5n.yaml", "elastic"), "yolov5n.yaml", {"nc": 4}),
    "nas": lambda: (SMALL, Space(SMALL).freeze(Space(SMALL).upstream()), {}),
    "n_nas": lambda: ("yolov5n_nas.yaml", "yolov5n.yaml", {"nc": 4}),
    "nb_nas": lambda: ("yolov5nb_nas.yaml", Space("yolov5nb_nas.yaml").freeze({}), {"nc": 4}),
}
SLOW = ("s_bignas", "nb_nas")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS], scope="module"
)
class TestNetworksOfTheirSpaces:
    @pytest.fixture(scope="class")
    def found(self, name):
        cfg, own, keys = NETWORKS[name]()
        network = trained(own, **keys)
        return (*warm(cfg, network, **keys), network)

    def test_the_subnet_is_the_network(self, found):
        net, start, network = found
        expected = output(network)
        assert start.is_exact
        assert start.arch == net.space.upstream()
        assert torch.equal(output(subnet(net, start.arch)), expected)
        net.activate(start.arch)
        assert torch.equal(output(net), expected)

    def test_what_is_larger_computes_the_same(self, found):
        net, start, network = found
        expected, rng = output(network), random.Random(0)
        depth = {f"row{row.split()[1]}.number" for row in start.shifted} | {"n_head"}
        assert start.grown > 0
        assert differ(output(subnet(net, between(start, net.space, rng, depth | {"n"}))), expected) < 1e-5
        largest = {k: start.arch[k] if k in depth else v for k, v in start.largest.items()}
        assert largest != start.arch
        assert differ(output(subnet(net, largest)), expected) < 1e-5
        for _ in range(2):
            assert differ(output(subnet(net, between(start, net.space, rng, depth))), expected) < 1e-5


@pytest.mark.parametrize("change", [{"n_head": 2}, None], ids=["deeper", "largest"])
def test_deeper_without_a_shortcut_is_the_same_with_statistics_of_its_own(change):
    """What blocks add there are constants, which batch norms take away."""
    images = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network, net = trained(plain()), supernet(elastic())
    start = warm_start(net, network.config.raw, network.state_dict(), images=images)
    assert (start.inexact, start.shifted) == ((), ("row 8 (C3)",))
    assert "row 8 (C3)" in str(start)
    assert "\n" not in str(start)
    deep = subnet(net, start.largest if change is None else {**start.arch, **change})
    assert differ(output(deep), output(network)) > 0.01
    assert differ(output(calibrate_bn(deep, [images])), output(calibrate_bn(network, [images]))) < 1e-3


def test_an_activation_that_is_its_own_square_root():
    relu = plain(act="nn.ReLU()")
    net, start = warm(elastic(act="nn.ReLU()"), network := trained(relu))
    assert (start.inexact, start.shifted) == ((), ())  # ReLU twice is ReLU
    assert differ(output(subnet(net, start.largest)), output(network)) < 1e-5


def test_nothing_takes_constants_away_before_a_head():
    """Then blocks more are as near to the identity as their activation allows."""
    head = [[-1, choice(1, 2, plain=1), "Bottleneck", [32, False]], [[-1], 1, "Detect", ["nc", "anchors"]]]
    cfg = {"nc": 3, "anchors": [[10, 13, 16, 30]], "backbone": [[-1, 1, "Conv", [32, 3, 2]]], "head": head}
    network = trained(Space(cfg).freeze(Space(cfg).upstream()))
    net, start = warm(cfg, network)
    assert (start.inexact, start.shifted) == (("row 1 (Bottleneck)",), ())
    assert differ(output(subnet(net, start.largest)), output(network)) < 0.5


def test_rows_that_take_channels_together_otherwise_are_named():
    groups = [[-1, 1, "Conv", [choice(16, 24, plain=16), 3, 2]], [-1, 1, "Conv", [32, 3, 1, "None", 4]]]
    cfg = {"nc": 3, "backbone": [*groups, [-1, 1, "Conv", [32, 1]]]}
    net, start = warm(cfg, network := trained(Space(cfg).freeze(Space(cfg).upstream())))
    assert start.is_exact
    assert start.inexact == ("row 1 (Conv)",)
    assert differ(output(subnet(net, start.largest)), output(network)) > 1e-3


def test_new_channels_are_no_copies_and_get_gradients():
    net, start = warm(elastic(), trained(plain()))
    whole = net.model[4].block.conv.weight
    assert (whole[32:].flatten(1).std(1) > 0).all()
    assert (whole[:32, 24:] == 0).all()
    net.activate(start.largest)
    for _ in range(2):  # first what reads them, then what makes them
        net.train()(X)[0].square().mean().backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad if p.grad is not None else 0
        gradient = whole.grad.clone()
        net.zero_grad()
    assert gradient[32:].abs().sum() > 0
    assert gradient[:32, 24:].abs().sum() > 0


@pytest.mark.parametrize(
    ("build", "exact"),
    [
        (lambda: Bottleneck(16, 16), True),
        (lambda: GhostBottleneck(16, 16), True),
        (lambda: InvertedResidual(16, 16, se=0.25), True),
        (lambda: Bottleneck(16, 16, False, e=1.0), False),
        (lambda: Bottleneck(16, 16, False, hidden=24), False),
    ],
)
def test_identity(build, exact):
    torch.manual_seed(0)
    block = randomized(build())
    x = nn.functional.silu(torch.randn(8, 16, 8, 8))
    error = make_identity(block, x)
    y = block.eval()(x)
    if exact:
        assert error == 0
        assert torch.equal(y, x)
        assert torch.equal(block.train()(x), x)
    else:
        assert 0 < error < 0.05
        assert 1e-4 < (y - x).square().mean() / x.var() < 0.05
        # And but for constants it is exact, with the statistics of batches too.
        assert make_identity(block, x, shifts=True) == 0
        for mode in (block.eval(), block.train()):
            apart = mode(x) - x
            assert float(apart.mean()) > 1
            assert float(apart.std((0, 2, 3)).max()) < 1e-3


def test_identity_behind_an_activation():
    x = torch.randn(8, 8, 8, 8)
    with default_activation(Call("nn.ReLU")):
        relu = ResBasic(8, 8)[0]
    silu = randomized(ResBasic(8, 8)[0])
    assert make_identity(relu, x.relu()) == 0
    assert make_identity(silu, nn.functional.silu(x)) > 0
    assert torch.equal(relu.eval()(x.relu()), x.relu())
    assert isinstance(activation(), nn.SiLU)


def test_a_network_narrower_than_the_space():
    """In a space without it the smallest subnet that holds it computes the same."""
    space = {"stem": 12, "wide": 12, "out": 20, "head": 12, "e": 0.25}
    network = trained(plain(**space))
    net, start = warm(elastic(), network)
    assert not start.is_exact
    expected = {"stem": 16, "wide": 16, "out": 24, "head": 16, "e": 0.25, "k": 3, "n": 1, "n_head": 1}
    assert start.arch == expected
    for arch in (start.arch, {**start.largest, "n_head": 1}):
        assert differ(output(subnet(net, arch)), output(network)) < 1e-5
    order_channels(net, start)
    for arch in (start.arch, {**start.largest, "n_head": 1}):
        assert differ(output(subnet(net, arch)), output(network)) < 1e-5


def test_candidates_have_the_trained_kernel_or_its_centre():
    network = trained(Space(SMALL).freeze(Space(SMALL).upstream()))
    net, _ = warm(SMALL, network)
    kernels = {conv.kernel_size[0]: conv.weight for conv in net.model[4].conv}
    own = network.model[4].conv.weight
    assert sorted(kernels) == [1, 3, 5]
    assert torch.equal(kernels[3], own)
    assert torch.equal(kernels[1], own[:, :, 1:2, 1:2])
    assert torch.equal(kernels[5], nn.functional.pad(own, (1, 1, 1, 1)))
    widths = net.model[2]
    own = network.model[2].cv3.conv.weight
    for candidate, ratio in zip(widths, (1, 1.5, 2), strict=True):
        hidden, trained_hidden = candidate.cv2.bn.num_features, own.shape[1] // 2
        assert hidden == ratio * trained_hidden
        weight = candidate.cv3.conv.weight
        for i in (0, 1):  # both runs of the concatenation
            part = weight[:, i * hidden : (i + 1) * hidden]
            assert torch.equal(part[:, :trained_hidden], own[:, i * trained_hidden : (i + 1) * trained_hidden])
            assert (part[:, trained_hidden:] == 0).all()


def test_a_searched_network_is_found():
    """Also one that a search found, by its YAML alone."""
    for cfg in (elastic(), SORTS, SMALL):
        space = Space(cfg)
        arch = space.sample(random.Random(1))
        network = trained(space.freeze(arch))
        net, start = warm(cfg, network)
        assert start.is_exact
        assert torch.equal(output(subnet(net, start.arch)), output(network))
        assert Space(cfg).freeze(start.arch) == Space(cfg).freeze(arch)


def test_a_backbone_begins_with_a_detectors_weights():
    network = trained(plain())
    cfg = {k: v for k, v in elastic().items() if k not in ("head", "names")}
    net, start = warm({**cfg, "nc": 7}, network)
    assert start.is_exact
    with torch.no_grad():
        rows = subnet(net, start.arch).run_rows(X)
        assert torch.equal(rows, network.model[5](_rows(network, 5)))


def _rows(network, num):
    x = X
    for row in list(network.model)[:num]:
        x = row(x)
    return x


def test_classes_are_carried_over_by_name():
    network = trained(plain())
    cfg = {**elastic(), "nc": 4, "names": ["dog", "yak", "cat", "fox"]}
    net = supernet(cfg)
    net.head.anchors *= 2
    fresh, anchors = [conv.weight.clone() for conv in net.head.m], net.head.anchors.clone()
    biases = [conv.bias.clone() for conv in net.head.m]
    start = warm_start(net, network.config.raw, network.state_dict())
    assert start.classes == ("dog", "cat")
    assert "2 of 4 classes" in str(start)
    assert torch.equal(net.head.anchors, anchors)
    for level, (conv, own) in enumerate(zip(net.head.m, network.head.m, strict=True)):
        c = own.in_channels
        for key in ("weight", "bias"):
            ours, theirs = getattr(conv, key).view(2, 9, -1), getattr(own, key).view(2, 8, -1)
            before = (fresh if key == "weight" else biases)[level].view(2, 9, -1)
            if key == "weight":
                ours, before = ours[:, :, :c], before[:, :, :c]
            assert torch.equal(ours[:, :5], theirs[:, :5])
            assert torch.equal(ours[:, 5], theirs[:, 6])
            assert torch.equal(ours[:, 7], theirs[:, 5])
            assert torch.equal(ours[:, [6, 8]], before[:, [6, 8]])
    # The names that are given are the network's, whatever its YAML says.
    given = warm_start(net, network.config.raw, network.state_dict(), {0: "fox", 1: "b", 2: "c"})
    assert given.classes == ("fox",)


def test_random_numbers_of_the_caller_are_left_alone():
    network, net = trained(plain()), supernet(elastic())
    state = torch.get_rng_state()
    start = warm_start(net, network.config.raw, network.state_dict())
    order_channels(net, start)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"wide": 36}, ("row 1 (Conv)", "36 channels wide", "at most 32", "right would be")),
        ({"n": 4}, ("row 2 (C3)", "4 blocks", "at most 3", "right would be")),
        ({"k": 7}, ("row 1 (Conv)", "'conv.weight' is [24, 16, 7, 7]", "right would be")),
        ({"e": 1.0}, ("row 2 (C3)", "'cv1.conv.weight' is [24, 24, 1, 1]", "right would be")),
        ({"act": "nn.ReLU()"}, ("row 0 (Conv)", "'act' is ReLU", "right would be")),
    ],
)
def test_a_network_that_no_subnet_holds(changes, parts):
    network, net = trained(plain(**changes)), supernet(elastic())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with refused(*parts):
        warm_start(net, network.config.raw, network.state_dict())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_other_rows_strides_anchors_and_images_are_refused():
    net = supernet(elastic())

    def wrong(change, *parts):
        cfg = plain()
        change(cfg)
        network = trained(cfg)
        with refused(*parts, "right would be"):
            warm_start(net, network.config.raw, network.state_dict())

    wrong(lambda c: c["backbone"].__setitem__(1, [-1, 1, "Conv", [24, 3, 4]]), "row 1 (Conv)", "stride (4, 4)")
    wrong(lambda c: c["backbone"].__setitem__(3, [-1, 1, "C3", [24]]), "row 3 (C3)", "Bottleneck")
    wrong(lambda c: c["head"].insert(3, [-1, 1, "Conv", [24]]), "row 9 (Conv)", "Detect")
    wrong(lambda c: c.update(anchors=[[10, 13], [30, 61]]), "row 9 (Detect)", "1 anchors a level", "2")
    wrong(lambda c: c.update(ch=1), "images of 1 channels", "3")
    with refused("no row of it", "another family", "right would be"):
        network = trained({"nc": 3, "backbone": [[-1, 1, "Focus", [16, 3]], [-1, 1, "MBConv", [16]]]})
        warm_start(net, network.config.raw, network.state_dict())
    with refused("'model.0.conv.weight' is [8, 3, 6, 6]", "[16, 3, 6, 6]", "right would be"):
        warm_start(net, plain(), trained(plain(stem=8)).state_dict())


def test_another_supernet_of_the_space():
    one, other = supernet(elastic(), seed=0), supernet(elastic(), seed=1)
    start = warm_start(one, other.space.config.raw, other.state_dict())
    assert start.arch is None
    for arch in (one.space.upstream(), one.space.sample(random.Random(0))):
        assert torch.equal(output(subnet(one, arch)), output(subnet(other, arch)))
    order_channels(one, start)
    with refused("another space", "'stem'", "[8, 16, 24]", "[8, 16]", "right would be"):
        narrow = supernet(elastic(stem=choice(8, 16, label="stem", plain=16)))
        warm_start(one, narrow.space.config.raw, narrow.state_dict())
    with refused("another space or task"):
        more = supernet({**elastic(), "nc": 5, "names": None})
        warm_start(one, more.space.config.raw, more.state_dict())


# Order.


def read_by(block, key, runs, width):
    """Importance of channels by one layer that reads them, whose inputs come in `runs` of which one begins at each."""
    weight = block.get_submodule(key).weight.detach().abs().sum((0, 2, 3))
    return sum(weight[start : start + width] for start in runs)


@pytest.mark.parametrize("name", ["small", "sorts", "towers", "nas", pytest.param("n_bignas", marks=pytest.mark.slow)])
def test_order_changes_no_function(name):
    cfg, _, keys = NETWORKS[name]()
    net = supernet(cfg, **keys)
    arch = {label: decision.values[-1] for label, decision in net.space.decisions.items()}
    before, state = output(subnet(net, arch)), {k: v.clone() for k, v in net.state_dict().items()}
    order_channels(net)
    assert differ(output(subnet(net, arch)), before) < 1e-5
    moved = {key.split(".")[1] for key, v in net.state_dict().items() if not torch.equal(v, state[key])}
    rows = {str(i) for i, row in enumerate(net.model) if layers(row)}
    grouped = {str(i) for i, row in enumerate(net.model) if getattr(getattr(row, "conv", None), "groups", 1) == 4}
    assert len(grouped) == (name == "sorts")
    assert moved - {"weight"} == rows - grouped
    again = {k: v.clone() for k, v in net.state_dict().items()}
    order_channels(net)  # they are in order
    assert all(torch.equal(v, again[k]) for k, v in net.state_dict().items())


def test_order_is_that_of_importance():
    net = supernet(elastic())
    order_channels(net)
    blocks = [row.block for row in net.model if hasattr(row, "block")]
    stem, first, c3, bottleneck, out = blocks[:5]
    importance = {
        "stem": read_by(first, "conv", [0], 24),
        "hidden of a bottleneck": read_by(c3, "m.1.cv2.conv", [0], 24),
        # Added up along the bottlenecks: all of them read these, and the last convolution does.
        "residual": sum(read_by(c3, f"m.{i}.cv1.conv", [0], 24) for i in range(3)) + read_by(c3, "cv3.conv", [0], 24),
        "beside it": read_by(c3, "cv3.conv", [24], 24),
        # Read by the bottleneck, and by whatever reads the sum: the next row, and the head through a concatenation.
        "shortcut": read_by(bottleneck, "cv1.conv", [0], 32)
        + read_by(out, "conv", [0], 32)
        + sum(read_by(net.model[8].block, f"{cv}.conv", [40], 32) for cv in ("cv1", "cv2")),
    }
    for what, values in importance.items():
        assert (values[:-1] >= values[1:] - 1e-4).all(), what
        assert (values[0] > values[-1]).all(), what
    assert stem.conv.out_channels == 24


def test_channels_of_the_network_come_first():
    network = trained(plain())
    net, start = warm(elastic(), network)
    largest = {**start.largest, "n_head": 1}
    order_channels(net, start)
    assert differ(output(subnet(net, start.arch)), output(network)) < 1e-5
    assert differ(output(subnet(net, largest)), output(network)) < 1e-5
    values = read_by(subnet(net, start.arch).model[1], "conv", [0], 16)
    assert (values[:-1] >= values[1:] - 1e-4).all()
    # Narrower subnets have the most important of them.
    unordered, _ = warm(elastic(), network)
    narrow = {**start.arch, "stem": 8}
    kept = [float(read_by(subnet(n, narrow).model[1], "conv", [0], 8).sum()) for n in (net, unordered)]
    assert kept[0] > kept[1]


def test_what_cannot_be_followed_is_refused(tmp_path):
    from models import register

    @register()
    class Scaled(nn.Module):
        """Weighs channels by their place, which no trace of channels sees."""

        def __init__(self, c1, c2):
            super().__init__()
            self.conv = nn.Conv2d(c1, c2, 1)
            self.register_buffer("scale", torch.linspace(0.1, 9, c2))

        def forward(self, x):
            y = self.conv(x)
            return torch.einsum("nchw,c->nchw", y, self.scale)

    rows = [[-1, 1, "Conv", [choice(8, 16), 3, 2]], [-1, 1, "Scaled", [16]], [-1, 1, "Conv", [choice(8, 16)]]]
    net = supernet({"nc": 3, "backbone": rows})
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with refused("cannot be ordered"):
        order_channels(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
