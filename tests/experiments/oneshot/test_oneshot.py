"""`oneshot_nas.py` as its users run it: the files it leaves, resume, Ctrl-C, seeds and bad input."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import oneshot_nas
from experiments.run.cli import run_script

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "tests/assets/tiny_nas.yaml"
QUICK = ["--cfg", str(SPACE), "--imgsz", "32", "--epochs", "2", "--batch", "128", "--device", "cpu"]


@pytest.fixture(scope="session")
def oneshot(script):
    """Makes `oneshot_nas.py` in a folder."""

    class Oneshot(script):
        name = "oneshot_nas.py"

    return Oneshot


@pytest.fixture(scope="session")
def finish(oneshot):
    """(folder, arguments) -> exit status, stdout, stderr."""
    return lambda cwd, *args: oneshot(cwd).run(*args)


@pytest.fixture(scope="module")
def run(tmp_path_factory, finish):
    cwd = tmp_path_factory.mktemp("oneshot")
    code, out, err = finish(cwd, *QUICK)
    assert code == 0, err
    return cwd, cwd / "runs/oneshot_nas/exp", out, err


def test_leaves_every_file_of_a_run(run):
    _, folder, out, err = run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["options"]["epochs"] == 2
    assert config["options"]["seed"] == 0
    assert config["versions"]["nni"] == "3.0"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["train_acc"]) > float(rows[0]["train_acc"])
    assert (folder / "alphas.png").read_bytes().startswith(b"\x89PNG")
    assert list(folder.glob("events.out.tfevents.*"))
    assert (folder / "last.ckpt").is_file()
    assert not list(folder.glob(".*")), "a temporary file was left"
    assert "carried over" in out
    assert err == ""


def test_reports_the_result_beside_the_plain_network(run):
    _, folder, out, _ = run
    results = json.loads((folder / "results.json").read_text())
    from models import Classifier, count_flops, count_params
    from spaces import freeze

    for name, arch in (("derived", results["arch"]), ("plain", {})):
        network = Classifier(freeze(SPACE, arch), 10)
        assert results[name]["params"] == count_params(network)
        assert results[name]["flops"] == count_flops(network, 32)
        (metric,) = results[name]["from_scratch"]
        assert f"{metric:.4f}" in out
    assert results["steps"] == 2 * (718 // 128)
    assert results["retrained"] == {"epochs": 2, "steps": 2 * (1437 // 128), "seeds": 1}
    plain = results["plain"]["from_scratch"][0]
    gain = results["derived"]["from_scratch"][0] - plain
    assert f"from scratch: {abs(gain):.4f} {'better' if gain >= 0 else 'worse'} than the plain network" in out
    costs = [r["flops"] for r in results["random"]]
    assert costs == pytest.approx([results["derived"]["flops"]] * len(costs), rel=0.2)


def test_detector_needs_neither_nni_nor_the_search_code(run):
    _, folder, _, _ = run
    code = """
import sys
sys.modules.update(dict.fromkeys(("nni", "spaces", "experiments", "optimizer")))
import torch
from models import Model, load_detector
model, content = load_detector(sys.argv[1] + "/detector.pt")
fresh = Model(sys.argv[1] + "/detector.yaml")
fresh.load_state_dict(torch.load(sys.argv[1] + "/detector.pt", weights_only=True)["state_dict"])
x = torch.rand(1, 3, 64, 64)
assert torch.equal(fresh.eval()(x)[0], model(x)[0])
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """As `run`, in this process and with nothing trained afterwards."""
    folder = tmp_path_factory.mktemp("searched")
    args = oneshot_nas.parse([*QUICK, "--no-baseline", "--project", str(folder)])
    assert run_script(oneshot_nas.main, args) == 0
    return folder / "exp"


def test_detector_holds_the_average_of_the_searchs_weights(searched):
    folder = searched
    state = torch.load(folder / "detector.pt", weights_only=True)["state_dict"]
    average = torch.load(folder / "last.ckpt", weights_only=False)["engine"]["average"]
    arch = json.loads((folder / "arch.json").read_text())
    source = average[f"network.model.0.conv.{arch['nasconv_0']}.weight"]
    assert torch.equal(state["model.0.conv.weight"], source)


def test_the_result_is_what_was_trained_afterwards_also_when_resumed(tmp_path, call):
    code, _, err = call(oneshot_nas, *QUICK, "--no-baseline", "--finetune", "1")
    assert code == 0, err
    folder = tmp_path / "runs/oneshot_nas/exp"
    trained = torch.load(folder / "detector.pt", weights_only=True)["state_dict"]
    results = json.loads((folder / "results.json").read_text())
    assert "from_scratch" in results["derived"]
    assert "from_scratch" not in results["plain"]
    average = torch.load(folder / "last.ckpt", weights_only=False)["engine"]["average"]
    source = average[f"network.model.0.conv.{results['arch']['nasconv_0']}.weight"]
    assert not torch.equal(trained["model.0.conv.weight"], source)
    code, _, err = call(oneshot_nas, "--resume", str(folder))
    assert code == 0, err
    again = torch.load(folder / "detector.pt", weights_only=True)["state_dict"]
    assert torch.equal(again["model.0.conv.weight"], trained["model.0.conv.weight"])
    assert json.loads((folder / "results.json").read_text()) == results


