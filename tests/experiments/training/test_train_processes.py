"""Several processes train what a single one trains on the same global batch."""

import csv

import pytest
import torch

import train

PROCESSES = ["--devices", "2", "--strategy", "ddp"]
ARGS = ["--imgsz", "64", "--batch", "8", "--device", "cpu", "--epochs", "3"]


@pytest.fixture
def run(script, tiny_cfg, tmp_path, call):
    """(data, name, arguments) -> rows of metrics, state; a single process is this one."""

    def of(data, name, *args):
        given = ("--cfg", tiny_cfg, "--data", data, *ARGS, "--name", name, *args)
        code, _, err = script(tmp_path).run(*given) if "--devices" in args else call(train, *given)
        assert code == 0, err
        return read(tmp_path / "runs/train" / name)

    return of


def read(folder):
    with (folder / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return rows, torch.load(folder / "last.ckpt", weights_only=False)["state_dict"]


def test_two_processes_equal_one_on_equal_halves(run, digits, tmp_path):
    """All images are one: both halves of a batch have the statistics and the means of the whole."""
    data = digits(1, 64, copies=16)
    single, weights = run(data, "single", "--no-augment")
    double, shared = run(data, "double", "--no-augment", *PROCESSES)
    assert not (tmp_path / "runs/train/double2").exists(), "the second process has no run of its own"
    for one, two in zip(single, double, strict=True):
        assert one["step"] == two["step"]
        for name in ("train_loss", "val_loss", "map50_95"):
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-3)
    for key, value in weights.items():
        if torch.is_tensor(value) and not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(shared[key], value, rtol=1e-2, atol=1e-3)


def test_two_processes_are_close_to_one_on_different_halves(run, digits):
    """Batch norms see half a batch each, and means are taken over half of the matches: equal they cannot be."""
    data = digits(16)
    single, _ = run(data, "single")
    double, _ = run(data, "double", *PROCESSES)
    assert single[0]["step"] == double[0]["step"]
    assert double[0]["train_loss"] == pytest.approx(single[0]["train_loss"], rel=0.05)
    assert double[-1]["val_loss"] == pytest.approx(single[-1]["val_loss"], rel=0.1)
