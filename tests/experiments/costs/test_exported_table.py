"""A table of blocks as they are exported: what a block is in its chain, the correction, and the comparison."""

import json
import re

import numpy as np
import pytest

from experiments.costs import TableLatency, latency_table, table_check
from experiments.costs.exported_block import ExportedBlock, _Node, _Owners
from experiments.costs.latency_table import LatencyTable, main, parse
from experiments.costs.table_check import Measured, Networks, check, fit
from spaces import CostModel, Space
from tests.refusal import refused

C3 = [-1, 1, "C3", [8, True, {"cv1_act": {"choice": ["nn.ReLU()", "nn.SiLU()"]}}]]
ROWS = {"nc": 1, "anchors": 1, "backbone": [[-1, 1, "Conv", [8, 3, 8]], C3], "head": [[[1], 1, "Detect", ["nc", 1]]]}
WIDTHS = {"choice": [4, 8, 12, 16, 20, 24, 28, 32]}
WIDE = {"backbone": [[-1, 1, "Conv", [WIDTHS, 3, 2]], [-1, 1, "Conv", [WIDTHS, 3, 2]]]}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(latency_table, "_WARM_UP", (1, 0))
    monkeypatch.setattr(latency_table, "_REPEATS", (2, 0))


class Collects:
    offset = 0.0

    def __init__(self):
        self.blocks = {}

    def parts(self, block):
        self.blocks[block.key] = block
        return {"": 1.0}


def blocks(rows):
    collects = Collects()
    CostModel(Space(rows), 32, collects)
    return collects.blocks


def test_a_block_has_a_share_of_its_chain_by_submodule():
    found = blocks(ROWS)
    for key, block in found.items():
        shares = ExportedBlock(block, 1).shares()
        assert all(share >= 0 for share in shares.values())
        if "C3" in key:  # there are convolutions before and behind it
            assert 0 < sum(shares.values()) < 0.97
            assert all(
                shares[name] > 0 for name in ("cv1.conv", "cv2.conv", "cv3.conv", "m.0.cv1.conv", "m.0.cv2.conv")
            )
            assert shares["cv2.act"] > 0
            assert (shares["cv1.act"] == 0) == ("ReLU" in key)  # a ReLU is part of its convolution
        elif "Detect" in key:
            assert shares["m.0"] > 0
            assert shares[""] > 0


def test_a_convolution_that_is_named_after_its_activation():
    block = next(b for k, b in blocks(ROWS).items() if "ReLU" in k)
    exported = ExportedBlock(block, 1)
    owners = _Owners(exported._model, exported._modules)
    names = {n.op_type: n for n in exported._model.graph.node if "/cv1/" in n.name and "/m/" not in n.name}
    relu = names["Relu"].output[0]
    assert owners.of(_Node(f"{relu}_nchwc", "Conv", 1)) == "cv1.conv"
    assert owners.of(_Node(f"fused {names['Conv'].name}", "FusedConv", 1)) == "cv1.conv"
    assert owners.of(_Node(names["Relu"].name, "Relu", 1)) == "cv1.act"
    assert owners.of(_Node("/before.0/Conv_output_0_nchwc", "Conv", 1)) is None
    assert owners.of(_Node("ReorderOutput_token_3", "ReorderOutput", 1)) is None


def test_script_makes_corrects_and_checks_a_table(tmp_path, capsys):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(ROWS))
    out = tmp_path / "table.json"
    told = ["--cfg", str(path), "--imgsz", "32", "--out", str(out), "--rounds", "2"]
    main(parse([*told, "--provider", "onnxruntime", "--clock", "cpu", "--fit", "1", "--check", "5"]))
    said = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["provider"] == "onnxruntime"
    assert content["clock"] == "cpu"
    assert content["onnxruntime"]
    assert content["correction"]["networks"] == 1
    assert content["check"]["archs"] == len(content["check"]["milliseconds"]) == 1  # of two, one was to correct by
    assert {"median_error", "kendall", "repeated_error"} <= content["check"].keys()
    for text in ("threads: 1", "processor's time", "input and output in memory included, NMS not", "median error"):
        assert text in said
    assert re.search(r"goal (not )?met", said)

    before = out.read_bytes()
    main(parse(told))  # provider and clock are those of the file, and nothing is missing
    assert out.read_bytes() == before
    table = LatencyTable(out)
    assert (table.provider, table.clock, table.correction) == ("onnxruntime", "cpu", content["correction"])
    with refused(str(out), "was made with provider onnxruntime, not torch", "a new file"):
        main(parse([*told, "--provider", "torch"]))


