"""`match_nas`: the searched rows, with their weights, in a whole detector, for every way of giving either."""

import json
import random
import subprocess
import sys

import pytest
import torch

from models import Classifier, Model, load_detector, read_config, save_detector
from models.grammar import MODELS
from optimizer import match_nas
from spaces import NASBACKBONE, NASDETECTOR, fixed_arch, freeze, slice_weights
from tests.random_state import randomized
from tests.refusal import refused
from tests.spaces.supernets import SMALL, activate, supernet

SIZES = [*"nsm", *(pytest.param(size, marks=pytest.mark.slow) for size in "lx")]
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _space(size="n", rows=9):
    """The space of this size as a mapping, its backbone cut after `rows` rows."""
    raw = read_config(f"models/yolov5{size}b_nas.yaml").raw
    return {**raw, "backbone": raw["backbone"][:rows]}


def _output_of(net, row, x):
    outputs = []
    handle = net.model[row].register_forward_hook(lambda *a: outputs.append(a[-1]))
    net.eval()(x)
    handle.remove()
    return outputs[0]


@torch.no_grad()
def _assert_matched(model, net, arch, x=X, last=None):
    """The searched rows of `model` are those of the supernet at the arch, and both counts add up."""
    last = len(net.config.rows) - 1 if last is None else last
    activate(net, arch)
    for row in range(last + 1):
        assert torch.equal(_output_of(model, row, x), _output_of(net, row, x)), row
    keys = set(model.state_dict())
    assert set(model.carried) | set(model.initialised) == keys
    assert not set(model.carried) & set(model.initialised)
    assert {k for k in keys if int(k.split(".")[1]) <= last} == set(model.carried)
    decoded, logits = model.eval()(x)
    assert decoded.shape[-1] == model.head.no
    assert len(logits) == model.head.nl


@pytest.fixture(scope="module")
def ten_rows():
    """The shipped space of n, which ends with its SPPF."""
    torch.manual_seed(0)
    return supernet(NASBACKBONE(cfg="models/yolov5nb_nas.yaml", nc=10))


@pytest.fixture(scope="module")
def nine_rows():
    """The searched rows alone, as the first search had them."""
    torch.manual_seed(0)
    return supernet(NASBACKBONE(cfg=_space(), nc=10))


@pytest.fixture(scope="module")
def arch(ten_rows):
    return ten_rows.space.sample(random.Random(0))


@pytest.mark.parametrize("name", ["_nas", "b_nas"])
@pytest.mark.parametrize("size", SIZES)
def test_detector_backbone_is_the_supernets(size, name, capsys):
    torch.manual_seed(0)
    net, rng = supernet(NASBACKBONE(cfg=f"models/yolov5{size}{name}.yaml", nc=10)), random.Random(1)
    for _ in range(2 if size == "n" else 1):
        arch = net.space.sample(rng)
        model = match_nas(f"models/yolov5{size}.yaml", net, arch=arch)
        _assert_matched(model, net, arch)
        assert model.config.raw["backbone"] == freeze(f"models/yolov5{size}_nas.yaml", arch)["backbone"]
        assert model.config.raw["head"] == read_config(f"models/yolov5{size}.yaml").raw["head"]
    printed = capsys.readouterr().out
    assert f"{len(model.carried)} tensors" in printed
    assert f"{len(model.initialised)} tensors" in printed
    assert all(k.startswith("model.") and int(k.split(".")[1]) >= 10 for k in model.initialised)


# How the detector may be given.


@pytest.mark.parametrize("given", ["path", "mapping", "model"])
def test_ways_of_giving_the_detector(ten_rows, arch, given):
    path = "models/yolov5n.yaml"
    detector = {"path": path, "mapping": read_config(path, nc=4).raw, "model": Model(path, nc=4)}[given]
    if given == "model":
        detector.names = {0: "a", 1: "b", 2: "c", 3: "d"}
    before = {k: v.clone() for k, v in detector.state_dict().items()} if given == "model" else {}
    model = match_nas(detector, ten_rows, arch=arch)
    _assert_matched(model, ten_rows, arch)
    assert model.head.nc == (80 if given == "path" else 4)
    if given == "model":
        assert model.names == detector.names
        assert model is not detector
        assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())


