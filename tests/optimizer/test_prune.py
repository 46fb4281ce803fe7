"""Pruning: the result is the masked network, to the last bit, and a plain YAML whose costs are exact."""

import functools

import pytest
import torch

from models import Model, load_detector, save_detector
from models.catalog import is_head, registered
from models.classifier import Classifier
from models.complexity import count_flops, count_params
from models.files import dump_model_yaml
from models.grammar import read_config
from models.plugins import load_plugin
from models.yolov5_rows import MODULES
from optimizer import export_onnx, yolov5_form
from optimizer.prune import UnreachableError, masked, prune
from optimizer.scores import METHODS, channel_scores
from optimizer.widths import Widths
from spaces import CostModel, Space
from tests.lively import TINY
from tests.random_state import randomized
from tests.refusal import refused

# A number of this grid times another has half as many bits as float64, so that sums of such products are exact in any
# order: how a convolution blocks its sums depends on how many channels it has, and float32 shows that in its last bits.
GRID = 2.0**-12


def _on_grid(x):
    return (x / GRID).round() * GRID


@torch.no_grad()
def _exact(network):
    """The network in float64, weights and what every layer gives on the grid."""
    network = network.double()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(_on_grid(tensor))
    for module in network.modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda m, x, y: _on_grid(y) if isinstance(y, torch.Tensor) else y)
    return network


