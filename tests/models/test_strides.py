"""Strides by the grammar are those of the networks."""

import math
from pathlib import Path

import pytest

from models import Classifier, InputError, Model, read_config
from models.strides import strides
from spaces import Space

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted([*ROOT.glob("models/*.yaml"), *ROOT.glob("models/hub/*.yaml"), ROOT / "tests/assets/tiny_nas.yaml"])
UNKNOWN = (
    "yolov3-tiny.yaml",
    "resnet_bignas.yaml",
    "yolov9e.yaml",
)  # their modules' strides are not known without building them


def test_shipped_yamls():
    """One of a family: the others have its rows."""
    seen = set()
    for path in YAMLS:
        space = Space(path)
        raw = space.freeze(space.upstream())
        rows = str([row[2:] for row in [*raw["backbone"], *raw.get("head", [])]])
        if rows in seen:
            continue
        seen.add(rows)
        if raw.get("width_multiple") and "A2C2f" not in rows:  # whose heads are 32 wide
            raw["width_multiple"] /= 4  # strides know no widths, and wide networks take long to build
        networks = [Classifier(raw, 2), *([Model(raw)] if raw.get("head") else [])]
        for network in networks:
            found = strides(network.config)
            if path.name in UNKNOWN:
                assert found is None
            else:
                same = zip(found, network.reductions(), strict=True)
                assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in same), path


ROWS = [
    [-1, 1, "Conv", [8, 6, 2, 2]],
    [-1, 1, "Conv", [8, 3, 2, 0]],
    [-1, 2, "Conv", [8, 3, 1]],
    [-1, 1, "Conv", [8, 2, 2]],
    [-1, 1, "Conv", [8, 3, 1, 1, 1, 2]],
    [-1, 1, "DWConv", [8, 5, 4]],
    [-1, 2, "MBConv", [8, 3, 2]],
    [-1, 1, "RegBottleneck", [8, 8, 3, 2]],
    [-1, 1, "ADown", [8]],
    [-1, 1, "AConv", [8]],
    [-1, 1, "Focus", [8, 3]],
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [-1, 1, "GlobalPool", []],
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_right_or_not_known(row):
    raw = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], row]}
    found = strides(read_config(raw))
    try:
        assert found in (None, Classifier(raw).reductions())
    except InputError:
        pytest.fail("the row cannot be built")