@pytest.mark.parametrize("name", ["yolov5s", "yolov5m"])
def test_other_multiples_are_written_out(ten_rows, nine_rows, name):
    for net in (ten_rows, nine_rows):
        arch = net.space.sample(random.Random(2))
        model = match_nas(f"models/{name}.yaml", net, arch=arch)
        _assert_matched(model, net, arch)
        rows, plain = len(net.config.rows), Model(f"models/{name}.yaml")
        assert model.channels[:rows] == net.channels
        for row, before, own in zip(model.config.rows[rows:], plain.model[rows:], model.model[rows:], strict=True):
            if row.module in ("Conv", "C3", "SPPF"):  # what follows the searched rows has its own widths and depths
                assert model.channels[row.index] == plain.channels[row.index]
                assert row.module != "C3" or len(own.m) == len(before.m)


@pytest.mark.parametrize("name", ["yolov5n6", "yolov5s6"])
def test_six_level_head_takes_nine_rows_and_keeps_its_own_beyond(nine_rows, name):
    arch = nine_rows.space.sample(random.Random(3))
    model = match_nas(f"models/{name}.yaml", nine_rows, arch=arch)
    _assert_matched(model, nine_rows, arch, torch.rand(1, 3, 128, 128))
    assert model.stride.tolist() == [8, 16, 32, 64]
    assert [r.module for r in model.config.rows[9:12]] == ["Conv", "C3", "SPPF"]


def test_nine_rows_leave_the_sppf_to_the_detector(nine_rows):
    arch = nine_rows.space.sample(random.Random(4))
    model = match_nas("models/yolov5n.yaml", nine_rows, arch=arch)
    _assert_matched(model, nine_rows, arch)
    assert any(k.startswith("model.9.") for k in model.initialised)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("yolov3", [8, 16, 32]),
        ("yolov3-tiny", [16, 32]),
        ("yolov5-p2", [4, 8, 16, 32]),
        ("yolov5-p34", [8, 16]),
        ("yolov5-fpn", [8, 16, 32]),
        ("yolov5-bifpn", [8, 16, 32]),
        ("yolov5s-ghost", [8, 16, 32]),
    ],
)
def test_every_head_can_be_fed(ten_rows, arch, name, strides):
    model = match_nas(f"models/hub/{name}.yaml", ten_rows, arch=arch)
    _assert_matched(model, ten_rows, arch)
    assert model.stride.tolist() == strides
    plain = Model(f"models/hub/{name}.yaml")
    modules = [r.module for r in plain.config.rows[plain.config.num_backbone :]]
    assert [r.module for r in model.config.rows[10:]] == modules


def test_spliced_head_takes_the_last_row_of_each_stride(ten_rows, arch):
    model = match_nas("models/hub/yolov3.yaml", ten_rows, arch=arch)
    plain = read_config("models/hub/yolov3.yaml")
    strides, old = Model(plain).reductions(), plain.num_backbone
    searched = [2, 4, 4, 8, 8, 16, 16, 32, 32, 32]
    last = {s: max(i for i, v in enumerate(searched) if v == s) for s in searched}
    for row, before in zip(model.config.rows[10:], plain.rows[old:], strict=True):
        expected = [j - old + 10 if j >= old else last[strides[j]] for j in before.sources]
        assert list(row.sources) == expected


def test_number_of_anchors_may_change_what_a_width_means(nine_rows):
    # 4 x (11 + 5) = 64 outputs: in the detector a nominal width of 64 is not scaled, in the search it was.
    arch = nine_rows.space.sample(random.Random(5))
    model = match_nas({**read_config("models/yolov5n.yaml").raw, "anchors": 4, "nc": 11}, nine_rows, arch=arch)
    _assert_matched(model, nine_rows, arch)


