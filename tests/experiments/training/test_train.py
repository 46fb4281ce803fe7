"""`train.py` as its users run it: the files it leaves, resume, Ctrl-C, several processes and bad input."""

import csv
import json
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

import train as train_script
from data import collate, detection
from experiments.run.folder import RunFolder
from models import Model, load_detector, save_detector

ROOT = Path(__file__).resolve().parents[3]
QUICK = ["--imgsz", "64", "--batch", "4", "--device", "cpu", "--project", "runs"]


@pytest.fixture(scope="module")
def train(script, digits, tiny_cfg, tmp_path_factory):
    """train.py on 12 images with the tiny detector, in an empty folder."""
    return script(tmp_path_factory.mktemp("train"), "--cfg", tiny_cfg, "--data", digits(), *QUICK)


@pytest.fixture(scope="module")
def whole(train):
    """An uninterrupted run with everything that has a state: its folder and what it printed."""
    code, out, err = train.run("--epochs", "4", "--multi-scale", "--name", "whole")
    assert code == 0, err
    assert err == ""
    return train.cwd / "runs/whole", out


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_leaves_every_file_of_a_run(whole):
    folder, _ = whole
    files = {"events" if "tfevents" in p.name else p.name for p in folder.iterdir()}
    assert not any(name.startswith(".") for name in files), "a temporary file was left"
    assert files >= {
        *("config.yaml", "metrics.csv", "events", "last.ckpt"),
        *("detector.yaml", "detector.pt", "results.json", "results.png"),
    }
    options = yaml.safe_load((folder / "config.yaml").read_text())["options"]
    assert (options["recipe"], options["epochs"], options["seed"]) == ("auto", 4, 0)
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(folder)
    assert [r["epoch"] for r in rows] == list("0123")
    assert {"train_box", "train_obj", "train_cls", "val_loss", "map50", "map50_95"} <= set(rows[0])


def test_the_result_is_the_best_average_and_measures_what_the_report_says(whole):
    folder, out = whole
    results = json.loads((folder / "results.json").read_text())
    rows = rows_of(folder)
    fitness = [0.1 * float(r["map50"]) + 0.9 * float(r["map50_95"]) for r in rows]
    best = results["best"]
    assert best["epoch"] == 1 + fitness.index(max(fitness))
    assert best["fitness"] == pytest.approx(max(fitness))
    assert f"epoch {best['epoch']}, the best of 4" in out
    for name in ("all", *best["classes"]):
        assert f"│ {name} " in out
    for command in ("val.py", "detect.py", "export.py"):
        assert f"{command} --weights runs/whole/detector.pt" in out

    model, content = load_detector(folder / "detector.pt")
    assert content["epoch"] == best["epoch"]
    assert model.names == dict(enumerate("0123456789"))
    described = Model(folder / "detector.yaml")
    assert described.names == model.names
    assert described.head.nc == 10
    described.load_state_dict(model.state_dict())

    from experiments.tasks.metrics import NMS_FOR_AP, DetectionMetrics, in_original_pixels
    from models.postprocess import non_max_suppression

    data = detection(yaml.safe_load((folder / "config.yaml").read_text())["options"]["data"], 64, None)
    batch = collate([data.val[i] for i in range(len(data.val))])
    with torch.no_grad():
        decoded = model(batch.images.float() / 255)[0]
    metrics = DetectionMetrics(data.names)
    metrics.update(*in_original_pixels(non_max_suppression(decoded, **NMS_FOR_AP), batch))
    assert metrics.compute()["map50_95"] == pytest.approx(best["map50_95"], abs=1e-3)


def report_of(out):
    return out[out.index("┏") : out.index("results in")]


