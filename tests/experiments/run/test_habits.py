"""YOLOv5's names of options, files of hyper-parameters, runs gone on with from elsewhere, commands to copy."""

import io
import os
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import detect
import export
import multi_trial_nas
import oneshot_nas
import search_subnets
import train
import val
from data import Hyp
from experiments.multi_trial.options import Options as MultiTrial
from experiments.oneshot.options import Options as OneShot
from experiments.run import commands, habits
from experiments.run.cli import run_script
from experiments.run.folder import RunFolder
from experiments.run.options import made, options_of
from experiments.run.recorded import PATHS
from experiments.supernets.options import Look
from experiments.supernets.options import Options as Subnets
from experiments.training.options import Learning, Options
from models import load_plugin
from tests.refusal import refused

SCRIPTS = {m.__name__: m for m in (detect, export, multi_trial_nas, oneshot_nas, search_subnets, train, val)}
DOCS = Path(__file__).resolve().parents[3] / "docs/from-yolov5.md"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("train --cfg a --batch-size 8 --img 320", "train --cfg a --batch 8 --imgsz 320"),
        ("train --cfg a --batch-size=8 --img-size=320", "train --cfg a --batch=8 --imgsz=320"),
        ("train --cfg a --single-cls --cos-lr --noautoanchor", "train --cfg a --single-cls --cosine --no-autoanchor"),
        ("val --weights a --task test --conf-thres 0.1", "val --weights a --split test --conf 0.1"),
        ("val --weights a --iou-thres 0.5 --img 64", "val --weights a --iou 0.5 --imgsz 64"),
        (
            "detect --weights a --source b --conf-thres 0.1 --nosave",
            "detect --weights a --source b --conf 0.1 --no-save",
        ),
        (
            "detect --weights a --source b --save-crop --device 0",
            "detect --weights a --source b --save-crop --device 0",
        ),
        ("export --weights a --include onnx --nms --topk-all 9", "export --weights a --format onnx --nms --max-det 9"),
        ("train --cfg a --optimizer SGD", "train --cfg a --optimizer sgd"),
        ("oneshot_nas --task detect --batch-size 4", "oneshot_nas --task detect --batch 4"),
        ("multi_trial_nas --batch-size 4", "multi_trial_nas --batch 4"),
    ],
)
def test_options_by_their_names_there(theirs, ours):
    def options(line):
        script, *words = line.split()
        return vars(SCRIPTS[script].parse(words))

    assert options(theirs) == options(ours)


@pytest.mark.parametrize("name", habits.INSTEAD)
def test_options_without_a_counterpart_are_refused_with_a_line(name, capsys):
    with pytest.raises(SystemExit) as caught:
        train.parse(["--cfg", "a", name])
    assert caught.value.code == 2
    assert f"{name} is an option of YOLOv5: {habits.INSTEAD[name]}" in capsys.readouterr().err


def test_every_alias_is_an_option_somewhere_and_nothing_is_both():
    known = set()
    for script, words in {
        "train": [],
        "val": ["--weights", "a"],
        "detect": ["--weights", "a", "--source", "b"],
    }.items():
        known |= {f"--{name.replace('_', '-')}" for name in vars(SCRIPTS[script].parse(words))}
    known |= {f"--{name.replace('_', '-')}" for name in vars(export.parse(["--weights", "a"]))}
    known |= {"--no-save", "--no-autoanchor"}
    assert set(habits.ALIASES.values()) <= known
    assert set(habits.INSTEAD) & (known | set(habits.ALIASES)) == {"--rect"}  # of detect.py


def test_the_table_of_the_docs_is_that_of_the_code():
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    for theirs, ours in habits.ALIASES.items():
        assert rows.pop(theirs).startswith(f"`{ours}`")
    assert {name: rows.pop(name) for name in habits.INSTEAD} == habits.INSTEAD
    # What is left is called the same.
    known = {f"--{name.replace('_', '-')}" for m in ("train", "val", "detect", "export") for name in _all(m)}
    assert set(rows) <= known


def _all(script):
    words = {"train": [], "val": ["--weights", "a"], "detect": ["--weights", "a", "--source", "b"]}
    return vars(SCRIPTS[script].parse(words.get(script, ["--weights", "a"])))


# --hyp


def test_names_of_hyper_parameters_are_those_of_the_dataclasses():
    assert tuple(f.name for f in fields(Hyp)) == habits.AUGMENTATION
    assert {*habits.OF_LEARNING.values()} <= {f.name for f in fields(Learning)}