def _outputs(network, size=64):
    x = torch.rand(2, network.config.ch, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = network(_on_grid(x.double()) if next(network.parameters()).dtype == torch.float64 else x)
    return torch.cat([level.flatten() for level in (y[1] if isinstance(y, tuple) else [y])])


def _made(cfg, nc=None, seed=0):
    """A network, its batch norms and logits lively."""
    torch.manual_seed(seed)
    config = read_config(cfg, nc=nc)
    network = randomized((Model if is_head(config.rows[-1]) else Classifier)(config))
    if isinstance(network, Classifier):
        network.linear.weight.data.mul_(30)
    return network


def _pruned(network, sparsity=0.4, method="l1", **given):
    return prune(network, functools.partial(channel_scores, network, method=method), sparsity, **given)


def _check(network, pruned, size=64):
    """Equal to the masked network, which is not the network; and what the YAML says."""
    mask, narrow = masked(network, pruned.segments, pruned.kept), pruned.network
    torch.testing.assert_close(_outputs(narrow, size), _outputs(mask, size), rtol=1e-4, atol=1e-4)
    again = type(network)(read_config(narrow.config.raw))
    again.load_state_dict(narrow.state_dict())
    assert count_params(again) == count_params(narrow) < count_params(network)
    got, expected = _outputs(_exact(again.eval()), size), _outputs(_exact(mask), size)
    assert torch.equal(got, expected)
    assert not torch.allclose(expected, _outputs(network, size).double(), atol=1e-3)


# Behind a convolution of 32 channels, and with one behind.
ROWS = {
    "Conv": [-1, 1, "Conv", [32, 3, 2]],
    "DWConv": [-1, 1, "DWConv", [32, 3, 2]],
    "Bottleneck": [-1, 2, "Bottleneck", [32]],
    "BottleneckCSP": [-1, 2, "BottleneckCSP", [32]],
    "C3": [-1, 2, "C3", [32, True, {"m_e": [0.5, 1.0], "cv1_k": 3}]],
    "C3x": [-1, 2, "C3x", [32]],
    "C3TR": [-1, 1, "C3TR", [64]],
    "C3SPP": [-1, 1, "C3SPP", [32, [3, 5]]],
    "C3Ghost": [-1, 1, "C3Ghost", [64]],
    "C2f": [-1, 2, "C2f", [64, True]],
    "C3k": [-1, 1, "C3k", [32]],
    "C3k2": [-1, 1, "C3k2", [64, True]],
    "C2fCIB": [-1, 1, "C2fCIB", [64, True, True]],
    "SCDown": [-1, 1, "SCDown", [32, 3, 2]],
    "PSA": [-1, 1, "PSA", [32]],
    "C2PSA": [-1, 1, "C2PSA", [32]],
    "GhostConv": [-1, 1, "GhostConv", [32, 1, 2]],
    "GhostBottleneck": [-1, 1, "GhostBottleneck", [64, 3, 2]],
    "SPP": [-1, 1, "SPP", [32, [5, 9]]],
    "SPPF": [-1, 1, "SPPF", [32, 5, 3, True]],
    "Focus": [-1, 1, "Focus", [32, 3]],
    "CrossConv": [-1, 1, "CrossConv", [32, 3, 1, 1, 0.5, True]],
    "MixConv2d": [-1, 1, "MixConv2d", [32, [1, 3], 2]],
    "Contract": [-1, 1, "Contract", [2]],
    "Expand": [-1, 1, "Expand", [2]],
    "Concat": [[-1, 0], 1, "Concat", [1]],
    "nn.Upsample": [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    "nn.MaxPool2d": [-1, 1, "nn.MaxPool2d", [2, 2, 0]],
    "nn.ZeroPad2d": [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]],
    "nn.ConvTranspose2d": [-1, 1, "nn.ConvTranspose2d", [32, 2, 2]],
    "DWConvTranspose2d": [-1, 1, "DWConvTranspose2d", [32, 4, 2, 1]],
    "nn.BatchNorm2d": [-1, 1, "nn.BatchNorm2d", []],
    "Add": [[-1, 0], 1, "Add", []],
    "MBConv": [-1, 2, "MBConv", [32, 3, 1, [4, 2], 0.25]],
    "GlobalPool": [-1, 1, "GlobalPool", []],
    "Pointwise": [-1, 1, "Pointwise", [32]],
    "ResBasic": [-1, 2, "ResBasic", [64, 3, 2]],
    "ResBottleneck": [-1, 2, "ResBottleneck", [64, 3, 1]],
    "RegBottleneck": [-1, 2, "RegBottleneck", [32, 8, 3, 2, 0.25]],
    "ELAN1": [-1, 1, "ELAN1", [32, 32, 16]],
    "RepNCSPELAN4": [-1, 1, "RepNCSPELAN4", [32, 32, 16, 1]],
    "SPPELAN": [-1, 1, "SPPELAN", [32, 16]],
    "AConv": [-1, 1, "AConv", [32]],
    "ADown": [-1, 1, "ADown", [32]],
    "RepConv": [-1, 1, "RepConv", [32, 3, 2]],
    "RepNCSP": [-1, 1, "RepNCSP", [32]],
    "RepCSP": [-1, 1, "RepCSP", [32]],
    "A2C2f": [-1, 1, "A2C2f", [64, True, 1]],
    "Silence": [-1, 1, "Silence", []],
    "FBNet": [-1, 1, "FBNet", [32, "k3_e1_g2", 2]],
}
# They give several maps, or take those: `SEVERAL` has them.
# Whose channels a layer norm takes together, so that they stay: tests/models/test_vit.py.
TRANSFORMERS = {"PatchEmbed", "Encoder", "ChannelNorm"}
TOGETHER = {"SharedTowers", "Pick", "CBLinear", "CBFuse"}
SEVERAL = {
    "towers": [[[0, 0], 2, "SharedTowers", [32]], [1, 1, "Pick", [0]], [1, 1, "Pick", [1]], [[-1, -2], 1, "Add", []]],
    "reversible": [[0, 1, "CBLinear", [[32, 48]]], [0, 1, "Conv", [48, 3, 2]], [[1, 2], 1, "CBFuse", [[1]]]],
}


def test_every_block_is_looked_at():
    heads = {name for name, entry in registered().items() if is_head(_row(name))}
    assert set(ROWS) | TOGETHER | TRANSFORMERS == set(registered()) - heads


def _row(name):
    return read_config({"backbone": [[-1, 1, name, []]]}).rows[0]


def _around(*rows, multiple=1.0):
    first = [-1, 1, "Conv", [32 / multiple, 3, 2]]
    return {"width_multiple": multiple, "backbone": [first, *rows, [-1, 1, "Conv", [32, 1]]]}


@pytest.mark.parametrize("rows", [*([row] for row in ROWS.values()), *SEVERAL.values()], ids=[*ROWS, *SEVERAL])
def test_blocks(rows):
    network = _made(_around(*rows, multiple=1.0 if len(rows) == 1 else 0.5), nc=10)
    _check(network, _pruned(network, 0.4, scope="layer"))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("method", ["l1", "l2", "fpgm", "random"])
def test_a_detector(method, scope):
    network = _made(TINY, nc=10)
    pruned = _pruned(network, 0.4, method, scope=scope)
    _check(network, pruned)
    assert 0.2 < pruned.sparsity < 0.6


@pytest.fixture(scope="module")
def tiny():
    return _made(TINY, nc=10)


def test_the_anchor_free_head():
    """Whose branches are as wide as its first level."""
    levels = TINY["head"][:-1]
    cfg = {**TINY, "head": [*levels, [[8, 5], 1, "Detect", ["nc"]]], "end2end": True}
    network = _made({k: v for k, v in cfg.items() if k != "anchors"}, nc=10)
    pruned = _pruned(network, 0.5, scope="layer")
    _check(network, pruned)
    width = pruned.network.channels[8]
    assert pruned.network.head.cv3[0][1].conv.in_channels == width < network.channels[8]
    assert pruned.network.head.cv3[0][2].out_channels == 10


def test_widths_are_multiples_and_the_yaml_is_upstreams(tiny):
    config = _pruned(tiny, 0.3).network.config
    assert all(row.module in MODULES and not row.kwargs for row in config.rows)
    assert all(channels % 8 == 0 for channels in _pruned(tiny, 0.3).network.channels[:-1])
    assert "channel_multiple" not in config.raw
    assert yolov5_form(_pruned(tiny, 0.3).network).split == ()
    odd = _pruned(tiny, 0.3, scope="layer", multiple=1)
    assert odd.network.config.raw["channel_multiple"] == 1
    assert odd.sparsity == pytest.approx(0.3, abs=0.04)
    _check(tiny, odd)


def test_costs_are_exact_and_targets_are_kept(tiny):
    flops = functools.partial(count_flops, imgsz=64)
    for cost, name in ((flops, "flops"), (count_params, "params")):
        limit = 0.6 * cost(tiny)
        pruned = _pruned(tiny, None, cost=cost, limit=limit)
        found = cost(pruned.network)
        assert 0.8 * limit < found <= limit
        model = CostModel(Space(pruned.network.config), 64)
        assert model.batch(model.indices([{}]))[name].tolist() == [found]
    with pytest.raises(UnreachableError) as caught:
        _pruned(tiny, None, cost=count_params, limit=100)
    assert 100 < caught.value.least < count_params(tiny) / 2


@torch.no_grad()
def test_files_and_onnx(tiny, tmp_path):
    narrow = _pruned(tiny, 0.4).network
    save_detector(narrow, tmp_path / "a.pt")
    again = load_detector(tmp_path / "a.pt")[0]
    assert torch.equal(_outputs(again), _outputs(narrow))
    assert again.names == tiny.names
    assert torch.equal(again.head.anchors, tiny.head.anchors)
    assert export_onnx(narrow, tmp_path / "a.onnx", 64).difference.used < 1


def test_the_least_important_channels_go():
    """Of a convolution with known filters, and of those that are added up."""
    network = _made({"backbone": [[-1, 1, "Conv", [16, 3]], [-1, 1, "Conv", [16, 3]], [[0, 1], 1, "Add", []]]}, nc=2)
    weak = [1, 2, 3, 5, 8, 11, 13, 14]
    for name, factor in (("model.0.conv.weight", 0.02), ("model.1.conv.weight", 0.01)):
        network.get_parameter(name).data[weak] *= factor
    for method in ("l1", "l2"):
        pruned = _pruned(network, 0.5, method)
        left = [i for i in range(16) if i not in weak]
        for row in (0, 1):
            expected = network.get_parameter(f"model.{row}.bn.weight").data[left]
            assert torch.equal(pruned.network.get_parameter(f"model.{row}.bn.weight").data, expected)


def test_scores_of_filters():
    network = Classifier({"channel_multiple": 1, "backbone": [[-1, 1, "Conv", [4, 1]]], "ch": 1}, 2)
    network.model[0].conv.weight.data = torch.tensor([0.0, 1.0, 3.0, -4.0]).view(4, 1, 1, 1)
    segments = _segments(network)
    (own,) = segments.given["model.0.conv"]
    for method, expected in (("l1", [0, 1, 3, 4]), ("l2", [0, 1, 3, 4]), ("fpgm", [8, 8, 12, 16])):
        score = channel_scores(network, segments, method)[own]
        assert score.tolist() == pytest.approx([x / (sum(expected) / 4) for x in expected])
    first, again, other = (channel_scores(network, segments, "random", seed=seed)[own] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def _segments(network):
    return Widths(network.config, 64).segments


def test_taylor_is_what_the_loss_changes_by():
    """To first order: beside the difference that a channel, made a little smaller, makes."""
    network = _made({"backbone": [[-1, 1, "Conv", [8, 3]], [-1, 1, "Conv", [8, 3]]]}, nc=3).double()
    x, y = torch.rand(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 0])

    def loss():
        return torch.nn.functional.cross_entropy(network(x), y)

    segments = _segments(network)
    scores = channel_scores(network, segments, "taylor", [loss(), loss()])[segments.given["model.0.conv"][0]]
    small, before = 1e-6, loss().item()
    for i in range(8):
        norm = network.model[0].bn
        with torch.no_grad():
            norm.weight[i] *= 1 + small
            norm.bias[i] *= 1 + small
            change = (loss().item() - before) / small
            norm.weight[i] /= 1 + small
            norm.bias[i] /= 1 + small
        assert float(scores[i]) == pytest.approx(change**2, rel=1e-3)


def test_what_cannot_be_pruned_is_refused(tiny):
    grouped = {"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 1, None, 2]]]}
    with refused("nothing of it can be pruned", "grouped convolution"):
        _pruned(_made(grouped, nc=2))
    with refused("--method l3", ", ".join(METHODS)):
        _pruned(tiny, method="l3")
    with refused("--sparsity 1.5"):
        _pruned(tiny, 1.5)
    with refused("--method taylor", "--data"):
        _pruned(tiny, method="taylor")
    with refused("--scope all"):
        _pruned(tiny, scope="all")
    headless = Classifier({"backbone": [[-1, 1, "Conv", [8, 3, 2]]]}, 2)
    headless.config = read_config({"backbone": [[-1, 1, "Conv", [8, 3, 2]]]})
    with refused("right would be a detector or a classifier"):
        _pruned(headless)


PLUGIN = """
from torch import nn
from models.registry import register

@register
class Softly(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1)

    def forward(self, x):
        return self.conv(x).softmax(1)  # over channels
"""


def test_a_block_that_mixes_channels_is_refused(tmp_path):
    (tmp_path / "softly.py").write_text(PLUGIN)
    load_plugin(tmp_path / "softly.py")
    network = _made({"backbone": [[-1, 1, "Conv", [16, 3]], [-1, 1, "Softly", [16]], [-1, 1, "Conv", [16]]]}, nc=2)
    with refused("cannot be pruned", "does more with its channels"):
        _pruned(network, 0.5, scope="layer")


FAMILIES = (
    "yolov5n",
    "yolov5n_dfl",
    "yolov8n",
    "yolov9t",
    "yolov9e",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo12l",
    "yolo26n",
)
MORE = ("yolov5n6", "yolov5s-ghost", "yolov5s-transformer", "yolov5-bifpn", "yolov5-p2", "yolov3-tiny", "yolov5u")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *MORE])
def test_families(name):
    network = _made(f"{name}.yaml")
    pruned = _pruned(network, 0.5)
    _check(network, pruned)
    assert pruned.sparsity == pytest.approx(0.5, abs=0.05)
    assert dump_model_yaml(pruned.network.config.raw)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_bignas", "mobilenetv2_compofa", "resnet_bignas", "yolov5n_nas"])