def test_spelt_out_default_activation_is_the_same(ten_rows, arch):
    detector = {**read_config("models/yolov5n.yaml").raw, "activation": "nn.SiLU()"}
    _assert_matched(match_nas(detector, ten_rows, arch=arch), ten_rows, arch)


# How the search may be given.


def _equal(a, b, rows=10):
    keys = [k for k in a.state_dict() if int(k.split(".")[1]) < rows]
    return keys and all(torch.equal(a.state_dict()[k], b.state_dict()[k]) for k in keys)


def test_fixed_network_run_folder_and_file(ten_rows, arch, tmp_path):
    from_supernet = match_nas("models/yolov5n.yaml", ten_rows, tmp_path / "run" / "detector.pt", arch=arch)
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(arch))
    with fixed_arch(path):
        fixed = NASBACKBONE(cfg="models/yolov5nb_nas.yaml", nc=10)
    fixed.load_state_dict(slice_weights(ten_rows, arch)[1])
    given = {"fixed": fixed, "folder": tmp_path / "run", "file": str(tmp_path / "run" / "detector.pt")}
    for searched in given.values():
        model = match_nas(Model("models/yolov5n.yaml", nc=2), searched)
        assert _equal(model, from_supernet)
        assert model.carried == from_supernet.carried
        assert model.head.nc == 2
    # The plain classifier of a backbone is a fixed network as well, and so is a detector.
    assert _equal(match_nas("models/yolov5n.yaml", from_supernet), from_supernet, 24)
    content = load_detector(tmp_path / "run" / "detector.pt")[1]
    assert content["arch"] == ten_rows.space.complete(arch)
    assert content["num_searched"] == 10


def test_run_folder_of_nine_rows_carries_nine(nine_rows, tmp_path):
    arch = nine_rows.space.sample(random.Random(6))
    match_nas("models/yolov5n.yaml", nine_rows, tmp_path / "detector.pt", arch=arch)
    model = match_nas("models/yolov5n6.yaml", tmp_path)
    _assert_matched(model, nine_rows, arch, torch.rand(1, 3, 128, 128))


def test_detector_of_a_training_is_a_search_result(tmp_path):
    model = randomized(Model("models/yolov5n.yaml", nc=3))
    save_detector(model, tmp_path / "detector.pt")
    again = match_nas("models/yolov5n.yaml", tmp_path)
    assert _equal(again, model)
    assert all(int(k.split(".")[1]) >= 10 for k in again.initialised)


def test_searched_whole_detector():
    torch.manual_seed(0)
    net = supernet(NASDETECTOR(cfg=SMALL))
    arch = net.space.sample(random.Random(7))
    model = match_nas({**SMALL, "backbone": freeze(SMALL, {})["backbone"], "nc": 5}, net, arch=arch)
    _assert_matched(model, net, arch, last=9)
    assert model.head.nc == 5
    assert all(k.startswith("model.10.") for k in model.initialised)


def test_searched_whole_detector_in_another_neck():
    torch.manual_seed(0)
    net = supernet(NASDETECTOR(cfg="models/yolov5n_nas.yaml"))
    arch = net.space.sample(random.Random(8))
    model = match_nas("models/hub/yolov5s-ghost.yaml", net, arch=arch)
    assert len(model.config.rows) == 25  # one neck, not one on another
    _assert_matched(model, net, arch, last=9)


# What is left behind.


def test_saved_file_loads_where_there_is_no_search(ten_rows, arch, tmp_path):
    path = tmp_path / "out" / "searched.pt"
    model = match_nas(Model("models/yolov5n.yaml", nc=2), ten_rows, path, arch)
    torch.save((X, model.eval()(X)[0]), tmp_path / "expected.pt")
    code = """
import sys
for room in ("nni", "spaces", "optimizer", "experiments", "lightning", "pytorch_lightning"):
    sys.modules[room] = None
import torch
from models import Model
content = torch.load(sys.argv[1], weights_only=True)
model = Model(content["yaml"])
model.load_state_dict(content["state_dict"])
x, expected = torch.load(sys.argv[2], weights_only=True)
torch.set_num_threads(1)
assert torch.allclose(model.eval()(x)[0], expected, rtol=1e-4, atol=1e-4)
assert sorted(content["names"]) == [0, 1]
"""
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "expected.pt")]
    subprocess.run(command, check=True, cwd=MODELS.parent)