def test_searches_on_the_detection_loss(tmp_path, call):
    args = ["--task", "detect", "--cfg", str(SPACE), "--imgsz", "32", "--epochs", "1", "--batch", "50"]
    args += ["--no-baseline"]
    code, _, err = call(oneshot_nas, *args, "--device", "cpu")
    assert code == 0, err
    folder = tmp_path / "runs/oneshot_nas/exp"
    results = json.loads((folder / "results.json").read_text())
    assert results["metric"] == "mAP50-95"
    assert "inherited" in results["derived"]
    content = torch.load(folder / "detector.pt", weights_only=True)
    average = torch.load(folder / "last.ckpt", weights_only=False)["engine"]["average"]
    assert content["names"] == {i: str(i) for i in range(10)}
    # The head was searched on as well: its weights are the search's.
    for key in ("model.5.m.0.weight", "model.5.m.1.bias"):
        assert torch.equal(content["state_dict"][key], average[f"network.{key}"])


def test_the_same_seed_gives_the_same_arch_and_another_does_not_reuse_it(run, searched, tmp_path, call):
    """In this process as in the one of `run`."""
    _, folder, _, _ = run
    code, _, err = call(oneshot_nas, *QUICK, "--no-baseline", "--seed", "1")
    assert code == 0, err
    for same, other in ((True, searched), (False, tmp_path / "runs/oneshot_nas/exp")):
        assert ((other / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()) is same


def test_interrupted_and_resumed_equals_uninterrupted(run, tmp_path, oneshot, finish):
    _, whole, _, _ = run
    process = oneshot(tmp_path).start(*QUICK, "--no-baseline", "--name", "cut")
    assert process.stdout is not None
    assert process.stdout.readline() == "2 epochs of 5 batches; warm-up of 1 batches; batches to a step: 1\n"
    assert "epoch 1/2" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    cut = tmp_path / "runs/oneshot_nas/cut"
    assert process.returncode == 130, err
    assert err.strip() == f"interrupted: go on with python {ROOT / 'oneshot_nas.py'} --resume runs/oneshot_nas/cut"
    assert not (cut / "arch.json").exists()

    code, out, err = finish(tmp_path, "--resume", str(cut))
    assert code == 0, err
    assert "epoch 1/2" not in out
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert (cut / "arch.json").read_text() == (whole / "arch.json").read_text()
    resumed, straight = (torch.load(f / "last.ckpt", weights_only=False) for f in (cut, whole))
    assert resumed["state_dict"].keys() == straight["state_dict"].keys()
    for key, value in straight["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key


BAD = {
    "an unknown module": (["--cfg", "unknown.yaml"], "row 1 (NASConf): unknown module"),
    "a missing file": (["--cfg", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "no choices": (["--cfg", "yolov5n.yaml"], "nothing to search"),
    "imgsz off the stride": (["--imgsz", "30"], "--imgsz 30 is no multiple of the stride 8; right would be 24 or 32"),
    "no CUDA": (["--device", "cuda"], "--device cuda: this PyTorch sees 0 CUDA devices"),
    "an unknown data set": (["--data", "digitz"], "digitz: no such data set or folder"),
    "an empty data folder": (["--data", "empty"], "empty"),
    "no run to resume": (["--resume", "nowhere"], "nowhere: not the folder of a run"),
    "detection without a head": (["--task", "detect", "--cfg", "yolov5nb_nas.yaml"], "has no head"),
    "detection with a head": (["--task", "detect", "--detector", "yolov5n.yaml"], "--detector is for --task classify"),
    "resolution for another head": (
        ["--cfg", "sides.yaml", "--detector", "yolov5n.yaml"],
        "resolution is a choice of the proxy",
    ),
    "options of bignas": (["--sampler", "fair"], "--sampler: is of --strategy bignas"),
    "phases that leave values closed": (
        ["--strategy", "ofa", "--phases", "phases.yaml"],
        "--phases phases.yaml: of the 3 values of 'nasconv_0_act' 1 are trained at the end",
    ),
    "phases of another strategy": (["--phases", "phases.yaml"], "--phases: is of --strategy ofa"),
    "no phases": (["--strategy", "ofa", "--phases", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    "a plug-in by another name": (["--plugin", "plug.txt"], "plug.txt: not a Python file, by its name"),
    "another program's folder": (
        ["--resume", "other"],
        "other: not the folder of a run (its config.yaml",
    ),
    "no plug-in": (["--plugin", "nowhere.py"], "nowhere.py: no such plug-in file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path, call):
    args, message = BAD[case]
    if case == "no CUDA" and torch.cuda.is_available():
        args, message = ["--device", "tpu"], "--device tpu: right would be"
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("model: resnet")
    (tmp_path / "plug.txt").touch()
    (tmp_path / "phases.yaml").write_text("- {share: 2}\n- {open: {kernel: all}}\n")
    row = "[-1, 1, Conv, [{choice: [8, 16]}, 3, 2]]"
    (tmp_path / "sides.yaml").write_text(f"nc: 2\nresolution: {{choice: [32, 64]}}\nbackbone:\n  - {row}\n")
    (tmp_path / "unknown.yaml").write_text(SPACE.read_text().replace("NASConv, [16", "NASConf, [16"))
    code, out, err = call(oneshot_nas, *QUICK, *args)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_a_process_of_bad_input_ends_as_it_should(tmp_path, oneshot):
    """What is found only when everything is loaded; `tests/test_scripts.py` has what is found before."""
    fresh = oneshot(tmp_path)
    fresh.fresh = True
    code, out, err = fresh.run(*QUICK, "--cfg", "yolov5n.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("error: yolov5n.yaml: there is nothing to search")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
