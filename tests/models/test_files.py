import math
import os
import stat

import pytest
import torch
import yaml

from models import Model, load_detector, read_config, save_detector, save_model_yaml
from models.errors import InputError
from models.files import FORMAT, atomic, check_format, dump_model_yaml
from models.upstream import load_weights
from tests.refusal import refused

TINY = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "activation": "nn.ReLU()",
    "names": ["cat", "dog"],
    "backbone": [[-1, 1, "Conv", [8, 3, 2, "None", 1, 1, "nn.SiLU()"]], [-1, 1, "C3", [8, True, {"m_e": 2}]]],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}


def _other_files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_yaml_goes_out_and_comes_back(tmp_path):
    save_model_yaml(TINY, tmp_path / "a.yaml")
    assert yaml.safe_load((tmp_path / "a.yaml").read_text()) == TINY
    assert read_config(tmp_path / "a.yaml").rows[0].args == read_config(TINY).rows[0].args


def test_yaml_has_a_row_a_line():
    lines = dump_model_yaml(read_config("models/yolov5s.yaml").raw).splitlines()
    assert len([line for line in lines if line.startswith("- [")]) == 25 + 3
    assert "- [-1, 1, Conv, [64, 6, 2, 2]]" in lines
    assert "- [-1, 1, nn.Upsample, [None, 2, nearest]]" in lines


def test_atomic_replaces_whole_files(tmp_path):
    target = tmp_path / "new" / "x.txt"
    for text in ("one", "two"):
        with atomic(target) as temporary:
            temporary.write_text(text)
            assert temporary.parent == target.parent
        assert target.read_text() == text
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    assert _other_files(target.parent) == ["x.txt"]


def test_atomic_leaves_the_old_file_when_writing_fails(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")

    def fail():
        with atomic(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert _other_files(tmp_path) == ["x.txt"]


def test_detector_goes_out_and_comes_back(tmp_path):
    model = Model(TINY)
    save_detector(model, tmp_path / "d.pt", arch={"a": 1})
    loaded, content = load_detector(tmp_path / "d.pt")
    assert not loaded.training
    assert loaded.names == {0: "cat", 1: "dog"}
    assert content["arch"] == {"a": 1}
    assert content["yaml"] == model.config.raw
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(x)[0], model.eval()(x)[0])
    assert set(torch.load(tmp_path / "d.pt", weights_only=True)) >= {"yaml", "state_dict", "names"}


def test_file_that_is_no_detector(tmp_path):
    with refused("gone.pt", "no such file"):
        load_detector(tmp_path / "gone.pt")
    (tmp_path / "text.pt").write_text("hello\nworld")
    torch.save({"model": 1}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"yaml": TINY, "state_dict": {}, "names": {}}, tmp_path / "empty.pt")
    torch.save(Model(TINY), tmp_path / "pickle.pt")
    for name in ("text.pt", "other.pt", "list.pt", "empty.pt", "pickle.pt"):
        with refused(name, "not a detector file of this project"):
            load_detector(tmp_path / name)


def test_a_file_of_a_later_version_is_refused(tmp_path):
    model = Model(TINY, nc=2)
    model.names = {0: "a", 1: "b"}
    save_detector(model, tmp_path / "detector.pt")
    content = torch.load(tmp_path / "detector.pt", weights_only=True)
    assert content["format"] == FORMAT
    torch.save({**content, "format": FORMAT + 1}, tmp_path / "later.pt")
    with refused("later.pt: of format 2, but this version reads 1"):
        load_detector(tmp_path / "later.pt")
    del content["format"]  # as files of before formats had numbers
    torch.save(content, tmp_path / "earlier.pt")
    assert load_detector(tmp_path / "earlier.pt")[1]["names"] == model.names


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(bad, tmp_path):
    """A detector of them finds nothing, without a word."""
    model = Model(TINY)
    save_detector(model, tmp_path / "good.pt")
    content = torch.load(tmp_path / "good.pt", weights_only=True)
    content["state_dict"]["model.0.conv.weight"][0, 0, 0, 0] = bad
    torch.save(content, tmp_path / "bad.pt")
    names = ("bad.pt: 1 of", "tensors hold numbers that are not finite: model.0.conv.weight")
    for read in (load_detector, load_weights):
        with refused(*names):
            read(tmp_path / "bad.pt")
    model.model[0].conv.weight.data[0, 0, 0, 0] = bad
    with refused("good.pt: not written: 1 of", names[1]):
        save_detector(model, tmp_path / "good.pt")
    assert load_detector(tmp_path / "good.pt")


@pytest.mark.parametrize("found", [2, "1", True, torch.zeros(0), torch.ones(2)], ids=repr)
def test_a_format_that_is_not_ours(found):
    with pytest.raises(InputError, match="of format"):
        check_format({"format": found}, "a.pt")


@pytest.mark.parametrize("value", [torch.zeros(0), [torch.ones(2)], {"a": object()}], ids=["tensor", "list", "object"])
def test_a_networks_yaml_holds_text_and_numbers(value):
    with pytest.raises(InputError, match=r"a.pt: holds a (Tensor|object) where there is text or a number"):
        read_config({**TINY, "backbone": [[-1, 1, "Conv", [8, 3, value]]]}, file="a.pt")


@pytest.mark.parametrize("head", [0.5, {"a": 1}, "x"])
def test_a_section_that_is_none_beside_scales(head):
    with pytest.raises(InputError, match="'head' must be a list of rows"):
        read_config({**TINY, "scales": {"n": [1, 1, 64]}, "head": head})
