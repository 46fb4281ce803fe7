"""The space of whole detectors is of the detectors that `match_nas` makes, also where widths mean other channels."""

import argparse
import copy
import random
from pathlib import Path

import pytest
import torch

from experiments.tasks.classify import ClassifyTask
from experiments.tasks.whole import detector_space
from models import Classifier, InputError, Model, load_detector, read_config
from optimizer import match_nas
from spaces import Space

ROOT = Path(__file__).resolve().parents[3]
NC = 10  # three anchors a level: each level of the head has 45 outputs
NANO = read_config("models/yolov5n.yaml").raw
MULTIPLES = {"depth_multiple": NANO["depth_multiple"], "width_multiple": NANO["width_multiple"]}


def space_of(width, row=("NASConv", [128, 3, 2]), **multiples):
    """The nano's backbone without head or classes, whose first row has `width` and whose second is searched."""
    backbone = copy.deepcopy(NANO["backbone"])
    backbone[0][3][0] = width
    backbone[1][2:] = row
    backbone[4][2] = "NASC3"
    return Space({**MULTIPLES, **multiples, "backbone": backbone})


@pytest.mark.parametrize(
    ("width", "multiples"),
    [(64, {}), (45, {}), (64, {"width_multiple": 0.5}), (64, {"depth_multiple": 1.0}), (45, {"width_multiple": 0.5})],
)
def test_its_detectors_are_those_that_a_search_leaves(width, multiples):
    space, detector = space_of(width, **multiples), Model("models/yolov5n.yaml", nc=NC)
    whole = detector_space(space, detector, own_head=False)
    assert whole.decisions.keys() == space.decisions.keys()
    for seed in range(3):
        arch = space.sample(random.Random(seed))
        left = match_nas(detector, Classifier(space.freeze(arch), 2))
        found = Model(whole.freeze(arch))
        assert found.channels == left.channels
        assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in left.state_dict().items()}


@pytest.mark.parametrize(
    ("width", "multiples"),
    [({"choice": [64, 45]}, {}), ({"choice": [45, 64]}, {}), ({"choice": [64, 32]}, {"width_multiple": 0.5})],
)
def test_refuses_choices_of_widths_that_mean_other_channels(width, multiples):
    space = space_of(width, **multiples)
    with pytest.raises(InputError, match=r"row 0 \(Conv\).* has choices, and widths mean other channels in .*yolov5n"):
        detector_space(space, Model("models/yolov5n.yaml", nc=NC), own_head=False)


def test_neck_and_head_of_a_detector_that_is_handed_over_are_those_of_the_seed(tmp_path):
    """Whatever was drawn before: a resumed search has drawn other numbers than an uninterrupted one."""
    options = argparse.Namespace(data="digits", imgsz=32, seed=3, data_root=None, batch=64, detector=None)
    space = Space(ROOT / "tests/assets/tiny_nas.yaml")
    task, arch = ClassifyTask(options, space, "cpu"), space.upstream()
    network = task.network(space.freeze(arch))
    states = []
    for drawn in range(2):
        torch.manual_seed(drawn)
        before = torch.get_rng_state()
        task.hand_over(network, tmp_path, arch, str(drawn))
        assert torch.equal(torch.get_rng_state(), before)
        states.append(load_detector(tmp_path / f"{drawn}.pt")[0].state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
