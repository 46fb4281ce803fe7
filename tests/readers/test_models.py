"""Model YAMLs, as networks and as spaces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Classifier, Model
from models.grammar import read_config
from spaces import Space, apply_policy

from .guard import holds, slowly
from .hostile import yaml_files

PLAIN = {
    "nc": 3,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
    "activation": "nn.SiLU()",
    "names": ["a", "b", "c"],
    "backbone": [
        [-1, 1, "Conv", [64, 6, 2, 2]],
        [-1, 3, "C3", [64]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "SPPF", [128, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 1], 1, "Concat", [1]],
        [-1, 3, "C3", [64, False]],
        [[6, 3], 1, "Detect", ["nc", "anchors"]],
    ],
}
OTHER = {
    "nc": 2,
    "scales": {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]},
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 2, "C2f", [16, True]],
        [-1, 1, "SCDown", [32, 3, 2]],
        [-1, 1, "RepNCSPELAN4", [32, 16, 8, 1]],
        [-1, 1, "SPPELAN", [256, 16]],
        [-1, 1, "C2PSA", [256]],
        [-1, 1, "A2C2f", [256, False, -1]],
        [-1, 1, "MBConv", [32, 3, 1, 4]],
        [-1, 1, "GhostConv", [32, 3, 2]],
    ],
    "head": [[[4, 8], 1, "Detect", ["nc"]]],
}
OPEN = {
    "nc": 2,
    "anchors": 1,
    "resolution": {"range": [32, 64, 32]},
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16], "label": "width"}, 3, 2]],
        [-1, {"range": [1, 3, 1], "label": "depth"}, "C3", [{"table": {8: 16, 16: 24}, "by": "width"}]],
        [-1, 1, "NASConv", [32, 3, 2]],
        [-1, 3, "NASC3", [32]],
    ],
    "head": [[[1, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "model.yaml"


def _network(file):
    config = read_config(file)
    return Model(file) if config.has_head else Classifier(file, nc=2)


def _space(file):
    space = Space(file)
    arch = space.sample(random.Random(0))
    assert read_config(space.freeze(arch)).raw
    assert space.size() >= 1
    return space.canonical(arch)


@slowly
@given(st.one_of(yaml_files(PLAIN), yaml_files(OTHER)))
def test_a_network(file, content):
    file.write_bytes(content)
    holds("model YAML", _network, file)


@given(yaml_files(OPEN))
def test_a_space(file, content):
    file.write_bytes(content)
    holds("space YAML", _space, file)


POLICY = {
    "rules": [
        {"modules": ["C3"], "number": {"add": [0, 1]}},
        {"modules": ["Conv"], "rows": [0, 2], "c2": {"scale": [0.5, 1]}, "k": {"of": {3: [3, 5]}}},
    ]
}


@given(yaml_files(POLICY))
def test_a_policy(file, content):
    file.write_bytes(content)
    holds("policy YAML", apply_policy, PLAIN, file)
