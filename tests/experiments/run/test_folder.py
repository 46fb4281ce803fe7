"""A run's folder is one run's: its name is claimed, one process works in it, and what was not begun leaves none."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import detect
import search_subnets
import train
from experiments.run.folder import RunFolder
from models import InputError


@contextmanager
def holder(folder):
    """Another process that works in a folder: its id; it is killed at the end."""
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        with RunFolder(folder.parent, folder.name, exist_ok=True).held():
            os.write(tell, b"x")
            signal.pause()
    os.read(told, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_runs_that_begin_at_the_same_time_have_a_folder_each(tmp_path):
    runs = [RunFolder(tmp_path / "runs", "exp") for _ in range(8)]
    assert {run.path.name for run in runs} == {"exp"}, "none of them is there yet"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(RunFolder.claim, runs))
    assert sorted(run.path.name for run in runs) == ["exp", *(f"exp{i}" for i in range(2, 9))]
    assert all(run.path.is_dir() for run in runs)


def test_one_process_works_in_a_folder_and_gives_it_back_however_it_ends(tmp_path):
    folder = tmp_path / "runs/exp"
    with holder(folder) as pid:
        with pytest.raises(InputError, match=rf"exp: process {pid} works in it; right would be to wait for its end"):
            RunFolder(folder.parent, "exp", exist_ok=True).held().__enter__()
        with RunFolder(folder.parent, "exp").held() as other:
            assert other.path.name == "exp2"
    assert [p.name for p in folder.iterdir()] == [".lock"], "of the one that was killed"
    with RunFolder(folder.parent, "exp", exist_ok=True).held() as run:
        (run.path / "result").write_text("")
        forked = os.fork()
        if forked == 0:  # a fork, such as a loader's worker, has no part in it, and may end later
            signal.pause()
    with holder(folder):
        pass
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)
    assert {p.name for p in folder.iterdir()} == {".lock", "result"}


@pytest.mark.parametrize(
    ("script", "args"),
    [
        (train, ["--cfg", "yolov5n.yaml", "--imgsz", "64", "--exist-ok", "--project", "runs"]),
        (train, ["--resume", "runs/exp"]),
        (search_subnets, ["--cfg", "yolov5n_nas.yaml", "--sample-cost", "3", "--exist-ok", "--project", "runs"]),
        (detect, ["--weights", "d.pt", "--source", "x.png", "--exist-ok", "--project", "runs"]),
    ],
    ids=["new", "resumed", "look", "detect"],
)
def test_a_folder_that_is_in_use_is_one_line(script, args, tmp_path, call):
    RunFolder(tmp_path / "runs", "exp").write_config({"epochs": 1})
    (tmp_path / "d.pt").write_text("")
    with holder(tmp_path / "runs/exp") as pid:
        code, _, err = call(script, *args)
    assert (code, err.count("\n")) == (2, 1)
    assert f"process {pid} works in it" in err


def test_what_a_killed_run_left_half_written_is_gone_at_the_next_start(tmp_path):
    run = RunFolder(tmp_path, "exp", exist_ok=True)
    kept = ["last.ckpt", ".hidden", ".env.yaml", "trials/a/arch.json", ".git.x/config.yaml"]
    left = [".last.k2j3h4g5.ckpt", ".results.abcdefgh.png", ".last._x.ckpt", "trials/a/.arch.abcd_123.json"]
    for name in (*kept, *left):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("")
    with run.held():
        there = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    assert there == {*kept, ".lock"}
    assert not (run.path / ".lock").exists()


def test_a_folder_with_nothing_in_it_goes_again(tmp_path):
    with RunFolder(tmp_path / "runs/train", "exp").held() as run:
        assert run.path.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with RunFolder(tmp_path / "runs/train", "exp").held() as run:
        (run.path / "study.db").write_text("")
    assert run.path.is_dir(), "there is something in it"
    with RunFolder(tmp_path / "runs/train", "exp").held(needs="config.yaml") as run:
        (run.path / "study.db").write_text("")
    assert [p.name for p in (tmp_path / "runs/train").iterdir()] == ["exp"], "the second was not begun"
    with RunFolder(tmp_path / "runs/train", "exp", exist_ok=True).held(needs="config.yaml"):
        pass
    assert (tmp_path / "runs/train/exp/study.db").exists(), "what was there before stays"
