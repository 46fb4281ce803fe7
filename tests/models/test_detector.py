"""The shipped YAMLs agree with YOLOv5's counts, and the detector with its definition."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from models import Classifier, Detect, Model, check_imgsz, count_flops, count_params
from models.grammar import Config
from tests.random_state import randomized
from tests.refusal import refused

FOLDER = Path(models.__file__).parent
CHOICES = re.compile("NAS|choice:|range:")
LATER = re.compile(r"yolov?(8|9|1\d|26)|yolov5(u|-seg|-semantic)")  # in test_families, test_segment and test_semantic
SHIPPED = {
    p.stem: p for p in sorted(FOLDER.rglob("*.yaml")) if not CHOICES.search(p.read_text()) and not LATER.match(p.name)
}
P5, P6 = (8, 16, 32), (8, 16, 32, 64)
# name: parameters, parameters with conv and bn fused, FLOPs (2 x MACs) at 640, strides. Frozen: a change is a fault, or
# is to be explained. The first eight, and FLOPs of n, s and m, are upstream's.
GOLDEN = {
    "yolov5n": (1_872_157, 1_867_405, 4_468_121_600, P5),
    "yolov5s": (7_235_389, 7_225_885, 16_433_561_600, P5),
    "yolov5m": (21_190_557, 21_172_173, 48_872_448_000, P5),
    "yolov5l": (46_563_709, 46_533_693, 108_993_740_800, P5),
    "yolov5x": (86_749_405, 86_705_005, 205_448_192_000, P5),
    "yolov5s6": (12_626_620, 12_612_508, 16_797_286_400, P6),
    "yolov5-p2": (47_493_372, 47_461_436, 125_554_688_000, (4, *P5)),
    "yolov5s-ghost": (3_897_605, 3_888_789, 8_705_638_400, P5),
    "yolov5n6": (3_246_940, 3_239_884, 4_559_052_800, P6),
    "yolov5m6": (35_731_932, 35_704_908, 49_912_012_800, P6),
    "yolov5l6": (76_770_172, 76_726_332, 111_235_072_000, P6),
    "yolov5x6": (140_794_780, 140_730_220, 209_564_672_000, P6),
    "yolov5-p34": (5_331_518, 5_323_806, 14_913_536_000, (8, 16)),
    "yolov5-p6": (76_770_172, 76_726_332, 111_235_072_000, P6),
    "yolov5-p7": (144_281_723, 144_216_251, 115_866_764_800, (*P6, 128)),
    "yolov5-fpn": (41_117_565, 41_090_877, 99_766_272_000, P5),
    "yolov5-bifpn": (46_825_853, 46_795_837, 109_832_601_600, P5),
    "yolov5n_dfl": (2_654_816, 2_649_200, 7_724_902_400, P5),
    "yolov5-panet": (46_563_709, 46_533_693, 108_993_740_800, P5),
    "yolov5s-transformer": (7_235_645, 7_226_653, 16_597_401_600, P5),
    "yolov5s-leaky": (7_235_389, 7_225_885, 16_433_561_600, P5),
    "yolov3": (61_949_149, 61_922_845, 155_891_302_400, P5),
    "yolov3-spp": (62_998_749, 62_971_933, 156_730_163_200, P5),
    "yolov3-tiny": (8_852_366, 8_849_182, 13_171_507_200, (16, 32)),
}
ANCHORS = [[10, 13, 16, 30], [30, 61, 62, 45]]


def _two_levels(anchors, strides=(8, 16), nc=3, **keys):
    """A detector of two levels at these strides, in this order."""
    rows = [[-1, 1, "Conv", [8, 3, 2]] for _ in range(5)]
    source = [int(math.log2(s)) - 1 for s in strides]
    detect = [source, 1, "Detect", ["nc", "anchors"]]
    return Model({"nc": nc, "anchors": anchors, "backbone": rows, "head": [detect], **keys})


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(0)
    return Model("models/yolov5n.yaml")


# The shipped YAMLs.


def test_all_the_variants_of_the_issue_are_there():
    assert set(GOLDEN) <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name):
    assert name in GOLDEN, f"a new YAML: add its counts to GOLDEN once they have been checked ({name})"
    params, fused, flops, strides = GOLDEN[name]
    model = Model(SHIPPED[name])
    assert count_params(model) == params
    assert model.stride.tolist() == list(strides) == sorted(strides)

    model.to("meta")  # from here on shapes are all that matters
    cell = model.check_imgsz(model.imgsz_multiple)
    na = getattr(model.head, "na", None)
    for height, width in ((2 * cell, 3 * cell), (3 * cell, cell)):
        shapes = [(height // s, width // s) for s in strides]
        maps = [(2, na, *shape, 85) if na else (2, 144, *shape) for shape in shapes]
        images = torch.zeros(2, 3, height, width, device="meta")
        assert [tuple(y.shape) for y in model.train()(images)] == maps
        decoded, logits = model.eval()(images)
        assert [tuple(y.shape) for y in logits] == maps
        assert tuple(decoded.shape) == (2, sum((na or 1) * h * w for h, w in shapes), 85 if na else 84)
    assert count_flops(model, 640) == flops
    assert count_params(model.fuse()) == fused


def test_counts_follow_the_classes():
    assert count_params(Model("models/yolov5s.yaml", nc=20)) == 7_073_569


def test_input_channels():
    assert Model("models/yolov5n.yaml", ch=1).model[0].conv.in_channels == 1
    assert Classifier("models/yolov5n.yaml", nc=2, ch=4)(torch.zeros(2, 4, 64, 64)).shape == (2, 2)


def test_anchors_argument():
    model = Model("models/yolov5n.yaml", nc=4, anchors=5)
    assert (model.head.na, model.head.no) == (5, 9)
    assert [m.out_channels for m in model.head.m] == [45] * 3


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in ("yolov5x6", "yolov5-p7", "yolov5x", "yolov5l6")])
def test_shipped_backbone_is_a_classifier(name):
    network = Classifier(SHIPPED[name], nc=7).to("meta")
    assert network(torch.zeros(2, 3, 128, 128, device="meta")).shape == (2, 7)
    assert network.linear.in_features == network.channels[-1]


def test_classifier_is_pooling_and_a_linear_layer():
    network = randomized(Classifier("models/yolov5n.yaml", nc=7))
    x = torch.rand(2, 3, 64, 96)
    assert len(network.model) == 10
    features = network.run_rows(x)
    assert features.shape == (2, 256, 2, 3)
    torch.testing.assert_close(network(x), network.linear(features.mean((2, 3))))


def test_batch_norm_constants(nano):
    assert {(m.eps, m.momentum) for m in nano.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.03)}


def test_state_dict_keys_are_upstreams(nano):
    keys = set(nano.state_dict())
    assert {"model.0.conv.weight", "model.2.m.0.cv1.bn.running_mean", "model.24.m.2.bias", "model.24.anchors"} <= keys
    assert {k.split(".")[0] for k in keys} == {"model"}
    assert "model.24.stride" not in keys


# Rows in a network.


def test_rows_are_fed_by_from():
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8]], [-2, 1, "Conv", [8]], [[-1, 1, 0], 1, "Concat", [1]]]
    network = randomized(Classifier({"nc": 2, "backbone": rows}))
    x = torch.rand(1, 3, 16, 16)
    zero = network.model[0](x)
    one, two = network.model[1](zero), network.model[2](zero)
    assert torch.equal(network.run_rows(x), torch.cat((two, one, zero), 1))


def test_reductions_measure_every_row():
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.Upsample", [None, 4, "nearest"]], [-1, 1, "Contract", [8]]]
    network = Classifier({"nc": 2, "backbone": rows}).train()
    assert network.reductions() == [2, 0.5, 4]
    assert network.training


def test_reductions_see_strides_beyond_the_first_guess():
    network = Classifier({"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 4]] for _ in range(5)]})
    assert network.reductions() == [4, 16, 64, 256, 1024]


def test_reductions_end_where_a_row_pools_everything():
    network = Classifier({"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]]})
    network.model[0] = nn.AdaptiveAvgPool2d(1)
    network.linear = nn.Linear(3, 2)
    assert len(network.reductions()) == 1


def test_channels_that_do_not_fit_name_the_row():
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [[0, 1], 1, "Concat", [1]]]
    with refused("row 2 (Concat)", "does not fit its input (1x8x128x128, 1x8x64x64)"):
        Model({"nc": 2, "anchors": 3, "backbone": rows, "head": [[[2], 1, "Detect", ["nc", "anchors"]]]})


# The head.


def test_decode_is_the_formula():
    torch.manual_seed(0)
    model = _two_levels(ANCHORS).eval()
    head = model.head
    logits = [2 * torch.randn(2, 2, h, w, 8) for h, w in ((3, 4), (2, 2))]
    decoded = torch.cat([head.decode(y, level) for level, y in enumerate(logits)], 1)
    expected = []
    for image in range(2):
        boxes = []
        for level, (y, stride) in enumerate(zip(logits, (8, 16), strict=True)):
            for a in range(2):
                for row in range(y.shape[2]):
                    for col in range(y.shape[3]):
                        s = [1 / (1 + math.exp(-v)) for v in y[image, a, row, col].tolist()]
                        xy = [(2 * s[0] - 0.5 + col) * stride, (2 * s[1] - 0.5 + row) * stride]
                        wh = [(2 * s[2 + i]) ** 2 * ANCHORS[level][2 * a + i] for i in range(2)]
                        boxes.append([*xy, *wh, *s[4:]])
        expected.append(boxes)
    torch.testing.assert_close(decoded, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_eval_output_is_the_decoded_training_output(nano):
    x = torch.rand(2, 3, 64, 96)
    model = randomized(copy.deepcopy(nano))
    decoded, logits = model(x)
    assert torch.equal(decoded, torch.cat([model.head.decode(y, i) for i, y in enumerate(logits)], 1))
    features = []
    model.head.register_forward_pre_hook(lambda _, inputs: features.extend(inputs[0]))
    model(x)
    for y, conv, feature in zip(logits, model.head.m, features, strict=True):
        raw = conv(feature)  # anchor-major channels, as upstream's weights have them
        assert torch.equal(y[:, 1, :, :, 4], raw[:, 85 + 4])


def test_bias_initialisation():
    head = Detect(20, 3, [16, 16])
    for conv in head.m:
        nn.init.zeros_(conv.bias)
    head.set_strides([8.0, 32.0])
    for conv, stride in zip(head.m, (8, 32), strict=True):
        bias = conv.bias.detach().view(3, 25)
        torch.testing.assert_close(bias[:, :4], torch.zeros(3, 4))
        torch.testing.assert_close(bias[:, 4], torch.full((3,), math.log(8 / (640 / stride) ** 2)))
        torch.testing.assert_close(bias[:, 5:], torch.full((3, 20), math.log(0.6 / (20 - 0.99999))))


def test_a_model_has_the_priors(nano):
    for conv, stride in zip(nano.head.m, (8, 16, 32), strict=True):
        bound = 1 / math.sqrt(conv.in_channels)  # of PyTorch's own initialisation, which stays underneath
        bias = conv.bias.detach().view(3, 85)
        assert (bias[:, :4].abs() <= bound).all()
        assert ((bias[:, 4] - math.log(8 / (640 / stride) ** 2)).abs() <= bound).all()
        assert ((bias[:, 5:] - math.log(0.6 / (80 - 0.99999))).abs() <= bound).all()
        assert conv.bias.requires_grad


def test_one_class_has_a_finite_prior():
    assert all(torch.isfinite(m.bias).all() for m in _two_levels(3, nc=1).head.m)


@pytest.mark.parametrize("strides", [(8, 16), (16, 8), (4, 32)])
@pytest.mark.parametrize("flipped", [False, True])
def test_anchors_follow_the_levels_and_are_divided_by_stride(strides, flipped):
    model = _two_levels(ANCHORS[::-1] if flipped else ANCHORS, strides)
    assert model.stride.tolist() == list(strides)
    pixels = ANCHORS if strides[0] < strides[1] else ANCHORS[::-1]
    expected = torch.tensor(pixels).float().view(2, 2, 2) / torch.tensor(strides).float().view(2, 1, 1)
    torch.testing.assert_close(model.head.anchors, expected)


@pytest.mark.parametrize("na", [1, 3, 4])
def test_number_of_anchors(na):
    model = _two_levels(na)
    assert model.head.anchors.shape == (2, na, 2)
    assert model.head.no * na == model.head.m[0].out_channels == 8 * na
    assert (model.head.anchors > 0).all()
    assert torch.equal(model.head.anchors[0], model.head.anchors[1])
    assert len(torch.unique(model.head.anchors[0], dim=0)) == na


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ([[0, 1], 1, "Detect", ["nc", [[1, 2]]]], ["from names 2 levels, but anchors has 1"]),
        ([1, 1, "Detect", ["nc", "anchors"]], ["takes a list of inputs"]),
        ([[0, 1], 1, "Detect", []], ["number of classes, got None"]),
        ([[0, 1], 1, "Detect", ["nc"]], ["anchors, got None"]),
        ([[0, 1], 1, "Detect", [0, 3]], ["number of classes, got 0"]),
    ],
)
def test_detect_row_that_does_not_fit(row, parts):
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
    with refused("row 2 (Detect)", *parts):
        Model({"nc": 3, "anchors": 3, "backbone": rows, "head": [row]})


# Fusing, sizes, names.


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost"])
def test_fused_model_is_equal_and_fusing_twice_is_fusing_once(name):
    torch.manual_seed(0)
    model, x = randomized(Model(SHIPPED[name])), torch.rand(1, 3, 64, 64)
    before = model.train()(x)  # statistics move, as they do before a real export
    before = model.eval()(x)
    after = model.train().fuse()(x)
    assert not model.training
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    state = copy.deepcopy(model.state_dict())
    assert not any(".bn." in key for key in state)
    again = model.fuse().state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(again[k], v) for k, v in state.items())


@pytest.mark.parametrize("imgsz", [32, 64, 640])
def test_imgsz_that_fits(nano, imgsz):
    assert nano.check_imgsz(imgsz) == imgsz


@pytest.mark.parametrize(("imgsz", "right"), [(100, "96 or 128"), (0, "32 or 64"), (-32, "32 or 64"), (31, "32 or 64")])
def test_imgsz_that_does_not_fit(nano, imgsz, right):
    with refused(f"--imgsz {imgsz}", "stride 32", right):
        nano.check_imgsz(imgsz)
    with refused(f"--imgsz {imgsz}"):
        check_imgsz(imgsz, 32)


def test_imgsz_fits_the_backbone_too():
    model = Model("models/hub/yolov5-p34.yaml")
    assert model.stride.max() == 16
    with refused("stride 32"):
        model.check_imgsz(48)


def test_names():
    assert _two_levels(3).names == {0: "class0", 1: "class1", 2: "class2"}
    assert _two_levels(3, names=["a", "b", "c"]).names == {0: "a", 1: "b", 2: "c"}
    assert _two_levels(3, names={"0": "a", "1": "b", "2": "c"}).names == {0: "a", 1: "b", 2: "c"}


def test_counting_leaves_the_network_alone(nano):
    assert nano.training
    assert count_flops(nano, 64) == GOLDEN["yolov5n"][2] // 100
    assert nano.training
    assert next(nano.parameters()).device.type == "cpu"


def test_config_is_kept(nano):
    assert isinstance(nano.config, Config)
    assert (nano.config.nc, len(nano.config.rows), len(nano.channels)) == (80, 25, 25)
