"""`oneshot_nas.py`, killed at any step and resumed, ends bit for bit where the uninterrupted run ends."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import oneshot_nas
from experiments.oneshot.base import OneShotModule
from experiments.run import registry
from experiments.run.cli import run_script
from experiments.supernets import rating
from tests.experiments.strategies_forked import forked
from tests.experiments.strategies_toys import differences

SPACE = Path(__file__).resolve().parents[2] / "assets/tiny_nas.yaml"
QUICK = ["--cfg", str(SPACE), "--imgsz", "32", "--epochs", "3", "--batch", "300", "--device", "cpu", "--no-baseline"]
STEPS = 2  # an epoch, of 718 images
STRATEGIES = {
    "darts": [],
    "proxyless": [],
    "enas": [],
    "spos": ["--population", "4", "--generations", "3"],
}
assert set(registry.names("oneshot")) >= STRATEGIES.keys()


def killed_at(cls, name, call):
    """The process kills itself as that call of a method begins, the first being number 0."""
    original, calls = getattr(cls, name), []

    def method(*args, **kwargs):
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(None)
        return original(*args, **kwargs)

    setattr(cls, name, method)


def script(folder, args, kill=None):
    """`oneshot_nas.py` in a folder; for a process of its own."""
    os.chdir(folder)
    torch.set_num_threads(1)
    if kill:
        killed_at(*kill)
    return run_script(oneshot_nas.main, oneshot_nas.parse(args))


def finish(folder, *args, kill=None):
    log = folder / "log"
    status = forked(log, script, (folder, [str(a) for a in args], kill))[0]
    return status, log.read_text()


@pytest.fixture(scope="module", params=STRATEGIES)
def whole(request, tmp_path_factory):
    """Arguments of an uninterrupted run, and its folder."""
    folder, args = tmp_path_factory.mktemp("whole"), ["--strategy", request.param, *STRATEGIES[request.param], *QUICK]
    status, log = finish(folder, *args)
    assert status == 0, log
    return args, folder / "runs/oneshot_nas/exp"


def check_same(run, whole):
    """Everything that two runs leave is the same: the state at the end of the training, and the result."""
    checkpoints = [torch.load(folder / "last.ckpt", weights_only=False) for folder in (run, whole)]
    assert differences(*checkpoints) == []
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert (run / "arch.json").read_text() == (whole / "arch.json").read_text()
    assert json.loads((run / "results.json").read_text()) == json.loads((whole / "results.json").read_text())
    assert (run / "detector.yaml").read_text() == (whole / "detector.yaml").read_text()
    assert differences(*(torch.load(folder / "detector.pt", weights_only=True) for folder in (run, whole))) == []


# Before the first checkpoint, in the middle of an epoch, and with the last epoch not quite done.
@pytest.mark.parametrize("step", [1, STEPS + 1, 3 * STEPS - 1])
def test_killed_in_an_epoch(whole, tmp_path, step):
    args, folder = whole
    if step != STEPS + 1 and "darts" not in args:
        pytest.skip("one strategy is enough")
    status, log = finish(tmp_path, *args, kill=(OneShotModule, "step_weights", step))
    assert status == -signal.SIGKILL, log
    run = tmp_path / "runs/oneshot_nas/exp"
    assert (run / "last.ckpt").exists() is (step > STEPS)
    assert not (run / "arch.json").exists()
    status, log = finish(tmp_path, "--resume", run)
    assert status == 0, log
    assert ("epoch 1/3" in log) is (step < STEPS)
    check_same(run, folder)


def test_killed_in_the_search_of_the_supernet(whole, tmp_path):
    args, folder = whole
    if "spos" not in args:
        pytest.skip("has no search afterwards")
    status, log = finish(tmp_path, *args, kill=(rating.Rating, "__call__", 6))
    assert status == -signal.SIGKILL, log
    run = tmp_path / "runs/oneshot_nas/exp"
    assert "epoch 3/3" in log
    # Six ratings are there already, so that there are six to go.
    status, log = finish(tmp_path, "--resume", run, kill=(rating.Rating, "__call__", 6))
    assert status == 0, log
    assert "epoch 1" not in log
    assert "the supernet was trained: the 3 epochs of" in log
    check_same(run, folder)