def assert_same_run(one, other):
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    first, second = (torch.load(f / "last.ckpt", weights_only=False) for f in (one, other))
    for key, value in first["state_dict"].items():
        same = torch.equal(value, second["state_dict"][key]) if torch.is_tensor(value) else True
        assert same, key
    for state, again in zip(*(c["optimizer_states"][0]["state"].values() for c in (first, second)), strict=True):
        assert torch.equal(state["momentum_buffer"], again["momentum_buffer"])
    states = [torch.load(f / "detector.pt", weights_only=True)["state_dict"] for f in (one, other)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    bests = [json.loads((f / "results.json").read_text())["best"] for f in (one, other)]
    assert bests[0] == bests[1]


def test_interrupted_and_resumed_equals_uninterrupted(whole, train, call, monkeypatch):
    process = train.start(*train.always, "--epochs", "4", "--multi-scale", "--name", "cut")
    for line in process.stdout:
        if "epoch 2/4" in line:
            process.send_signal(signal.SIGINT)
            time.sleep(0.03)
            process.send_signal(signal.SIGINT)  # a key that bounced
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == f"interrupted: go on with python {ROOT / 'train.py'} --resume runs/cut\n"
    cut = train.cwd / "runs/cut"
    assert len(rows_of(cut)) < 4
    assert not (cut / "results.json").exists()

    monkeypatch.chdir(train.cwd)
    code, out, err = call(train_script, "--resume", "runs/cut")
    assert code == 0, err
    assert "epoch 1/4" not in out
    assert_same_run(whole[0], cut)


def test_a_finished_run_that_is_resumed_reports_again(whole, train, script):
    fresh = script(train.cwd)
    fresh.fresh = True
    code, out, err = fresh.run("--resume", "runs/whole")
    assert (code, err) == (0, "")
    assert "epoch 1/4" not in out
    assert report_of(out) == report_of(whole[1])
    assert "nothing was left to train: the 4 epochs of runs/whole are done; right would be --epochs MORE" in out


def test_more_epochs(train, call, monkeypatch):
    """Where rates do not depend on the epochs there are to be, two and two more are four, bit for bit."""
    monkeypatch.chdir(train.cwd)
    constant = [*train.always, "--recipe", "yolov5", "--lrf", "1"]
    for epochs, name in ((4, "four"), (2, "two")):
        code, _, err = call(train_script, *constant, "--epochs", epochs, "--name", name)
        assert code == 0, err
    for epochs in (1, 2):
        code, out, err = call(train_script, "--resume", "runs/two", "--epochs", epochs)
        assert (code, out) == (2, "")
        assert err == f"error: --epochs {epochs}: runs/two has had 2 epochs; right would be more than 2\n"
    code, out, err = call(train_script, "--resume", "runs/two", "--epochs", 4)
    assert code == 0, err
    assert "epoch 3/4" in out
    assert "nothing was left" not in out
    assert_same_run(train.cwd / "runs/four", train.cwd / "runs/two")
    assert yaml.safe_load((train.cwd / "runs/two/config.yaml").read_text())["options"]["epochs"] == 4


def test_from_weights_with_other_classes(whole, train, tmp_path, call, monkeypatch):
    folder, _ = whole
    content = yaml.safe_load((train.cwd / train.always[3]).read_text())
    few = (train.cwd / train.always[3]).parent / "few.yaml"
    few.write_text(yaml.safe_dump({**content, "names": [*content["names"], "eleven"]}))
    searched, arch = tmp_path / "searched.pt", {"c3_2": 1}
    save_detector(load_detector(folder / "detector.pt")[0], searched, arch=arch)
    args = ["--weights", searched, "--data", few, *QUICK, "--epochs", "1", "--name", "from"]
    other = ["--optimizer", "adamw", "--cosine", "--hyp", "mosaic=0", "mixup=0.1", "--precision", "bf16-mixed"]
    monkeypatch.chdir(train.cwd)
    code, out, err = call(train_script, *args, *other)
    assert code == 0, err
    assert "initialised anew: model.6.m.0.weight, model.6.m.0.bias, model.6.m.1.weight, …" in out
    assert Model(train.cwd / "runs/from/detector.yaml").head.nc == 11
    assert load_detector(train.cwd / "runs/from/detector.pt")[1]["arch"] == arch


def test_stops_early_and_stays_so(train, call, monkeypatch):
    monkeypatch.chdir(train.cwd)
    args = ["--epochs", "50", "--patience", "1", "--lr0", "1e-9", "--name", "early"]
    code, out, err = call(train_script, *train.always, *args)
    assert code == 0, err
    epochs = len(rows_of(train.cwd / "runs/early"))
    assert epochs < 20
    code, out, err = call(train_script, "--resume", "runs/early")
    assert code == 0, err
    assert f"the best of {epochs};" in out
    code, out, err = call(train_script, "--resume", "runs/early", "--epochs", 60)
    assert code == 0, err
    assert len(rows_of(train.cwd / "runs/early")) > epochs, "its patience begins anew"
    assert len(rows_of(train.cwd / "runs/early")) < 60


def test_a_run_is_not_gone_on_with_on_other_classes(train, call, monkeypatch):
    monkeypatch.chdir(train.cwd)
    content = yaml.safe_load((train.cwd / train.always[3]).read_text())
    changed = (train.cwd / train.always[3]).parent / "changed.yaml"
    changed.write_text(yaml.safe_dump(content))
    given = ["--cfg", train.always[1], "--data", changed, *QUICK]
    code, _, err = call(train_script, *given, "--epochs", 1, "--name", "changed")
    assert code == 0, err
    changed.write_text(yaml.safe_dump({**content, "names": content["names"][::-1]}))
    before = {p: p.read_bytes() for p in (train.cwd / "runs/changed").iterdir() if p.is_file()}
    code, _, err = call(train_script, "--resume", "runs/changed", "--epochs", 2)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the classes of the data were 0, 1, 2, 3, 4…, and are 9, 8, 7, 6, 5… now" in err
    assert before == {p: p.read_bytes() for p in (train.cwd / "runs/changed").iterdir() if p.is_file()}


def test_a_new_run_in_an_old_folder_is_not_gone_on_with(tmp_path):
    run = RunFolder(tmp_path, "run")
    for name in ("last.ckpt", "retrained.json", "detector.pt"):
        run.write_json(name, 1)
    run.write_config({"epochs": 1})
    assert (run.path / "last.ckpt").exists()
    RunFolder(tmp_path, "run", exist_ok=True).write_config({"epochs": 1}, anew=True)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "detector.pt"]


