"""Elastic supernets as whole networks: equal to their slices, in mixtures, in copies, and in what strategies do."""

import copy
import io
import pickle
import random

import pytest
import torch
from torch import nn

from models import Classifier, Detect, Model, count_flops, count_params, read_config
from optimizer import match_nas
from spaces import NASBACKBONE, NASDETECTOR, Space, elastic_plan, fixed_arch, slice_weights
from spaces.active import Mixture
from spaces.check_elastic import check_elastic, main
from spaces.elastic import gradients_in_place
from spaces.policy import apply_policy
from spaces.supernet import decisions, hooks
from tests.random_state import randomized
from tests.refusal import refused


def choice(*values, **keys):
    return {"choice": list(values), **keys}


DETECTOR = {
    "nc": 3,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Conv", [choice(8, 16), 6, 2, 2]],
        [-1, {"range": [1, 2, 1]}, "C3", [choice(16, 24, label="wide"), {"e": choice(0.5, 0.75)}]],
        [-1, 1, "Bottleneck", [choice(16, 24, label="wide")]],
        [-1, 1, "Conv", [choice(24, 32), choice(3, 5, label="k"), 2]],
        [-1, 1, "SPPF", [choice(24, 32), 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, {"range": [1, 2, 1]}, "C3", [choice(16, 24), False]],
        [[-1, 4], 1, "Detect", ["nc", "anchors"]],
    ],
}
BACKBONE = {"nc": 3, "backbone": DETECTOR["backbone"]}
X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# Random archs, besides the first and the last.
SHIPPED = [
    ("nasbench_macro.yaml", 2),
    ("mobilenetv2_compofa.yaml", 1),
    ("mobilenetv3_bignas.yaml", 0),
    ("yolov5n_bignas.yaml", 1),
    pytest.param("mobilenetv3_bignas.yaml", 8, marks=pytest.mark.slow),
    pytest.param("yolov5n_bignas.yaml", 8, marks=pytest.mark.slow),
    pytest.param("yolov5s_bignas.yaml", 8, marks=pytest.mark.slow),
]


def wrong(cfg, **keys):
    return [(arch, problems) for arch, problems in check_elastic(cfg, **keys) if problems]


def supernet(cfg=BACKBONE, seed=0):
    torch.manual_seed(seed)
    is_detector = read_config(cfg).rows[-1].module == "Detect"
    return randomized((NASDETECTOR if is_detector else NASBACKBONE)(cfg), seed)


def mix(net, weights):
    """Every decision a mixture by `weights` (number of values) -> tensor."""
    net.active.update({k: Mixture.of_all(weights(len(d.values))) for k, d in net.space.decisions.items()})


@pytest.mark.parametrize(("cfg", "num"), SHIPPED)
def test_shipped_space_is_its_slices(cfg, num):
    assert wrong(cfg, num=num) == []


def test_policy_on_a_plain_yaml_is_its_slices():
    assert wrong(apply_policy("yolov5n.yaml", "elastic"), num=0) == []


def test_resnet_with_pyramid_and_towers_is_its_slices():
    raw = {**read_config("resnet_bignas.yaml").raw, "width_multiple": 0.125, "channel_multiple": 4, "nc": 3}
    assert wrong(raw, num=1) == []


def test_small_detector_is_its_slices():
    assert wrong(DETECTOR, num=6) == []


def test_searchable_and_elastic_rows_in_one_space():
    rows = [[-1, 1, "NASConv", [16, 3, 2]], [-1, 1, "NASC3", [16]], *DETECTOR["backbone"][3:]]
    net = supernet({"nc": 3, "backbone": rows})
    with torch.no_grad():
        assert net(X).shape == (2, 3)
    assert {"nasconv_0", "c3_1", "k", "row3.0"} <= set(net.simplify())


def test_plain_yolov5_is_an_arch_of_its_elastic_space():
    for letter in "ns":
        space = Space(f"yolov5{letter}_bignas.yaml")
        plain = read_config(f"yolov5{letter}.yaml")
        arch = {}
        for label, decision in space.decisions.items():
            row, where = label.removeprefix("row").split(".")
            written = plain.rows[int(row)]
            value = {"number": written.number, "0": (*written.args, None)[0], "1": (*written.args, 1, 1)[1]}.get(
                where, 0.5
            )
            arch[label] = decision.match(value)
        frozen = Model(space.freeze(arch))
        assert count_params(frozen) == count_params(Model(plain))


def test_nas_bench_macro_counts():
    """A handful of its table: parameters, and multiply-adds at 32 x 32."""
    space = Space("nasbench_macro.yaml")
    known = {
        "00000000": (387_882, 7_713_280),
        "22222222": (2_932_586, 105_660_928),
        "02012100": (890_666, 47_327_744),
        "11111221": (2_181_386, 65_012_224),
        "00011110": (1_118_378, 31_390_208),
    }
    assert space.size() == 3**8
    for key, (params, macs) in known.items():
        network = Classifier(space.freeze({f"layer{i}": (0, 3, 6)[int(c)] for i, c in enumerate(key)}))
        assert (count_params(network), count_flops(network, 32)) == (params, 2 * macs)


