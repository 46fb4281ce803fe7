"""Phases are done once; what ends a run in one of them leaves a folder that goes on."""

import errno
import json
from types import SimpleNamespace

import pytest

from experiments.find import phases
from experiments.find.options import Options
from experiments.find.phases import Job, Phase, run_phases
from experiments.run.folder import RunFolder


def job(tmp_path):
    return Job(Options(data="d"), RunFolder(tmp_path, "run", exist_ok=True))


def test_a_phase_that_is_done_is_not_done_again(tmp_path):
    called = []

    def work(name, error=None):
        def do(job):
            called.append(name)
            if error is not None:
                raise error
            return {"of": name, 1: (2,)}

        return do

    with pytest.raises(KeyboardInterrupt):
        run_phases(job(tmp_path), [Phase("a", "A", work("a")), Phase("b", "B", work("b", KeyboardInterrupt()))])
    assert [p.name for p in (tmp_path / "run/phases").iterdir()] == ["a.json"]
    assert set(json.loads((tmp_path / "run/spent.json").read_text())) == {"a", "b"}
    again = job(tmp_path)
    run_phases(again, [Phase("a", "A", work("a")), Phase("b", "B", work("b"))])
    assert called == ["a", "b", "b"]
    # A phase finds the same of one that was done just now, and of one that was done before a resume.
    assert again.results == {"a": {"of": "a", "1": [2]}, "b": {"of": "b", "1": [2]}}


def test_time_of_a_phase_that_was_interrupted_counts(tmp_path, monkeypatch):
    clock = iter([0.0, 7.0, 100.0, 103.0])
    monkeypatch.setattr(phases, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def stopped(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_phases(job(tmp_path), [Phase("a", "A", stopped)])
    again = job(tmp_path)
    run_phases(again, [Phase("a", "A", lambda job: {})])
    assert again.spent == {"a": 10.0}


FULL = OSError(errno.ENOSPC, "No space left on device", "gone")


@pytest.mark.parametrize("fails", ["phases/a.json", "spent.json"])
def test_a_full_disk_leaves_no_result_and_the_run_goes_on(tmp_path, monkeypatch, fails):
    write, full = RunFolder.write_json, [True]

    def written(self, name, content):
        if full and name == fails:
            raise FULL
        write(self, name, content)

    monkeypatch.setattr(RunFolder, "write_json", written)
    with pytest.raises(OSError, match="No space left"):
        run_phases(job(tmp_path), [Phase("a", "A", lambda job: {"now": 0})])
    assert (tmp_path / "run/phases/a.json").exists() == (fails == "spent.json")
    full.clear()
    again = job(tmp_path)
    run_phases(again, [Phase("a", "A", lambda job: {"now": 1})])
    assert again.results == {"a": {"now": int(fails == "phases/a.json")}}
