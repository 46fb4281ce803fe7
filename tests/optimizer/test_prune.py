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
from models.yolov5_rows import MODULES
from optimizer import export_onnx, yolov5_form
from optimizer.prune import UnreachableError, masked, prune
from optimizer.scores import METHODS, channel_scores
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
}
# They give several maps, or take those: `SEVERAL` has them.
TOGETHER = {"SharedTowers", "Pick", "CBLinear", "CBFuse"}
SEVERAL = {
    "towers": [[[0, 0], 2, "SharedTowers", [32]], [1, 1, "Pick", [0]], [1, 1, "Pick", [1]], [[-1, -2], 1, "Add", []]],
    "reversible": [[0, 1, "CBLinear", [[32, 48]]], [0, 1, "Conv", [48, 3, 2]], [[1, 2], 1, "CBFuse", [[1]]]],
}


def test_every_block_is_looked_at():
    heads = {name for name, entry in registered().items() if is_head(_row(name))}
    assert set(ROWS) | TOGETHER == set(registered()) - heads


def _row(name):
    return read_config({"backbone": [[-1, 1, name, []]]}).rows[0]


def _around(*rows, multiple=1.0):
    first = [-1, 1, "Conv", [32 / multiple, 3, 2]]
    return {"width_multiple": multiple, "backbone": [first, *rows, [-1, 1, "Conv", [32, 1]]]}


@pytest.mark.parametrize(
    "rows", [*([row] for row in ROWS.values()), *SEVERAL.values()], ids=[*ROWS, *SEVERAL]
)
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