# What strategies need.


def test_decisions_are_known_to_nni():
    net = supernet({**DETECTOR, "resolution": choice(32, 64)})
    expected = {label: decision.values for label, decision in net.space.decisions.items()}
    assert decisions(net) == expected
    for hook in hooks():  # none refuses an elastic row
        for name, module in net.named_modules():
            hook(module, name, {}, {"active": net.active, "mixed_op_sampling": None})


def test_an_untouched_supernet_is_its_first_arch():
    net = supernet(DETECTOR)
    first = {label: d.values[0] for label, d in net.space.decisions.items()}
    untouched = net(X)[0]
    net.activate({label: d.values[-1] for label, d in net.space.decisions.items()})
    assert not torch.equal(net(X)[0], untouched)
    net.activate(first)
    assert torch.equal(net(X)[0], untouched)


def test_head_is_found():
    net = supernet(DETECTOR)
    assert isinstance(net.head, Detect)
    assert net.stride.tolist() == [2, 4]
    assert isinstance(net.freeze({label: d.values[0] for label, d in net.space.decisions.items()}).head, Detect)


def test_a_backbone_does_not_ask_for_decisions_of_the_head():
    net = NASBACKBONE(DETECTOR)
    assert "row7.0" not in net.space.decisions
    assert slice_weights(net, net.space.upstream())[0]["nc"] == 3


def test_classifier_layer_follows_the_last_width():
    net = supernet()
    for width in (24, 32):
        state = slice_weights(net, {**net.space.upstream(), "row4.0": width})[1]
        assert torch.equal(state["linear.weight"], net.linear.block.weight[:, :width])


def test_match_nas_carries_a_slice_over():
    net = supernet(DETECTOR)
    arch = net.space.sample(random.Random(3))
    detector = match_nas(DETECTOR | {"head": read_config(net.space.freeze(arch)).raw["head"]}, net, arch=arch)
    net.activate(arch)
    assert set(detector.initialised) <= {"model.8.anchors"}
    assert torch.equal(detector.eval()(X)[0], net(X)[0])


def test_fixed_arch_builds_the_plain_network():
    arch = Space(DETECTOR).sample(random.Random(0))
    with fixed_arch(arch):
        network = NASDETECTOR(DETECTOR)
    assert type(network) is Model
    network.load_state_dict(slice_weights(supernet(DETECTOR), arch)[1])


# Mixtures.


def test_decided_mixture_is_the_path():
    # Without SPPF, whose inner width is half of its input's: in a mixture, of the widest.
    net = supernet({"nc": 3, "backbone": DETECTOR["backbone"][:-1]})
    for i in (0, -1):
        mix(net, lambda n, i=i: torch.eye(n)[i])
        mixed = net(X)
        net.activate({label: d.values[i] for label, d in net.space.decisions.items()})
        torch.testing.assert_close(mixed, net(X), rtol=1e-5, atol=1e-6)


def test_mixture_is_the_weighed_sum_padded_with_zeros():
    net = supernet({"nc": 3, "backbone": [[-1, 1, "Conv", [choice(8, 16), 3]], [-1, 1, "Conv", [16, 1]]]})
    row = net.model[0]
    outputs = []
    for i in range(2):
        net.active["row0.0"] = i
        outputs.append(row(X))
    net.active["row0.0"] = Mixture.of_all(torch.tensor([0.25, 0.75]))
    mixed = net.model[0](X)
    assert [y.shape[1] for y in outputs] == [8, 16]
    torch.testing.assert_close(mixed[:, :8], 0.25 * outputs[0] + 0.75 * outputs[1][:, :8])
    torch.testing.assert_close(mixed[:, 8:], 0.75 * outputs[1][:, 8:])


def test_mixture_takes_the_named_paths_only():
    net = supernet({"nc": 3, "backbone": [[-1, 1, "Conv", [choice(8, 16, 24), 3]]]})
    net.active["row0.0"] = Mixture(torch.tensor([0.5, 0.5, 9.0]), (0, 1))
    assert net.model[0](X).shape[1] == 16
    assert net(X).shape == (2, 3)


def test_every_undecided_value_gets_a_gradient():
    net = supernet()
    logits = {k: torch.zeros(len(d.values), requires_grad=True) for k, d in net.space.decisions.items()}
    net.active.update({k: Mixture.of_all(v.softmax(0)) for k, v in logits.items()})
    net.train()(X).square().sum().backward()
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in logits.values())


