"""Phases are done once; what ends a run in one of them leaves a folder that goes on."""

import errno
import json
from types import SimpleNamespace

import pytest

from experiments.find import phases
from experiments.find.options import Options
from experiments.find.phases import Job, Phase, run_phases
from experiments.run.cli import run_script
from experiments.run.folder import RunFolder
from models.errors import InputError


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


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "free"),
    [(FULL, 1 << 30), (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), 0)],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, error, free):
    monkeypatch.setattr(phases.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    errors = [error]

    def work(job):
        if errors:
            raise errors.pop()
        return {}

    with pytest.raises(InputError, match=r"run: no space is left on the disk; .* go on with --resume .*run$"):
        run_phases(job(tmp_path), [Phase("a", "A", work)])
    assert not (tmp_path / "run/phases").exists()
    run_phases(job(tmp_path), [Phase("a", "A", work)])
    assert (tmp_path / "run/phases/a.json").is_file()


def test_a_full_disk_where_a_result_is_written_leaves_none(tmp_path, monkeypatch):
    write, fails = RunFolder.write_json, [True]

    def full(self, name, content):
        if fails:
            raise FULL
        write(self, name, content)

    monkeypatch.setattr(RunFolder, "write_json", full)
    with pytest.raises(InputError, match="no space is left"):
        run_phases(job(tmp_path), [Phase("a", "A", lambda job: {})])
    fails.clear()
    again = job(tmp_path)
    run_phases(again, [Phase("a", "A", lambda job: {"now": 1})])
    assert again.results == {"a": {"now": 1}}


def test_other_errors_are_what_they_are(tmp_path):
    def work(job):
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        run_phases(job(tmp_path), [Phase("a", "A", work)])


def test_every_script_says_that_a_disk_is_full_in_a_line(capsys):
    def main(args):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")

    assert run_script(main, SimpleNamespace()) == 2
    assert capsys.readouterr().err == "error: runs/x: no space left on the disk\n"