def test_archs_of_spaces(name):
    space = Space(read_config(f"{name}.yaml"))
    network = _made(space.freeze(space.upstream()), nc=10)
    _check(network, _pruned(network, 0.4))


BESIDE = ("yolov5n", "yolov5n_dfl", "yolov5s-ghost", "yolov3-tiny")


@pytest.mark.parametrize("cfg", [TINY, *(pytest.param(f"{n}.yaml", marks=pytest.mark.slow) for n in BESIDE)])
def test_as_torch_pruning_prunes(cfg):
    """The same channels of the same layers, taken away by the dependency graph of another package.

    Not of YOLOv8's: its version 1.6.1 does not follow the halves of C2f (its example for YOLOv8 replaces the block).
    """
    tp = pytest.importorskip("torch_pruning")
    network = _made(cfg, nc=10)
    pruned = _pruned(network, 0.4)
    segments, other = pruned.segments, _made(cfg, nc=10)
    other.load_state_dict(network.state_dict())
    for p in other.parameters():
        p.requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(other, torch.rand(1, 3, 64, 64))
    gone = set()
    for name, given in segments.given.items():
        layer = other.get_submodule(name)
        if not isinstance(layer, torch.nn.Conv2d) or layer.groups > 1:
            continue
        # Channels of the layer that are there still, and those of them that are to go.
        channels = [(s, i) for s in given for i in range(segments.lengths[s])]
        left = [c for c in channels if c not in gone]
        places = [k for k, (s, i) in enumerate(left) if i not in pruned.kept[s].tolist()]
        if places:
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, places).prune()
            gone |= {left[k] for k in places}
    assert count_params(other) == count_params(pruned.network)
    theirs, ours = other.state_dict(), pruned.network.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
