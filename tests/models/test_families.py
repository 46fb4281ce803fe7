"""The families' YAMLs: published parameter counts, scales, ONNX."""

import pytest
import torch

from models import Model, count_params, read_config
from models.files import dump_model_yaml
from optimizer import export_onnx
from tests.random_state import randomized
from tests.refusal import refused

# nc 80, as built for training (with both branches of the end-to-end heads).
PUBLISHED = {
    "yolov5{}u": {"n": 2_654_816, "s": 9_153_152, "m": 25_111_456, "l": 53_225_024, "x": 97_276_448},
    "yolov8{}": {"n": 3_157_200, "s": 11_166_560, "m": 25_902_640, "l": 43_691_520, "x": 68_229_648},
    "yolov9{}": {"t": 2_128_720, "s": 7_318_368, "m": 20_216_160, "c": 25_590_912, "e": 58_206_592},
    "yolov10{}": {
        **{"n": 2_775_520, "s": 8_128_272, "m": 16_576_768, "b": 20_574_384},
        **{"l": 25_888_688, "x": 31_808_960},
    },
    "yolo11{}": {"n": 2_624_080, "s": 9_458_752, "m": 20_114_688, "l": 25_372_160, "x": 56_966_176},
    "yolo12{}": {"n": 2_602_288, "s": 9_284_096, "m": 20_199_168, "l": 26_450_784, "x": 59_210_784},
    "yolo26{}": {"n": 2_572_280, "s": 10_009_784, "m": 21_896_248, "l": 26_299_704, "x": 58_993_368},
}
SCALES = {"n": [0.5, 0.25, 64], "m": [1, 0.5, 48]}


def scaled(*rows, last=([0, 1], 1, "Detect", ["nc"]), **keys):
    rows = [[-1, 1, "Conv", [64, 3, 2]], *(rows or [[-1, 2, "C3k2", [64, False, 0.25]]])]
    return {"nc": 2, "scales": SCALES, "backbone": rows, "head": [list(last)], **keys}


@pytest.mark.parametrize("family", PUBLISHED)
def test_parameters_are_as_published(family):
    with torch.device("meta"):
        found = {size: count_params(Model(f"{family.format(size)}.yaml")) for size in PUBLISHED[family]}
    assert found == PUBLISHED[family]


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n", "yolo11n", "yolo26n"])
def test_onnx_is_the_network(name, tmp_path):
    torch.manual_seed(0)
    model = randomized(Model(f"{name}.yaml", nc=3))
    assert export_onnx(model, tmp_path / "model.onnx", imgsz=64, batch=2).difference.largest < 1e-3


def test_fused_is_the_network():
    torch.manual_seed(0)
    model, x = randomized(Model("yolov10n.yaml", nc=3)), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)[1]
        for level, wanted in zip(model.fuse()(x)[1], expected, strict=True):
            torch.testing.assert_close(level, wanted, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) or hasattr(m, "conv1") for m in model.modules())


# Scales.


def test_a_scale_is_what_it_says():
    config = read_config(scaled(), scale="m")
    assert (config.depth_multiple, config.width_multiple, config.max_channels) == (1, 0.5, 48)
    assert [config.width(c, config.rows[0]) for c in (16, 48, 64)] == [8, 24, 24]
    assert read_config(config.raw).rows == config.rows  # handed over it is by itself
    assert read_config(config).rows == config.rows
    assert dump_model_yaml(config.raw).splitlines()[1] == "depth_multiple: 1"


def test_which_scale(tmp_path):
    (tmp_path / "mine9.yaml").write_text(dump_model_yaml(scaled()))
    widths = {letter: read_config(tmp_path / f"mine9{letter}.yaml").width_multiple for letter in ("n", "m", "")}
    assert widths == {"n": 0.25, "m": 0.5, "": 0.25}
    assert read_config(tmp_path / "mine9n.yaml", scale="m").width_multiple == 0.5
    assert read_config(scaled(scale="m")).width_multiple == 0.5
    with refused("mine9s.yaml", "no such file"):
        read_config(tmp_path / "x" / "mine9s.yaml")
    with refused("mine9.yaml", "no scale 's'", "n, m"):
        read_config(tmp_path / "mine9s.yaml")
    with refused("scales must be like {n: [0.33, 0.25, 1024]}"):
        read_config(scaled(scales={"n": [1, 2]}))
    with refused("'width_multiple' and 'scales' say the same"):
        read_config(scaled(width_multiple=0.5))
    with refused("has no 'scales'"):
        read_config({"backbone": [[-1, 1, "Conv", [8]]]}, scale="n")


def test_large_scales_have_c3k_everywhere():
    rows = [[-1, 2, "C3k2", args] for args in ([64, False, 0.25], [64], [64, {"c3k": False}], [64, {"e": 0.25}])]
    for scale, expected in (("n", [False] * 4), ("m", [True] * 4)):
        config = read_config(scaled(*rows), scale=scale)
        found = [r.args[1] if len(r.args) > 1 else r.kwargs.get("c3k", False) for r in config.rows[1:5]]
        assert found == expected


def test_what_published_files_leave_unsaid():
    """Class branches are depth-wise behind C3k2, and of YOLOv10's head; without scales nothing is added."""
    assert read_config(scaled()).rows[-1].kwargs == {"depthwise": True}
    conv = [-1, 1, "Conv", [64, 3, 2]]
    assert read_config(scaled(conv)).rows[-1].kwargs == {}
    v10 = read_config(scaled(conv, last=([0, 1], 1, "v10Detect", ["nc"]))).rows[-1]
    assert (v10.module, v10.kwargs) == ("DetectDFL", {"end2end": True, "depthwise": True})
    plain = {k: v for k, v in scaled().items() if k != "scales"}
    assert read_config(plain).rows[-1].kwargs == {}


@pytest.mark.parametrize(
    ("key", "hint"), [("act", "'activation'"), ("with_multiple", "'width_multiple'"), ("foo", "nc")]
)
def test_unknown_keys_are_refused(key, hint):
    with refused(f"unknown key '{key}'", hint):
        read_config({"backbone": [[-1, 1, "Conv", [8]]], key: 1})
