"""Which device a worker has."""

import pytest
import torch

from experiments.run.device import visible_to_workers


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