SCRATCH = {"lr0": 0.02, "lrf": 0.2, "momentum": 0.9, "weight_decay": 0.0001, "warmup_epochs": 3.0, "box": 0.05}
SCRATCH |= {"anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.01, "mosaic": 0.5, "mixup": 0.2, "copy_paste": 0.0}


def test_a_file_of_hyper_parameters(tmp_path, capsys):
    file = tmp_path / "hyp.yaml"
    file.write_text(yaml.safe_dump(SCRATCH), encoding="utf-8-sig")
    options = made(Options, train.parse(["--cfg", "a", "--hyp", str(file), "mixup=0.3", "--lr0", "0.5"]))
    assert options.hyp == {"hsv_h": 0.01, "mosaic": 0.5, "mixup": 0.3}  # the command line comes first
    assert (options.lr0, options.lrf, options.momentum, options.weight_decay) == (0.5, 0.2, 0.9, 0.0001)
    said = capsys.readouterr().out
    assert said == (
        f"--hyp {file}: not known here, and left out: warmup_epochs 3, box 0.05, anchor_t 4, fl_gamma 0, copy_paste 0\n"
    ) or set(said.strip().split("left out: ")[1].split(", ")) == {
        *("warmup_epochs 3", "box 0.05", "anchor_t 4", "fl_gamma 0", "copy_paste 0")
    }


def test_a_number_that_yaml_takes_for_text(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 1e-3\n")
    assert train.parse(["--cfg", "a", "--hyp", str(tmp_path / "hyp.yaml")]).lr0 == 0.001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "should be a mapping"),
        ("", "should be a mapping"),
        ("{", "cannot be read as YAML"),
        ("mosaic: [1]", "mosaic is [1], should be a number"),
        ("mosaic: yes", "mosaic is True, should be a number"),
        ("lr0: fast", "lr0 is 'fast', should be a number"),
    ],
)
def test_files_that_hold_no_hyper_parameters(content, message, tmp_path):
    (tmp_path / "hyp.yaml").write_text(content)
    with refused(f"--hyp {tmp_path / 'hyp.yaml'}: {message}"):
        train.parse(["--cfg", "a", "--hyp", str(tmp_path / "hyp.yaml")])


def test_a_file_of_hyper_parameters_that_is_not_there():
    with refused("--hyp gone.yaml: cannot be read as YAML: No such file"):
        train.parse(["--cfg", "a", "--hyp", "gone.yaml"])


# Runs from elsewhere


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was started in `there`, where its paths begin; the process is in `here`."""
    for name in ("here", "there/data", "there/digits"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "there/study.db").touch()
    for name in ("mine.yaml", "a.py"):
        (tmp_path / "there" / name).touch()
    options = {"cfg": "mine.yaml", "data": "data", "plugin": ["a.py", "/gone.py"], "weights": None, "epochs": 3}
    options |= {"strategy": "data", "detector": "yolov5n.yaml", "storage": "sqlite:///study.db", "data_root": "gone"}
    monkeypatch.chdir(tmp_path / "there")
    RunFolder("runs", "exp").write_config(options)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path, options


@pytest.mark.parametrize("given", ["", "last.ckpt", "results.json"])
def test_paths_of_a_run_begin_where_it_was_started(run, given):
    tmp_path, options = run
    (tmp_path / "there/runs/exp/last.ckpt").touch()
    (tmp_path / "there/runs/exp/results.json").touch()
    folder, found = RunFolder.resume(tmp_path / "there/runs/exp" / given)
    there = tmp_path / "there"
    assert folder.path == there / "runs/exp"
    assert found == options | {
        "cfg": str(there / "mine.yaml"),
        "data": str(there / "data"),
        "plugin": [str(there / "a.py"), "/gone.py"],
        "storage": f"sqlite:///{there / 'study.db'}",
    }


def test_paths_of_a_run_stay_as_they_are_where_it_was_started(run, monkeypatch):
    tmp_path, options = run
    monkeypatch.chdir(tmp_path / "there")
    assert RunFolder.resume("runs/exp")[1] == options


def test_a_run_that_was_moved_with_its_data_keeps_its_options(run):
    tmp_path, options = run
    (tmp_path / "there").rename(tmp_path / "moved")
    assert RunFolder.resume(tmp_path / "moved/runs/exp")[1] == options


def test_names_of_sets_are_no_paths(run, monkeypatch):
    tmp_path, options = run
    monkeypatch.chdir(tmp_path / "there")
    RunFolder("runs", "exp", exist_ok=True).write_config(options | {"data": "digits", "space": "elastic"})
    monkeypatch.chdir(tmp_path / "here")
    assert RunFolder.resume(tmp_path / "there/runs/exp")[1]["data"] == "digits"


@pytest.mark.parametrize("cls", [OneShot, MultiTrial, Options, Subnets, Look])
def test_options_that_are_files_are_known_as_such(cls):
    """By what their help has in the place of a value."""
    metavars = {f.name: f.metadata["argument"].get("metavar", "") for f in options_of(cls)}
    found = {name for name, metavar in metavars.items() if re.search("FILE|YAML|JSON|RUN|URL", metavar)}
    found |= {"cfg", "data", "weights"} & set(metavars)
    assert found - {"edf"} <= set(PATHS)  # --edf makes no run


# Commands to copy


def test_commands_are_quoted_and_carry_plugins(tmp_path, monkeypatch):
    plugin = tmp_path / "my plug-in.py"
    plugin.write_text("")
    monkeypatch.chdir(tmp_path)
    load_plugin(plugin)
    weights = Path("runs/my run/it's.pt")
    line = commands.command("val.py", "--weights", weights, "--data", "a b.yaml", "--imgsz", 64)
    python, script, *words = shlex.split(line)
    assert (python, Path(script)) == ("python", commands.ROOT / "val.py")
    args = val.parse(words)
    assert (args.weights, args.data, args.imgsz) == (str(weights), "a b.yaml", 64)
    assert args.plugin == ["my plug-in.py"]


def test_commands_are_short_in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(commands.ROOT)
    assert commands.command("train.py", "--cfg", "a.yaml") == "python train.py --cfg a.yaml"
    monkeypatch.setattr("sys.argv", [str(commands.ROOT / "oneshot_nas.py")])
    assert commands.resume_command("runs/a b") == "python oneshot_nas.py --resume 'runs/a b'"


def test_names_that_a_terminal_has_no_letters_for(monkeypatch):
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert run_script(lambda _: print("猫 1 é"), None) == 0
    terminal.flush()
    assert raw.getvalue() == b"\\u732b 1 \\xe9" + os.linesep.encode()
