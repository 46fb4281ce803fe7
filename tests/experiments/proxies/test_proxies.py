"""Every proxy on every kind of network; and each beside what it is by hand."""

import math
import random

import numpy as np
import pytest
import torch

from experiments.proxies.base import RECTIFIERS
from experiments.proxies.gaussian import gaussian
from experiments.run import registry
from experiments.testing import ProxyContract
from models import Classifier, Model
from spaces import Space

NO_LOSS = None  # of proxies that look at no labels


class TestContract(ProxyContract):
    @pytest.fixture(autouse=True, params=registry.names("proxy"))
    def name(self, request):
        self.make = registry.load("proxy", request.param)


def chain(*rows, act="nn.ReLU()", nc=3):
    return {"nc": nc, "activation": act, "backbone": [[-1, 1, module, args] for module, args in rows]}


def proxy(name, *args):
    return registry.load("proxy", name)(*args)


@pytest.mark.parametrize(
    "file",
    [
        *("nasbench_macro", "mobilenetv3_bignas", "resnet_bignas", "yolov5n_nas"),
        *("hub/yolov5s-ghost", "hub/yolov5s-transformer"),
    ],
)
def test_scores_are_finite_for_every_family(file):
    space = Space(f"models/{file}.yaml")
    cfg = space.freeze(space.sample(random.Random(0)))
    cfg.update({"width_multiple": 0.125} if file.startswith("hub") else {})
    torch.manual_seed(0)
    network = Model(cfg) if space.config.has_head else Classifier(cfg)
    images = torch.rand(2, 3, 64, 64)

    def loss(network):
        outputs = network(images)
        return sum(y.square().mean() for y in (outputs if space.config.has_head else [outputs]))

    scores = {name: proxy(name, network, images, loss) for name in registry.names("proxy")}
    assert {name: s for name, s in scores.items() if not math.isfinite(s)} == {}


class TestNaswot:
    CFG = chain(("Conv", [8, 3, 2]), ("Conv", [4, 3, 2]))

    def test_is_the_determinant_of_agreements(self):
        torch.manual_seed(0)
        network, images = Classifier(self.CFG), torch.rand(5, 3, 8, 8)
        x, codes = images, []
        with torch.no_grad():
            for conv in network.model:
                y = torch.nn.functional.conv2d(x, conv.conv.weight, None, 2, 1)
                y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-3).sqrt()
                codes.append(y.flatten(1) > 0)
                x = y.clamp(min=0)
        code = torch.cat(codes, 1).numpy()
        agree = (code[:, None] == code[None, :]).sum(-1)
        assert proxy("naswot", network, images, NO_LOSS) == pytest.approx(np.linalg.slogdet(agree)[1], rel=1e-6)

    def test_a_smooth_knee_counts_by_the_sign_before_it(self):
        """Of one layer: the codes are those of a ReLU."""
        images, scores = torch.rand(5, 3, 8, 8), []
        for act in ("nn.ReLU()", "nn.SiLU()", "nn.Hardswish()"):
            torch.manual_seed(0)
            scores.append(proxy("naswot", Classifier(chain(("Conv", [8, 3, 2]), act=act)), images, NO_LOSS))
        assert scores[0] == scores[1] == scores[2]

    def test_gates_are_no_rectifiers(self):
        assert not any(issubclass(gate, RECTIFIERS) for gate in (torch.nn.Sigmoid, torch.nn.Hardsigmoid))


def test_grad_norm_is_of_each_layers_gradient():
    torch.manual_seed(0)
    network, images, labels = Classifier(TestNaswot.CFG), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])

    def loss(network):
        return torch.nn.functional.cross_entropy(network(images), labels)

    found = proxy("grad-norm", network, images, loss)
    loss(network).backward()
    layers = [network.model[0].conv, network.model[1].conv, network.linear]
    assert found == pytest.approx(sum(float(layer.weight.grad.norm()) for layer in layers))


