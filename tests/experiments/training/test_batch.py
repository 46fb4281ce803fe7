"""`train.py --batch auto`: what is chosen, and that a run keeps it; memory is an equation, and no GPU is needed."""

import pytest
import torch
import yaml

import train
from experiments.training import batch as of_batch
from experiments.training.batch import largest_batch
from tests.refusal import refused


def line(fixed, each):
    """Bytes that n images take."""
    return lambda n: fixed + each * n


@pytest.mark.parametrize(
    ("peak", "room", "most", "number"),
    [
        (line(100, 10), 1000, 10_000, 88),  # 90 fit
        (line(100, 10), 270, 10_000, 16),  # 17 fit
        (line(100, 10), 240, 10_000, 14),
        (line(100, 10), 1000, 50, 48),
        (line(100, 10), 1000, 12, 12),
        (line(100, 10), 120, 10_000, 2),
        (line(100, 10), 1000, 1, 1),
        (lambda n: None if n > 20 else n, 1000, 10_000, 24),  # what does not fit says nothing of what it takes
        (lambda n: 500, 1000, 10_000, 8192),  # no line: what was tried
        (lambda n: 2000 if n > 2 else 100, 1000, 10_000, 2),
    ],
)
def test_the_largest_that_fits(peak, room, most, number):
    assert largest_batch(peak, room, most) == number


def test_no_more_is_tried_than_needed():
    tried = []
    largest_batch(lambda n: tried.append(n) or 100 + 10 * n, 1000, 10_000)
    assert tried == [2, 4, 8, 16, 32, 64]


def test_where_nothing_fits():
    with refused("--batch auto: not even two images fit"):
        largest_batch(lambda n: None, 1000, 8)


class Counted:
    """A device on which every image takes 100 bytes; a batch of four is as large as is possible."""

    free = 1000

    def __init__(self):
        self.sizes = []

    def peak(self, step):
        step()
        return 100 * self.sizes[-1]


def test_a_run_keeps_what_was_chosen(tmp_path, call, digits, tiny_cfg, monkeypatch):
    memory, step = Counted(), of_batch._step
    seen = []

    def noted(options, training, batch, device):
        memory.sizes.append(len(batch.images))
        before = {k: v.clone() for k, v in training.state_dict().items()}
        numbers = torch.get_rng_state()
        step(options, training, batch, device)
        assert all(torch.equal(v, before[k]) for k, v in training.state_dict().items()), "the network was changed"
        assert torch.equal(numbers, torch.get_rng_state())
        seen.append(device)

    monkeypatch.setattr(of_batch, "memory_of", lambda device: memory)
    monkeypatch.setattr(of_batch, "_step", noted)
    data = digits(12)
    given = ["--cfg", tiny_cfg, "--data", data, "--imgsz", 64, "--device", "cpu", "--epochs", 1]
    code, out, err = call(train, *given, "--batch", "auto", "--multi-scale")
    assert code == 0, err
    assert memory.sizes == [2, 4]  # of 12 images an epoch's batches are the reason for no more than 12
    assert "batch: 7 (tried 2, 4 in 0.0 GiB; 12 images allow 12)" in out
    config = tmp_path / "runs/train/exp/config.yaml"
    assert yaml.safe_load(config.read_text())["options"]["batch"] == 7
    assert "1 epochs of 2 batches" in out
    code, out, err = call(train, "--resume", "runs/train/exp", "--epochs", 2)
    assert code == 0, err
    assert len(seen) == 2
    assert "of 2 batches" in out


def test_on_the_cpu_it_is_a_plain_number_and_said(call, digits, tiny_cfg, tmp_path):
    given = ["--cfg", tiny_cfg, "--data", digits(12), "--imgsz", 64, "--device", "cpu", "--epochs", 1]
    code, out, err = call(train, *given, "--batch-size", "-1")
    assert code == 0, err
    assert "batch: 12; --batch auto tries what fits on CUDA devices alone" in out
    code, _, err = call(train, *given, "--batch", "auto", "--devices", 2)
    assert code == 2
    assert "--batch auto: is for one device" in err
    code, _, err = call(train, *given, "--batch", "0")
    assert code == 2
    assert "argument --batch: must be 1 to" in err
