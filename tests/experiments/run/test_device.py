"""Which device a worker has."""

from argparse import Namespace

import pytest
import torch

from experiments.run.device import device_of, visible_to_workers
from experiments.run.lightning import trainer_options
from tests.refusal import refused


@pytest.mark.parametrize(
    ("device", "visible", "found"),
    [
        ("cuda", None, ["0", "1", "0"]),
        ("auto", None, ["0", "1", "0"]),
        ("cuda", "4, GPU-7", ["4", "GPU-7", "4"]),
        ("cuda:1", None, [None] * 3),
        ("cpu", "4,7", [None] * 3),
    ],
)
def test_workers_share_the_devices_of_a_machine(device, visible, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_to_workers(device, 3) == found


def test_a_device_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(text) for text in ("0", "1", "cuda:1", "cuda", "auto", "cpu")] == [
        *("cuda:0", "cuda:1", "cuda:1", "cuda", "cuda", "cpu")
    ]
    with refused("--device cuda:2: this PyTorch sees 2 CUDA devices"):
        device_of("2")
    with refused("--device 0,1: right would be --devices 2, of those that CUDA_VISIBLE_DEVICES=0,1 leaves"):
        device_of("0,1")
    with refused("right would be auto, cpu, cuda, or the number of a CUDA device"):
        device_of("gpu")


@pytest.mark.parametrize(("device", "number", "given"), [("1", 1, [1]), ("cuda", 1, 1), ("auto", 1, 1), ("1", 2, 2)])
def test_lightning_trains_on_the_device_that_is_meant(device, number, given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    options = Namespace(device=device, devices=number, batch=4, precision="32")
    assert trainer_options(options, "gpu")["devices"] == given