def test_mixture_of_a_width_that_two_rows_share():
    """Under an identity shortcut a path has the input of its own width."""
    net = supernet(
        {
            "nc": 3,
            "backbone": [
                [-1, 1, "Conv", [choice(8, 16, label="w"), 3]],
                [-1, 1, "Bottleneck", [choice(8, 16, label="w")]],
            ],
        }
    )
    net.active["w"] = Mixture.of_all(torch.tensor([0.5, 0.5]))
    x = net.model[0](X)
    mixed = net.model[1](x)
    bound = net.model[1]._bound
    narrow, wide = (bound[(i,), ((width,),)] for i, width in enumerate((8, 16)))
    expected = 0.5 * wide(x)
    expected[:, :8] += 0.5 * narrow(x[:, :8])
    torch.testing.assert_close(mixed, expected)


def test_several_maps_are_not_mixed():
    rows = [[-1, 1, "Conv", [16]], [[-1, 0], 1, "SharedTowers", [choice(8, 16)]], [-1, 1, "Pick", [0]]]
    net = supernet({"nc": 3, "backbone": rows})
    mix(net, lambda n: torch.full((n,), 1 / n))
    with refused("row 1 (SharedTowers)", "several maps", "spos, enas, bignas"):
        net(X)


def test_too_many_paths_are_refused():
    rows = [[-1, {"range": [1, 3, 1]}, "C3", [choice(8, 16, 24), {"e": choice(0.5, 0.75)}]]]
    net = supernet({"nc": 3, "backbone": rows})
    mix(net, lambda n: torch.full((n,), 1 / n))
    with refused("row 0 (C3)", "18 paths, and at most 16", "spos, enas, bignas"):
        net(X)
    net.active["row0.e"] = 0
    assert net(X).shape == (2, 3)


# Copies, state, memory.


def test_copies_are_of_their_own():
    net = supernet()
    arch = {label: d.values[0] for label, d in net.space.decisions.items()}
    net.activate(arch)
    before = net(X)
    copied = copy.deepcopy(net)
    copied.activate({label: d.values[-1] for label, d in net.space.decisions.items()})
    for p in copied.parameters():
        p.data.zero_()
    assert torch.equal(net(X), before)
    assert copied(X).abs().sum() == 0
    assert torch.equal(pickle.loads(pickle.dumps(net))(X), before)


def test_state_dict_goes_into_another_supernet():
    one, other = supernet(), supernet(seed=1)
    assert not torch.equal(one(X), other(X))
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(one(X), other(X))


def test_new_settings_draw_no_random_numbers():
    net = supernet()
    state = torch.get_rng_state()
    for seed in range(3):
        net.activate(net.space.sample(random.Random(seed)))
        net(X)
        slice_weights(net, net.space.sample(random.Random(seed)))
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_and_momentum_are_followed():
    net = supernet()
    net.activate({label: d.values[0] for label, d in net.space.decisions.items()})
    norm = net.model[0].block.bn
    before = norm.running_mean.clone()
    net.train()
    norm.eval()
    net(X)
    assert torch.equal(norm.running_mean, before)
    norm.train()
    norm.momentum = 1.0
    net(X)
    y = nn.functional.conv2d(X, net.model[0].block.conv.weight[:8], stride=2, padding=2)
    torch.testing.assert_close(norm.running_mean[:8], y.mean((0, 2, 3)))
    assert torch.equal(norm.running_mean[8:], before[8:])


def test_drop_path_is_followed():
    net = supernet()
    net.activate({label: d.values[0] for label, d in net.space.decisions.items()})
    net.model[2].block.drop_prob = 0.999999
    x = net.model[1](net.model[0](X))
    assert torch.equal(net.train().model[2](x), x)
    assert not torch.equal(net.eval().model[2](x), x)


def test_frozen_weights_stay_frozen():
    net = supernet()
    net.model[1].block.cv1.conv.weight.requires_grad_(False)
    net.activate({label: d.values[0] for label, d in net.space.decisions.items()})
    net.train()(X).sum().backward()
    assert net.model[1].block.cv1.conv.weight.grad is None
    assert net.model[1].block.cv2.conv.weight.grad is not None


