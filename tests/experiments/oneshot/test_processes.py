"""`oneshot_nas.py` in several processes: they train one supernet, rate it together, and one of them goes on alone."""

import json
from pathlib import Path

import pytest
import torch

import oneshot_nas
from experiments.run.cli import run_script
from experiments.run.folder import is_first_process, new_run

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "tests/assets/tiny_nas.yaml"
# Widths, a kernel and a depth, for the sandwich.
ELASTIC = """
nc: 10
anchors: 2
backbone:
  - [-1, 1, Conv, [{choice: [8, 16]}, 4, 2, 1]]
  - [-1, 1, Conv, [{choice: [16, 24]}, {choice: [3, 5]}, 2]]
  - [-1, {choice: [1, 2]}, C3, [16]]
  - [-1, 1, Conv, [24, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc, anchors]]
"""
SIZES = ["--task", "detect", "--imgsz", "64", "--batch", "4", "--epochs", "2", "--device", "cpu", "--cost-imgsz", "64"]
FEW = ["--population", "4", "--generations", "2"]


def oneshot(script):
    """Makes `oneshot_nas.py` in a folder."""
    return type("Oneshot", (script,), {"name": "oneshot_nas.py"})


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The space that a strategy is tested on."""
    elastic = tmp_path_factory.mktemp("space") / "elastic.yaml"
    elastic.write_text(ELASTIC)
    return lambda strategy: elastic if strategy == "bignas" else SPACE


@pytest.mark.parametrize(
    "strategy", [["darts"], ["spos", *FEW], ["bignas", "--max-params", "12k", *FEW]], ids=["darts", "spos", "bignas"]
)
def test_two_processes_equal_one_on_equal_halves(strategy, script, space, digits, tmp_path):
    """All images are one: both halves of a batch have the statistics and the means of the whole."""
    given = ["--cfg", space(strategy[0]), "--data", digits(1, 64, copies=16), *SIZES, "--no-augment"]
    found = []
    for name, processes in (("one", []), ("two", ["--devices", "2"])):
        options = ["--strategy", *strategy, "--no-baseline", "--name", name, *processes]
        code, out, err = oneshot(script)(tmp_path, *given).run(*options)
        assert code == 0, err
        assert out.count("detector: ") == 1, "one process reports"
        folder = tmp_path / "runs/oneshot_nas" / name
        state = torch.load(folder / "supernet.pt", weights_only=True)["state_dict"]
        found.append((json.loads((folder / "arch.json").read_text()), state))
    assert sorted(p.name for p in (tmp_path / "runs/oneshot_nas").iterdir()) == ["one", "two"]
    (arch, weights), (other_arch, other) = found
    assert other_arch == arch
    for key, value in weights.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(other[key], value, rtol=1e-2, atol=1e-3, msg=key)


@pytest.mark.parametrize("strategy", ["darts", pytest.param("bignas", marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(strategy, script, space, digits, tmp_path):
    given = ["--cfg", space(strategy), "--data", digits(8, 64), *SIZES, "--strategy", strategy, "--no-baseline"]
    run = oneshot(script)(tmp_path, *given, "--devices", "2")
    code, _, err = run.run("--name", "whole")
    assert code == 0, err
    process = run.start(*run.always, "--name", "cut")
    while "epoch 1/2" not in process.stdout.readline():
        assert process.poll() is None
    process.kill()
    process.communicate()
    runs = tmp_path / "runs/oneshot_nas"
    assert not (runs / "cut/arch.json").exists()
    code, out, err = oneshot(script)(tmp_path).run("--resume", runs / "cut")
    assert code == 0, err
    assert "epoch 1/2" not in out
    whole, cut = (torch.load(runs / name / "supernet.pt", weights_only=True)["state_dict"] for name in ("whole", "cut"))
    assert [key for key, value in whole.items() if not torch.equal(cut[key], value)] == []
    assert (runs / "whole/arch.json").read_text() == (runs / "cut/arch.json").read_text()


def test_processes_of_torchrun_have_to_agree_on_a_folder(tmp_path, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NAS_TRAIN_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    given = oneshot_nas.parse(["--cfg", str(SPACE), "--imgsz", "32"])
    assert run_script(oneshot_nas.main, given) == 2
    assert "--name exp: processes that torchrun or SLURM starts have to agree on a folder" in capsys.readouterr().err
    assert not is_first_process()
    assert new_run("runs", "exp", True).path == Path("runs/exp")
