"""A limit of the latency without anything that tells it: the search measures a table of this device."""

import json

import pytest

import oneshot_nas
from experiments.costs.latency_table import LatencyTable
from experiments.oneshot.measured import with_table
from experiments.oneshot.options import Options
from experiments.run.folder import RunFolder
from tests.experiments.oneshot.test_oneshot_ui import QUICK
from tests.refusal import refused

SMALL = [*QUICK, "--cost-imgsz", "32"]


@pytest.fixture
def measured(monkeypatch):
    """Keys of the blocks that were measured; each lasts half a millisecond, and a third one is interrupted if asked."""
    keys = []

    def measure(table, block):
        keys.append(block.key)
        if len(keys) == getattr(measure, "interrupted_at", None):
            raise KeyboardInterrupt
        return {"": 0.5}

    monkeypatch.setattr(LatencyTable, "_measure_parts", measure)
    return keys, measure


def test_measuring_is_gone_on_with_and_a_limit_that_is_refused_leaves_the_table(tmp_path, call, measured):
    keys, measure = measured
    measure.interrupted_at = 3
    folder = tmp_path / "runs/oneshot_nas/exp"
    code, out, err = call(oneshot_nas, *SMALL, "--max-latency", "1ms")
    assert code == 130
    assert "; measuring it takes minutes; in runs/oneshot_nas/exp/latency.json" in out
    assert "--resume runs/oneshot_nas/exp" in err
    assert len(json.loads((folder / "latency.json").read_text())["milliseconds"]) == 2
    del measure.interrupted_at
    code, out, err = call(oneshot_nas, "--resume", folder)
    assert code == 2
    assert "--max-latency 1 ms: no arch keeps it, the least possible is " in err
    assert err.strip().endswith(f"what was measured is there for --latency-table {folder}/latency.json")
    assert f"; what is missing is measured; in {folder}/latency.json" in out
    assert len(keys) == 1 + len(set(keys))  # the one that was interrupted, again
    assert set(json.loads((folder / "latency.json").read_text())["milliseconds"]) == set(keys)


def test_a_target_that_cannot_be_is_refused_before_anything_is_measured(tmp_path, call, measured):
    code, _, err = call(oneshot_nas, *QUICK, "--strategy", "spos", "--target-latency", "8ms")
    assert code == 2
    assert "spos trains without an architecture to steer" in err
    assert measured[0] == []
    assert not (tmp_path / "runs").exists()


def test_what_tells_latency_is_taken(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, "exp")
    given = {"data": "", "batch": 1, "imgsz": 64}
    for more in ({}, {"costs": "a.yaml", "max_latency": 8.0}, {"latency_table": "a.json", "target_latency": 8.0}):
        assert with_table(options := Options(**given, **more), run) is options
    own = with_table(Options(**given, target_latency=8.0), run)
    assert own.latency_table == str(tmp_path / "exp/latency.json")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused("right would be: python -m experiments.costs.latency_table --out FILE"):
        with_table(Options(**given, max_latency=8.0), run)
