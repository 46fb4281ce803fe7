"""Plug-ins, ONNX files, what a training is gone on with, command lines, plain text."""

import argparse
import importlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.images import UnreadableImageError, image_shape
from experiments.costs.ranges import parse_range
from experiments.inference.detectors import OnnxDetector
from experiments.nni_experiment.machines import read_config_file
from experiments.run.amounts import parse_amount
from experiments.run.cli import run_script
from models import InputError, Model
from models.documents import parse_json, parse_yaml
from models.errors import shown
from models.plugins import load_plugin
from optimizer import export_onnx

from .guard import holds, slowly
from .hostile import SCALARS, bytes_of, scalars, values, yaml_files

PLUGIN = b"from models import register\nfrom torch import nn\n\n@register\nclass Mine(nn.Identity):\n    pass\n"


@given(
    st.one_of(
        bytes_of(PLUGIN),
        st.binary(max_size=60),
        st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")),
        st.sampled_from(
            [
                b"(" * 5000,
                b"a = " + b"-" * 100_000 + b"1",
                b"\0",
                b"# coding: nothing\n",
                b"raise ValueError('a\\nb\\x1b[31m')",
                b"def f(): f()\nf()",
                b"import nothing_of_this_name",
                b"x = " + b"9" * 5000,
                b"raise Exception",
            ]
        ),
    )
)
def test_a_plugin(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("plugins") / "mine.py"  # a file is imported once
    path.write_bytes(content)
    holds("plug-ins", load_plugin, path)


@pytest.mark.parametrize("name", ["x" * 300 + ".py", "a\0b.py", "", ".", "/dev/null", "mine.txt"])
def test_a_plugin_of_another_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_bytes(PLUGIN)
    assert holds("plug-ins", load_plugin, name) is None


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    cfg = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 32]]], "head": [[[0], 1, "Detect", [2, 1]]]}
    export_onnx(Model(cfg, anchors=1), path, 64, batch=1)
    return path.read_bytes()


@slowly
@given(st.data())
def test_an_onnx_file(tmp_path, onnx_file, data):
    (tmp_path / "d.onnx").write_bytes(data.draw(st.one_of(bytes_of(onnx_file), st.binary(max_size=60))))
    holds("ONNX, bytes", OnnxDetector, tmp_path / "d.onnx")


notes = st.one_of(
    scalars.map(str),
    st.sampled_from(
        [
            '{"0": 1}',
            '{"x": "a"}',
            '{"0": "a"}',
            '{"0": "a", "1": "b\\n"}',
            "[" * 50_000,
            "null",
            "dynamic",
            '{"iou": 1}',
        ]
    ),
    values.map(str),
)


@given(st.sampled_from(["names", "stride", "imgsz", "batch", "nms", "form", "dtype", "task"]), notes)
def test_notes_of_an_onnx_file(tmp_path, onnx_file, key, value):
    import onnx

    model = onnx.load_from_string(onnx_file)
    kept = {p.key: p.value for p in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, key: value.encode("utf-8", "replace").decode()})
    (tmp_path / "d.onnx").write_bytes(model.SerializeToString())
    holds("ONNX, notes", OnnxDetector, tmp_path / "d.onnx")


SCRIPTS = {
    "train": ["--cfg", "models/yolov5n.yaml"],
    "oneshot_nas": [],
    "multi_trial_nas": [],
    "search_subnets": ["--supernet", "runs/x"],
    "val": ["--weights", "x.pt"],
    "detect": ["--weights", "x.pt", "--source", "a.jpg"],
    "export": ["--weights", "x.pt"],
}


def _parser_of(script, argv):
    """The options, or None where argparse says in its own way what is wrong."""
    try:
        return importlib.import_module(script).parse(argv)
    except SystemExit as e:
        if e.code != 2:
            raise
        return None


def _numbers_of(script):
    args = _parser_of(script, SCRIPTS[script])
    return sorted(k for k, v in vars(args).items() if k not in ("given", "plugin") and not isinstance(v, bool))


@pytest.mark.parametrize("script", SCRIPTS)
@slowly
@given(data=st.data())
def test_options(script, data):
    name = data.draw(st.sampled_from(_numbers_of(script)))
    text = data.draw(st.one_of(st.sampled_from([str(v) for v in SCALARS]), st.integers(), st.floats()).map(str))
    holds("options", _parser_of, script, [*SCRIPTS[script], f"--{name.replace('_', '-')}={text}"])


# What a slip of the keyboard may ask for: option, and the most that is taken.
MOST = {
    "train": {"imgsz": 16_384, "workers": 256, "batch": 65_536, "devices": 256, "epochs": 2**31 - 1},
    "oneshot_nas": {"imgsz": 16_384, "cost-imgsz": 16_384, "workers": 256, "ui": 65_535, "population": 10_000_000},
    "multi_trial_nas": {"imgsz": 16_384, "threads": 256, "concurrency": 256, "port": 65_535},
    "search_subnets": {"workers": 256, "trials": 10_000_000, "cost-imgsz": 16_384},
    "val": {"imgsz": 16_384, "workers": 256, "batch": 65_536},
    "export": {"imgsz": 16_384, "batch": 65_536},
}


@pytest.mark.parametrize(("script", "option"), [(s, o) for s, found in MOST.items() for o in found])
def test_options_have_a_most(script, option, capsys):
    most = MOST[script][option]
    assert _parser_of(script, [*SCRIPTS[script], f"--{option}", str(most)]) is not None
    for more in (most + 1, 10**9 + most, 10**400):
        assert _parser_of(script, [*SCRIPTS[script], f"--{option}", str(more)]) is None
        assert f"--{option}: must be" in capsys.readouterr().err


@given(
    st.one_of(st.text(max_size=30), scalars.map(str), st.from_regex(r"[0-9]{1,4}(\.[0-9])?e[0-9]{1,20}[kMGTms]{0,2}"))
)
def test_amounts(text):
    holds("amounts", parse_amount, text)
    holds("ranges", parse_range, f"flops={text}:")


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_text_of_any_kind(content):
    text = content.decode("latin-1") if isinstance(content, bytes) else content
    holds("YAML text", parse_yaml, text, "f")
    holds("JSON text", parse_json, content, "f")


@given(st.text(max_size=100))
def test_a_message_is_one_line(text):
    assert shown(text).isprintable()
    assert str(InputError(text)) == shown(text)
    if text.isprintable():
        assert shown(text) == text


def test_a_long_message_keeps_its_ends():
    text = shown("begin " + "x" * 10**6 + " end")
    assert len(text) < 2100
    assert text.startswith("begin ")
    assert text.endswith(" end")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a/" * 3000])
def test_names_that_no_file_system_takes(name, capsys):
    def main(args):
        Path(name).read_bytes()

    assert run_script(main, argparse.Namespace()) == 2
    assert capsys.readouterr().err.startswith(f"error: {name[:200]}")


def test_an_image_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="not a file"):
        image_shape(tmp_path / "a.png")


MACHINES = {
    "nniManagerIp": "127.0.0.1",
    "trainingService": {
        "platform": "remote",
        "machineList": [{"host": "127.0.0.1", "user": "me", "sshKeyFile": "/dev/null", "pythonPath": "/usr/bin"}],
    },
}


@given(yaml_files(MACHINES))
def test_machines(tmp_path, content):
    (tmp_path / "machines.yaml").write_bytes(content)
    holds("machines YAML", read_config_file, str(tmp_path / "machines.yaml"))
