"""The families' YAMLs: published parameter counts, and ONNX."""

import pytest
import torch

from models import Model, count_params

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


@pytest.mark.parametrize("family", PUBLISHED)
def test_parameters_are_as_published(family):
    with torch.device("meta"):
        found = {size: count_params(Model(f"{family.format(size)}.yaml")) for size in PUBLISHED[family]}
    assert found == PUBLISHED[family]
