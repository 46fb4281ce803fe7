"""`export.py --int8 --format openvino`, where NNCF and OpenVINO are installed: both are optional."""

import argparse

import pytest
import torch

import export
from experiments.inference import int8_openvino
from experiments.run import early
from experiments.run.cli import run_script
from tests.experiments.inference.test_int8 import IMGSZ, folder  # noqa: F401
from tests.refusal import refused


def options(folder):  # noqa: F811
    weights, data = (str(folder / name) for name in ("detector.pt", "set.yaml"))
    return ["--weights", weights, "--format", "openvino", "--int8", "--data", data]


@pytest.fixture
def _installed():
    pytest.importorskip("nncf", reason="nncf is an optional package")
    pytest.importorskip("openvino", reason="openvino is an optional package")


@pytest.mark.usefixtures("_installed")
def test_nncf_puts_layers_back_until_enough_is_left(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    import openvino

    from optimizer.int8_openvino import compiled

    monkeypatch.setattr(int8_openvino, "in_turns", lambda runs: [(1.5, 1.5)] * len(runs))
    told = options(folder)

    def exported(name, *more):
        args = export.parse([*told, "--output", str(tmp_path / name), *more])
        return run_script(export.main, args)

    assert exported("a.xml", "--calibrate", "4", "--max-drop", "0.6") == 0
    said = capsys.readouterr().out
    assert "calibrating on 4 of 8 training images" in said
    assert "OpenVINO" in said
    network = compiled(str(tmp_path / "a.xml"), 1)
    assert network.get_runtime_model() is not None
    text = (tmp_path / "a.xml").read_text()
    assert text.count('type="FakeQuantize"') > 0
    assert '"int8"' in text
    out = network([torch.rand(2, 3, IMGSZ, IMGSZ).numpy()])[0]
    assert out.shape[0] == 2

    # Nothing may be lost, and by a measure that NNCF cannot keep: no file.
    ratings = iter([0.9, 0.1])
    read = openvino.Core().read_model(tmp_path / "a.xml")
    monkeypatch.setattr(int8_openvino, "quantize_with_nncf", lambda *a: read)

    class Metrics:
        def compute(self):
            return {"map50_95": next(ratings)}

    monkeypatch.setattr(int8_openvino, "measure", lambda *a, **k: argparse.Namespace(metrics=Metrics()))
    assert exported("b.xml") != 0
    assert "INT8 loses 80.0 points" in capsys.readouterr().err
    assert not (tmp_path / "b.xml").exists()


def test_what_is_missing_is_said_in_a_line(folder, monkeypatch):  # noqa: F811
    found = early.importlib.util.find_spec
    monkeypatch.setattr(early.importlib.util, "find_spec", lambda name: None if name == "nncf" else found(name))
    told = options(folder)
    with refused("needs the optional package nncf", "pip install nncf openvino"):
        export.main(export.parse(told))


@pytest.mark.parametrize("option", [["--nms"], ["--float-rows", "1"]])
def test_options_of_onnx_alone(folder, monkeypatch, option):  # noqa: F811
    monkeypatch.setattr(early.importlib.util, "find_spec", lambda name: object())
    told = options(folder)
    with refused(option[0], "is not of --int8 --format openvino"):
        export.main(export.parse([*told, *option]))