BAD = {
    "nothing to train": ([], "say what to train"),
    "no cfg": (["--cfg", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "a space": (["--cfg", "yolov5n_nas.yaml"], "freeze the space first"),
    "no data": (["--cfg", "tiny", "--data", "nowhere"], "nowhere: no such data set"),
    "imgsz off the stride": (["--cfg", "tiny", "--imgsz", "70"], "--imgsz 70 is no multiple of the stride 16"),
    "no CUDA": (["--cfg", "tiny", "--device", "cuda"], "--device cuda: this PyTorch sees 0 CUDA devices"),
    "no weights": (["--weights", "nowhere.pt"], "--weights nowhere.pt: no such file"),
    "not weights": (["--weights", "text.pt"], "--weights text.pt: "),
    "another network's weights": (["--cfg", "tiny", "--weights", "n.pt"], "they are of another network"),
    "an unknown gain": (["--cfg", "tiny", "--hyp", "mosaik=1"], "--hyp mosaik: right would be one of hsv_h,"),
    "a batch that cannot be shared": (["--cfg", "tiny", "--batch", "3", "--devices", "2"], "--batch 3 cannot be"),
    "sync-bn without CUDA": (["--cfg", "tiny", "--sync-bn", "--device", "cpu"], "--sync-bn: PyTorch has it for CUDA"),
    "an unknown strategy": (["--cfg", "tiny", "--strategy", "ddq"], "--strategy"),
    "no run": (["--resume", "nowhere"], "nowhere: not the folder of a run"),
    "no plug-in": (["--cfg", "tiny", "--plugin", "nowhere.py"], "nowhere.py: no such plug-in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, train, tmp_path, call):
    (tmp_path / "text.pt").write_text("hello")
    args, message = BAD[case]
    if "n.pt" in args:
        save_detector(Model("yolov5n.yaml"), tmp_path / "n.pt")
    args = [train.always[1] if a == "tiny" else a for a in args]
    defaults = [] if "--data" in args else ["--data", train.always[3]]
    code, _, err = call(train_script, *defaults, "--imgsz", "64", *args)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
