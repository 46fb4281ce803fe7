"""Spaces of segmenters: slices are plain networks, masks included; a detector's weights begin one."""

import pytest
import torch

from models import Model, Segment, read_config
from optimizer import match_nas
from spaces import NASDETECTOR, Space, slice_weights
from spaces.check_elastic import check_elastic
from spaces.policy import apply_policy
from spaces.warm_start import warm_start
from tests.random_state import randomized

CHOICE = {"choice": [8, 16], "plain": 8, "label": "width"}
ANCHORS = [[8, 10, 12, 16], [20, 24, 28, 36]]


def cfg(width=8, last=("Segment", ["nc", "anchors", 4, 16])):
    backbone = [
        [-1, 1, "Conv", [width, 6, 2, 2]],
        [-1, 1, "C3", [width]],
        [-1, 1, "Conv", [16, 3, 2]],
    ]
    return {"nc": 3, "anchors": ANCHORS, "backbone": backbone, "head": [[[1, 2], 1, *last]]}


def test_slices_and_matched_networks_are_the_supernets():
    for last in (("Segment", ["nc", "anchors", 4, 16]), ("Segment", ["nc", "anchors", 4, {"choice": [16, 32]}])):
        for arch, problems in check_elastic(cfg(CHOICE, last), num=2):
            assert not problems, arch


def test_a_searched_segmenter_is_handed_over_whole():
    torch.manual_seed(0)
    net = randomized(NASDETECTOR(cfg(CHOICE)))
    arch = {"width": 16}
    raw, state = slice_weights(net, arch)
    plain, x = Model(raw).eval(), torch.rand(1, 3, 64, 64)
    plain.load_state_dict(state)
    matched = match_nas(Model(raw), net, arch=arch).eval()
    assert isinstance(matched.head, Segment)
    net.activate(arch)
    for own, other in ((net(x), plain(x)), (net(x), matched(x))):
        assert torch.equal(own[0], other[0])
        assert all(torch.equal(a, b) for a, b in zip(own[1], other[1], strict=True))


def test_a_policy_over_the_zoo_yaml():
    space = Space(apply_policy(read_config("yolov5n-seg.yaml"), "elastic"))
    assert space.decisions
    frozen = read_config(space.freeze(space.upstream()))
    assert frozen.rows[-1].module == "Segment"
    plain = read_config("yolov5n-seg.yaml")
    assert [r.args for r in frozen.rows] == [r.args for r in plain.rows]


def test_a_detectors_weights_begin_a_segmenter():
    torch.manual_seed(0)
    detector = randomized(Model(cfg(8, ("Detect", ["nc", "anchors"]))))
    net, x = NASDETECTOR(cfg(CHOICE)), torch.rand(1, 3, 64, 64)
    head = {k: v.clone() for k, v in net.head.state_dict().items()}
    done = warm_start(net, detector.config, detector.state_dict())
    raw, state = slice_weights(net, done.arch)
    found = Model(raw).eval()
    found.load_state_dict(state)
    for row in range(3):
        x, own = found.model[row](x), detector.model[row](x)
        torch.testing.assert_close(x, own)
        x = own
    assert done.fresh >= sum(p.numel() for p in net.head.parameters())
    assert all(torch.equal(v, head[k]) for k, v in net.head.state_dict().items())
    with pytest.raises(RuntimeError):
        found.load_state_dict(detector.state_dict())
