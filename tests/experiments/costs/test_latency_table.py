"""The table of latencies: what is measured, kept, and refused."""

import json

import pytest
import torch
from torch import nn

from experiments.costs import latency_table, timing
from experiments.costs.latency_table import LatencyTable, device_name, main, parse
from spaces import CostModel, Space
from tests.refusal import refused

TINY = "tests/assets/tiny_nas.yaml"
ROWS = {"backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}, 3, 2]], [-1, 1, "C3", [8, True, {"cv1_act": "nn.ReLU()"}]]]}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(latency_table, "_WARM_UP", (1, 0))
    monkeypatch.setattr(latency_table, "_REPEATS", (3, 0))


def test_measures_every_block_once(tmp_path):
    told = []
    table = LatencyTable(tmp_path / "t.json", threads=1, report=lambda key, ms: told.append((key, ms)))
    model = CostModel(Space(ROWS), 32, table)
    assert (
        [key for key, _ in told]
        == list(table.milliseconds)
        == [
            "1 x Conv(3, 8, 3, 2), nn.SiLU() <- 1x3x32x32",
            "1 x Conv(3, 16, 3, 2), nn.SiLU() <- 1x3x32x32",
            "1 x C3(8, 8, True, cv1_act=nn.ReLU()), nn.SiLU() <- 1x8x16x16",
            "1 x C3(16, 8, True, cv1_act=nn.ReLU()), nn.SiLU() <- 1x16x16x16",
        ]
    )
    for key, ms in told:
        assert 0 < ms == pytest.approx(sum(table.milliseconds[key].values()), abs=1e-4)
    assert {"cv1.conv", "cv3.conv", "m.0.cv2.conv"} <= set(table.milliseconds[told[2][0]])
    assert model.of({"row0.0": 8})["latency"] == pytest.approx(told[0][1] + told[2][1], abs=1e-3)
    CostModel(Space(ROWS), 32, table)
    assert len(told) == 4


def test_file(tmp_path):
    path = tmp_path / "t.json"
    table = LatencyTable(path, threads=1)
    CostModel(Space(ROWS), 32, table)
    table.save()
    content = json.loads(path.read_text())
    assert {k: content[k] for k in ("device", "threads", "torch")} == {
        "device": device_name("cpu"),
        "threads": 1,
        "torch": torch.__version__,
    }
    assert sum(line.startswith(' "1 x ') for line in path.read_text().splitlines()) == 4
    again = LatencyTable(path, threads=1)
    assert again.milliseconds == table.milliseconds
    assert CostModel(Space(ROWS), 32, again).of({"row0.0": 8}) == CostModel(Space(ROWS), 32, table).of({"row0.0": 8})
    CostModel(Space(ROWS), 64, again)  # other shapes are added
    again.save()
    assert len(json.loads(path.read_text())["milliseconds"]) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_what_a_file_lacks_is_measured_with_its_threads(tmp_path):
    path = tmp_path / "t.json"
    table = LatencyTable(path, threads=torch.get_num_threads() + 1)
    CostModel(Space(ROWS), 32, table)
    table.save()
    again = LatencyTable(path)
    assert again.threads == table.threads
    CostModel(Space(ROWS), 64, again)
    again.save()
    assert json.loads(path.read_text())["threads"] == table.threads


@pytest.mark.parametrize(("key", "value"), [("device", "Tea Pot"), ("threads", 64), ("torch", "1.0")])
def test_table_of_another_device_is_not_added_to(tmp_path, key, value):
    path = tmp_path / "t.json"
    table = LatencyTable(path, threads=1)
    CostModel(Space(ROWS), 32, table)
    table.save()
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    before = path.read_bytes()
    other = LatencyTable(path, threads=1)
    assert other.made_on[key] == value
    CostModel(Space(ROWS), 32, other)  # it has all that is asked for
    with refused(str(path), f"was measured with {key} {value}", "this is", "lacks '1 x Conv(3, 8, 3, 2)"):
        CostModel(Space(ROWS), 64, other)
    other.save()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"device": "x"}', '{"device": 1, "threads": 1, "torch": 1, "milliseconds": {"a": 3}}']
)
def test_file_that_is_no_table(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_text(content)
    with refused(str(path), "not a table of latencies"):
        LatencyTable(path)


@pytest.mark.parametrize("ms", ["-5", "NaN", "Infinity"])
def test_a_table_of_times_that_are_none(tmp_path, ms):
    path = tmp_path / "t.json"
    path.write_text(f'{{"device": "d", "threads": 1, "torch": "2", "milliseconds": {{"a": {{"": 0, "cv1": {ms}}}}}}}')
    with refused(str(path), "not a table of latencies: milliseconds.a.cv1: "):
        LatencyTable(path)


def test_the_quicker_of_two_measurements_stays(monkeypatch):
    given = iter(
        [{"": 5.0}, {"": 1.0, "cv1": 1.0}, {"": 3.0}, {"": 2.0}, {"": 4.0}, {"": 1.0, "cv1": 2.0}, {"": 1.0}, {"": 3.0}]
    )
    monkeypatch.setattr(LatencyTable, "_measure_parts", lambda self, block: next(given))
    table = LatencyTable()
    CostModel(Space(ROWS), 32, table)
    table.measure_again()
    assert list(table.milliseconds.values()) == [{"": 4.0}, {"": 1.0, "cv1": 1.0}, {"": 1.0}, {"": 2.0}]


class Clock:
    """A module whose parts last as long as they say, on a clock of their own."""

    now = 0.0

    @classmethod
    def perf_counter(cls):
        return cls.now


class Lasts(nn.Module):
    def __init__(self, *seconds, inner=None):
        super().__init__()
        self.seconds, self.inner = list(seconds), inner

    def forward(self, x):
        Clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return x if self.inner is None else self.inner(x)


def test_median_after_warming_up(monkeypatch):
    monkeypatch.setattr(timing, "time", Clock)
    monkeypatch.setattr(latency_table, "_WARM_UP", (2, 0))
    monkeypatch.setattr(latency_table, "_REPEATS", (3, 0))
    assert LatencyTable().measure(Lasts(90, 80, 3, 1, 2), None) == pytest.approx(2000)


def test_parts_are_timed_without_those_within_them(monkeypatch):
    monkeypatch.setattr(latency_table, "time", Clock)
    module = Lasts(1.0, inner=Lasts(3.0))
    watch = latency_table._Watch(module, lambda: None)
    module(None)
    assert watch.stop() == pytest.approx({"": 0.25, "inner": 0.75})
    assert not module._forward_hooks
    assert not module.inner._forward_pre_hooks


def test_threads_are_given_back():
    before = torch.get_num_threads()
    seen = []

    class Looks(nn.Module):
        def forward(self, x):
            seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))

    LatencyTable(threads=before + 1).measure(Looks(), None)
    assert set(seen) == {(before + 1, True, False)}
    assert torch.get_num_threads() == before