def test_a_correction_counts_once_for_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(LatencyTable, "_measure_parts", lambda self, block: {"": 1.0})
    path = tmp_path / "table.json"
    plain = LatencyTable(path, threads=1)
    assert CostModel(Space(WIDE), 32, plain).of({"row0.0": 4, "row1.0": 8})["latency"] == 2
    plain.save()
    before = TableLatency(Space(WIDE), 32, str(path))
    plain.correct({"scale": 1.5, "offset": 0.25})
    plain.save()
    after = TableLatency(Space(WIDE), 32, str(path))
    assert before([{"row0.0": 4, "row1.0": 8}]) == [2.0]
    assert after([{"row0.0": 4, "row1.0": 8}]) == [3.25]
    assert before.settings["table"] != after.settings["table"]


class Simulated(Networks):
    """Networks that take 0.5 ms and 2 ms a millisecond of their blocks, more or less."""

    noise = 0.0

    def measured(self, archs, say=False):
        rng = np.random.default_rng(0)
        model = CostModel(self.space, self.imgsz, LatencyTable(threads=1))
        sums = [model.of(a)["latency"] for a in archs]
        found = [0.5 + 2 * ms * (1 + self.noise * rng.uniform(-1, 1)) for ms in sums]
        return [Measured(ms, 1.1 * ms) for ms in found], np.array([found, found])


@pytest.fixture
def simulated(monkeypatch):
    def parts(self, block):
        self.spread[block.key] = 1.1
        return {"": 0.001 * int(re.search(r"Conv\(\d+, (\d+)", block.key)[1])}

    monkeypatch.setattr(LatencyTable, "_measure_parts", parts)
    return Simulated(Space(WIDE), 32, LatencyTable(threads=1), 2, 0)


def test_the_fit_is_found_and_checked_on_other_networks(simulated, capsys):
    fit(simulated, 6)
    assert (simulated.table.scale, simulated.table.offset) == (pytest.approx(2), pytest.approx(0.5))
    assert simulated.table.correction["archs"] == simulated.fitted
    assert len(simulated.fitted) == 6
    found = check(simulated, 40, "wide.yaml")
    assert found["archs"] == 40
    assert found["median_error"] == 0
    assert found["kendall"] > table_check.TAU
    assert simulated.table.checked == found
    assert not {tuple(a.items()) for a in simulated.drawn(40, "0 check")} & {tuple(a.items()) for a in simulated.fitted}
    assert "goal met" in capsys.readouterr().out


def test_a_table_that_is_not_good_enough_says_what_to_do(simulated, capsys):
    fit(simulated, 6)
    simulated.noise = 0.9
    found = check(simulated, 40, "wide.yaml")
    assert found["median_error"] > table_check.MEDIAN_ERROR or found["kendall"] < table_check.TAU
    assert "goal not met" in (said := capsys.readouterr().out)
    assert "costs: {latency: {provider: torch}}" in said


def test_networks_that_are_all_as_quick_give_no_offset(simulated, monkeypatch):
    monkeypatch.setattr(LatencyTable, "_measure_parts", lambda self, block: {"": 1.0})
    fit(simulated, 4)
    assert (simulated.table.scale, simulated.table.offset) == (pytest.approx(2.25), 0)


def test_what_does_not_go_together(tmp_path, monkeypatch):
    with refused("--clock cpu is of one thread, and there are 2"):
        LatencyTable(threads=2, clock="cpu")
    with refused("provider onnxruntime measures on the CPU only"):
        LatencyTable(device="cuda", provider="onnxruntime")
    with refused("clock: 'sun': right would be wall or cpu"):
        LatencyTable(clock="sun")


def test_rows_without_a_head_have_no_whole_networks(tmp_path, capsys):
    path, out = tmp_path / "space.json", tmp_path / "table.json"
    path.write_text(json.dumps({"backbone": [[-1, 1, "Conv", [{"choice": [4, 8]}, 3, 2]]]}))
    told = ["--cfg", str(path), "--imgsz", "32", "--out", str(out), "--rounds", "1", "--provider", "onnxruntime"]
    with refused("--check: ", "needs a detector"):
        main(parse([*told, "--check", "2"]))
    assert not out.exists()
    main(parse(told))
    assert "correction" not in json.loads(out.read_text())
    assert "blocks on" in capsys.readouterr().out


def test_a_table_of_another_runtime_is_not_added_to(tmp_path):
    path = tmp_path / "t.json"
    table = LatencyTable(path, threads=1, provider="onnxruntime")
    CostModel(Space(ROWS), 32, table)
    table.save()
    path.write_text(json.dumps({**json.loads(path.read_text()), "onnxruntime": "1.0"}))
    with refused(str(path), "was measured with onnxruntime 1.0", "it lacks"):
        CostModel(Space(ROWS), 64, LatencyTable(path))
