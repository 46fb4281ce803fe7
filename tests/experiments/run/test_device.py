"""Which device a worker has."""

import importlib
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from experiments.run.device import device_of, visible_to_workers
from experiments.run.lightning import accelerator_of, placed, trainer_options
from tests.refusal import refused

SCRIPTS = sorted(p.stem for p in Path(__file__).resolve().parents[3].glob("*.py"))


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
    with refused("right would be auto, cpu, cuda, the number of a CUDA device, or mps"):
        device_of("gpu")


@pytest.mark.parametrize(("device", "number", "given"), [("1", 1, [1]), ("cuda", 1, 1), ("auto", 1, 1), ("1", 2, 2)])
def test_lightning_trains_on_the_device_that_is_meant(device, number, given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    options = Namespace(device=device, devices=number, batch=4, precision="32")
    assert trainer_options(options, "gpu")["devices"] == given


def test_mps_is_taken_where_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with refused("--device mps: this PyTorch sees no such device"):
        device_of("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of("mps") == "mps"
    assert accelerator_of("mps") == "mps"
    options = Namespace(device="mps", devices=1, batch=4, precision="auto")
    given = trainer_options(options, accelerator_of("mps"))
    assert (given["devices"], given["precision"]) == (1, "32-true")


def test_a_number_is_where_a_training_is_placed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placed("1") == placed("cuda:1") == {"devices": [1]}
    assert placed("cuda") == placed("cpu") == {}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_takes_the_same_words(script):
    help = importlib.import_module(script).make_parser()
    options = [a for a in help._actions if "--device" in a.option_strings]
    if script == "export":  # on the CPU, where what it writes is compared
        assert not options
    else:
        assert [a.help for a in options] == ["auto, cpu, cuda, the number of a CUDA device, or mps"]
        assert [a.default for a in options] == ["auto"]