def test_script(tmp_path, capsys):
    out = tmp_path / "table.json"
    main(parse(["--cfg", TINY, "--imgsz", "32", "--out", str(out), "--rounds", "1", "--check", "3"]))
    printed = capsys.readouterr().out
    measured = json.loads(out.read_text())["milliseconds"]
    assert f"{len(measured)} blocks" in printed
    assert len(measured) < 100
    assert printed.count("modelled ") == 3
    assert "Kendall's tau" in printed
    before = out.read_bytes()
    main(parse(["--cfg", TINY, "--imgsz", "32", "--out", str(out), "--rounds", "1"]))
    assert out.read_bytes() == before


def test_what_was_measured_stays_when_it_is_interrupted(tmp_path, monkeypatch):
    calls = []

    def measure(self, block):
        calls.append(block)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return {"": 1.0}

    monkeypatch.setattr(LatencyTable, "_measure_parts", measure)
    out = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        main(parse(["--cfg", TINY, "--imgsz", "32", "--out", str(out)]))
    assert len(json.loads(out.read_text())["milliseconds"]) == 4


def test_what_is_done_before_a_run_is_not_timed(monkeypatch):
    monkeypatch.setattr(timing, "time", Clock)
    rests, runs = Lasts(50.0), Lasts(2.0)
    times = timing.times_ms(lambda: runs(None), (1, 0), (3, 0), before=lambda: rests(None))
    assert times == pytest.approx([2000] * 3)