def test_gradients_in_place_are_the_same():
    net = supernet().train()
    archs = [net.space.sample(random.Random(seed)) for seed in range(3)]
    found = []
    for in_place in (False, True):
        net.zero_grad(set_to_none=True)
        for arch in archs:
            net.activate(arch)
            if in_place:
                with gradients_in_place():
                    net(X).square().sum().backward()
            else:
                net(X).square().sum().backward()
        found.append({k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, grad in found[0].items():
        torch.testing.assert_close(found[1][key], grad, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(net(X).sum(), [net.model[1].block.cv1.conv.weight])
    assert gradient.abs().sum() > 0


def test_blocks_keep_no_weights_after_a_forward():
    net = supernet()
    net.activate(net.space.sample(random.Random(0)))
    net.train()(X)
    for row in net.model:
        for bound in row._bound.values():
            assert bound.block is row.block or not list(bound.block.parameters())


def test_forgotten_settings_come_back(monkeypatch):
    monkeypatch.setattr(elastic_plan, "MOST_PLANS", 2)
    net = supernet()
    archs = [net.space.sample(random.Random(seed)) for seed in range(4)]
    outputs = []
    for arch in [*archs, *archs]:
        net.activate(arch)
        outputs.append(net(X))
    assert all(torch.equal(a, b) for a, b in zip(outputs[:4], outputs[4:], strict=True))
    assert all(len(row._bound) <= 2 for row in net.model)


# Resolution.


def test_resolution_is_what_is_active():
    net = supernet({**BACKBONE, "resolution": choice(32, 64)})
    arch = {label: d.values[-1] for label, d in net.space.decisions.items()}
    assert net.resolution == 32
    net.activate(arch)
    assert net.resolution == 64
    assert net.freeze(arch).resolution == 64
    assert slice_weights(net, arch)[0]["resolution"] == 64
    assert supernet().resolution is None
    assert supernet({**BACKBONE, "resolution": 48}).resolution == 48
    net.active["resolution"] = Mixture.of_all(torch.tensor([0.5, 0.5]))
    with refused("resolution", "cannot be mixed", "spos, enas, bignas"):
        _ = net.resolution


# The command.


PLUGIN = '''
import torch
from torch import nn
from models import register

@register(repeats=True)
class Doubling(nn.Module):
    """Halves of a convolution's channels, one of them worked on {how}."""
    def __init__(self, c1, c2, n=1):
        super().__init__()
        self.first = nn.Conv2d(c1, c2, 1)
        self.rest = nn.Sequential(*(nn.Conv2d(c2 // 2, c2 // 2, 3, padding=1) for _ in range(n)))
        self.last = nn.Conv2d(c2, c2, 1)
        {state}
    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        {work}
        return self.last(torch.cat((a, self.rest(b)), 1))
'''


def _plugin(tmp_path, state="", work=""):
    (tmp_path / "mine.py").write_text(PLUGIN.format(how="alone", state=state or "pass", work=work or "pass"))
    (tmp_path / "mine.yaml").write_text(
        "nc: 2\nbackbone:\n"
        "  - [-1, 1, Conv, [{choice: [16, 32]}, 3, 2]]\n"
        "  - [-1, {range: [1, 2, 1]}, Doubling, [{choice: [16, 32]}]]\n"
    )
    return ["--plugin", str(tmp_path / "mine.py"), "--cfg", str(tmp_path / "mine.yaml"), "--imgsz", "32", "--num", "2"]


def test_command_on_a_plugin(tmp_path, capsys):
    assert main(_plugin(tmp_path)) == 0
    assert "4 of 4 archs" in capsys.readouterr().out
    # Halves of one convolution's output, each of which a narrower block takes the first channels of.
    net = NASBACKBONE(str(tmp_path / "mine.yaml"))
    whole = net.model[1].block.first.weight
    whole.data = torch.arange(32).float().view(-1, 1, 1, 1).expand(whole.shape).contiguous()
    state = slice_weights(net, {**net.space.upstream(), "row1.0": 16})[1]
    assert state["model.1.first.weight"][:, 0, 0, 0].tolist() == [*range(8), *range(16, 24)]


def test_command_finds_a_block_that_is_not_its_slices(tmp_path, capsys):
    # Its forward depends on more than its tensors, arguments and input.
    state = "Doubling.built = getattr(Doubling, 'built', 0) + 1; self.scale = Doubling.built"
    assert main(_plugin(tmp_path, state, "b = b * self.scale")) == 1
    out = capsys.readouterr().out
    assert "the outputs in eval mode differ" in out
    assert "0 of 4 archs" in out


def test_command_refuses_bad_input(tmp_path, capsys):
    assert main(["--cfg", str(tmp_path / "gone.yaml")]) == 2
    assert "gone.yaml: no such file" in capsys.readouterr().err


def test_a_block_that_computes_with_tensors_when_it_is_made(tmp_path):
    """Its skeleton is made on the CPU, and draws nothing from the generator."""
    argv = _plugin(
        tmp_path, "self.scale = int(torch.linspace(1, 3, c2).sum()) / c2; torch.rand(1)", "b = b * self.scale"
    )
    assert main(argv) == 0
    net = NASBACKBONE(str(tmp_path / "mine.yaml"))
    state = torch.get_rng_state()
    net.activate({label: d.values[-1] for label, d in net.space.decisions.items()})
    net(X)
    assert torch.equal(torch.get_rng_state(), state)