@pytest.mark.parametrize("act", ["nn.ReLU6()", "nn.SiLU()"])
def test_synflow_is_the_flow_through_every_layer(act):
    """With no biases, each layer's sum of |w dR/dw| is R itself, whose weights have no signs."""
    torch.manual_seed(0)
    network = Classifier(chain(("Conv", [64, 1, 1]), ("Conv", [64, 1, 1]), ("Conv", [64, 1, 1]), act=act))
    torch.nn.init.zeros_(network.linear.bias)
    flow = torch.ones(3, dtype=torch.float64)
    for weight in [*(m.conv.weight.flatten(1) for m in network.model), network.linear.weight]:
        flow = weight.detach().double().abs() @ flow
    found = proxy("synflow", network, torch.rand(2, 3, 4, 4), NO_LOSS)
    assert found == pytest.approx(math.log(4 * float(flow.sum())))


def test_zen_undoes_batch_norms():
    """A linear chain of 1 x 1 convolutions: noise alone decides, whose size the widths give."""
    widths = [64, 96, 128]
    network = Classifier(chain(*(("Conv", [c, 1, 1]) for c in widths), act="nn.Identity()"))
    torch.manual_seed(0)
    found = proxy("zen", network, torch.rand(16, 3, 32, 32), NO_LOSS)
    size = 0.01 * math.sqrt(3 * math.prod(widths) * 32 * 32)
    assert found == pytest.approx(math.log(size), abs=0.3)


def test_mae_det_weighs_the_stages():
    """As above; of three stages the last counts 6, the others 1."""
    widths = [64, 96, 128]
    network = Classifier(chain(*(("Conv", [c, 1, 2]) for c in widths), act="nn.Identity()"))
    torch.manual_seed(0)
    found = proxy("mae-det", network, torch.rand(16, 3, 32, 32), NO_LOSS)
    stages = [math.log(c) + 0.5 * math.log(3 * math.prod(widths[:i])) for i, c in enumerate(widths)]
    assert found == pytest.approx(stages[0] + stages[1] + 6 * stages[2], abs=1.5)


@pytest.mark.parametrize(
    ("module", "args"),
    [
        *(("MBConv", [8, 3, 1, 2]), ("ResBasic", [8]), ("ResBottleneck", [8, 3, 2]), ("RegBottleneck", [8, 8])),
        *(("Bottleneck", [8]), ("GhostBottleneck", [8]), ("C3", [8])),
    ],
)
def test_gaussian_networks_have_no_shortcuts(module, args):
    """With the branches' last batch norm at zero, what is left of a block is its shortcut."""
    network = gaussian(Classifier(chain((module, args), act="nn.Identity()") | {"ch": 8}))
    blocks = [m for m in network.modules() if isinstance(getattr(m, "add", None), bool) or hasattr(m, "shortcut")]
    assert blocks
    for block in blocks:
        for norm in (m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            torch.nn.init.zeros_(norm.weight)
        width = next(m for m in block.modules() if isinstance(m, torch.nn.Conv2d)).in_channels
        assert not block(torch.rand(2, width, 8, 8)).any()


def test_blocks_are_depths_without_identities():
    macro = Space("models/nasbench_macro.yaml")
    of = {i: 0 if i % 2 else 6 for i in range(8)}
    network = Classifier(macro.freeze({f"layer{i}": e for i, e in of.items()}))
    assert proxy("blocks", network, torch.rand(1, 3, 32, 32), NO_LOSS) == 4 + 2
    rows = [[-1, {"range": [1, 3, 1], "label": "depth"}, "C3", [8]], [-1, 1, "nn.MaxPool2d", [2]]]
    space = Space({"nc": 2, "backbone": rows})
    found = [proxy("blocks", Classifier(space.freeze({"depth": n})), torch.rand(1, 3, 8, 8), NO_LOSS) for n in (1, 3)]
    assert found == [1, 3]