def test_nothing_is_saved_unless_asked(ten_rows, arch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    match_nas("models/yolov5n.yaml", ten_rows, arch=arch)
    assert not list(tmp_path.iterdir())


def test_supernet_is_left_alone(ten_rows, arch):
    before = {k: v.clone() for k, v in ten_rows.state_dict().items()}
    model = match_nas("models/yolov5n.yaml", ten_rows, arch=arch)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in ten_rows.state_dict().items())


# Refusals.


def test_refusals(ten_rows, arch, tmp_path):
    nano = read_config("models/yolov5n.yaml").raw
    with refused("'activation'", "nn.LeakyReLU(0.1)", "model dict"):
        match_nas({**nano, "activation": "nn.LeakyReLU(0.1)"}, ten_rows, arch=arch)
    with refused("3 channels", "takes 1"):
        match_nas({**nano, "ch": 1}, ten_rows, arch=arch)
    with refused("ends at stride 32", "yolov5n6.yaml", "stride 64"):
        match_nas("models/yolov5n6.yaml", ten_rows, arch=arch)
    with refused("say which arch is meant"):
        match_nas(nano, ten_rows)
    with refused("'c3_99' is not of the space", "yolov5nb_nas.yaml"):
        match_nas(nano, ten_rows, arch={"c3_99": 0})
    with refused("'nasconv_0'", "valid are 0, 1, 2"):
        match_nas(nano, ten_rows, arch={"nasconv_0": 9})
    with refused("without shared weights"):
        match_nas(nano, NASBACKBONE(cfg=SMALL), arch={})
    with refused("gone", "no such file"):
        match_nas(nano, tmp_path / "gone")
    with refused("detector.pt", "no such file"):
        match_nas(nano, tmp_path)
    with refused("a network, a supernet or a run folder", "int"):
        match_nas(nano, 3)
    with refused("as detector, got Classifier"):
        match_nas(Classifier("models/yolov5n.yaml"), ten_rows, arch=arch)
    with refused("yolov5nb_nas.yaml"):
        match_nas("models/yolov5nb_nas.yaml", ten_rows, arch=arch)


def test_stride_that_the_search_lacks_names_the_row():
    # Ends at stride 32 as the head's backbone does, but jumps over stride 8.
    rows = [[-1, 1, "NASConv", [16, 3, 4]], [-1, 1, "NASConv", [32, 3, 4]], [-1, 1, "NASConv", [64, 3, 2]]]
    net = supernet(NASBACKBONE(cfg={"nc": 2, "width_multiple": 0.25, "depth_multiple": 0.33, "backbone": rows}))
    with refused("yolov5n.yaml: row 16 (Concat)", "stride 8"):
        match_nas("models/yolov5n.yaml", net, arch={})


def test_fused_network_cannot_be_matched():
    fused = Model("models/yolov5n.yaml").fuse()
    with refused("model.0.conv.bias", "the detector nothing"):
        match_nas("models/yolov5n.yaml", fused)


def test_a_space_as_detector_stands_for_the_network_that_upstream_builds(ten_rows, arch):
    plain = match_nas("models/yolov5n.yaml", ten_rows, arch=arch)
    assert match_nas("models/yolov5n_nas.yaml", ten_rows, arch=arch).config.raw == plain.config.raw


def test_a_network_that_nni_froze_knows_its_arch(ten_rows, arch):
    matched = match_nas("models/yolov5n.yaml", ten_rows, arch=arch)
    frozen = match_nas("models/yolov5n.yaml", ten_rows.freeze(arch))
    assert frozen.config.raw == matched.config.raw
    for key in matched.carried:
        assert torch.equal(frozen.state_dict()[key], matched.state_dict()[key])
