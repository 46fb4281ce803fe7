"""A disk that is full, or that takes nothing: one line, nothing half-written, and a run goes on once there is room."""

import errno
import json
import os
import resource
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import detect
import export
import multi_trial_nas
import oneshot_nas
import search_subnets
import train
from experiments.costs import latency_table
from experiments.nni_experiment.experiment import has_trials
from experiments.run.folder import RunFolder
from experiments.run.pictures import picture
from experiments.search import open_storage
from experiments.search.storage import answering
from models import InputError, Model, save_detector
from models.files import atomic, write_text
from models.plain_files import load_plain, save_plain
from tests.ports import free_port

SPACE = Path(__file__).resolve().parents[2] / "assets/tiny_nas.yaml"


@contextmanager
def room_for(num_bytes):
    """Within, no file gets larger: what a process sees of a full disk, but for the words."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def picture_to(path):
    with picture(path) as figure:
        figure.subplots().plot([1, 2])


WRITERS = {
    "text": lambda path: write_text(path, "x" * 5000),
    "tensors": lambda path: save_plain({"x": torch.zeros(5000)}, path),
    "a picture": picture_to,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_does_not_fit_is_said_by_its_path_and_leaves_what_was_there(writer, tmp_path):
    path = tmp_path / "result.png"
    path.write_text("before")
    with room_for(1000), pytest.raises(OSError, match="File too large") as raised:
        WRITERS[writer](path)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["result.png"]
    assert path.read_text() == "before"
    WRITERS[writer](path)
    assert path.read_bytes() != b"before"


def test_a_library_that_does_not_say_why(tmp_path, monkeypatch):
    """Where there is no room, that is why; where there is, its own error stands."""
    with pytest.raises(RuntimeError, match="it failed"), atomic(tmp_path / "x"):
        raise RuntimeError("it failed")
    monkeypatch.setattr("models.files._FULL_BYTES", 1 << 62)
    with pytest.raises(OSError, match="No space left on device") as raised, atomic(tmp_path / "x"):
        raise RuntimeError("it failed")
    assert raised.value.filename == str(tmp_path / "x")
    with pytest.raises(InputError, match="of its own"), atomic(tmp_path / "x"):
        raise InputError("of its own")


@pytest.fixture
def commands(tmp_path, tiny_cfg, digits):
    data = digits(8)
    model = Model(tiny_cfg)
    save_detector(model, tmp_path / "d.pt", imgsz=64)
    space = ["--cfg", SPACE, "--imgsz", "32"]
    return {
        "train": (train, "--cfg", tiny_cfg, "--data", data, "--imgsz", "64", "--batch", "4", "--epochs", "1"),
        "detect": (detect, "--weights", "d.pt", "--source", data.parent / "images"),
        "export": (export, "--weights", "d.pt", "--out", "runs/d.onnx"),
        "sample-cost": (search_subnets, "--cfg", SPACE, "--sample-cost", "9"),
        "latency table": (latency_table, "--cfg", SPACE, "--imgsz", "32", "--rounds", "1", "--out", "runs/l.json"),
        "oneshot": (oneshot_nas, *space, "--epochs", "1", "--batch", "300", "--no-baseline", "--device", "cpu"),
        "multi-trial": (multi_trial_nas, *space, "--batch", "99", "--device", "cpu", "--port", free_port()),
    }


def one_line(found):
    code, _, err = found
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "File too large" in err
    return err


NAMES = ["train", "detect", "export", "sample-cost", "oneshot", "multi-trial"]


@pytest.mark.parametrize("name", [*NAMES, pytest.param("latency table", marks=pytest.mark.slow)])
def test_where_nothing_fits_nothing_is_left(name, commands, call, tmp_path):
    """A run whose config.yaml was the file that did not fit has not begun: its name is free again."""
    before = {p.name for p in tmp_path.iterdir()}
    with room_for(100):
        err = one_line(call(*commands[name]))
    assert "--resume" not in err
    left = {p.name for p in tmp_path.iterdir()} - before
    assert left <= {"runs", "datasets"}
    assert [p for p in (tmp_path / "runs").rglob("*") if p.is_file()] == []


def test_a_training_that_found_no_room_goes_on_when_there_is(commands, call, tmp_path):
    """Also where config.yaml, written anew when it goes on, is what did not fit."""
    script, *args = commands["train"]
    with room_for(5000):
        err = one_line(call(script, *args))
    folder = tmp_path / "runs/train/exp"
    assert err.endswith("detector.pt: File too large; right would be to make room, then to go on with --resume "
                        "runs/train/exp\n")  # fmt: skip
    files = {p.name for p in folder.iterdir()}
    assert not any(name.startswith(".") for name in files)
    config = (folder / "config.yaml").read_text()
    with room_for(100):
        assert "config.yaml: File too large" in one_line(call(script, "--resume", "runs/train/exp"))
    assert (folder / "config.yaml").read_text() == config
    code, _, err = call(script, "--resume", "runs/train/exp")
    assert (code, err) == (0, "")
    assert json.loads((folder / "results.json").read_text())["epochs"] == 1
    load_plain(folder / "last.ckpt")


def read_only(monkeypatch):
    """Every folder, as one that is mounted read-only: root's rights end there too."""

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("tempfile.mkstemp", lambda *args, dir, **kwargs: refuse(dir))


@pytest.mark.parametrize("name", ["train", "detect", "export", "sample-cost"])
def test_a_read_only_folder_is_one_line(name, commands, call, monkeypatch):
    read_only(monkeypatch)
    code, _, err = call(*commands[name])
    assert code == 2
    assert err.startswith("error: runs")
    assert err.endswith(": Read-only file system\n")
    assert err.count("\n") == 1


def test_a_folder_that_became_read_only_is_one_line(call, monkeypatch, tmp_path):
    RunFolder(tmp_path, "run").write_config({"epochs": 1})
    opened = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr("experiments.run.lock.os.open", refuse)
    code, _, err = call(train, "--resume", "run")
    assert (code, err) == (2, "error: run/.lock: Read-only file system\n")


def test_a_study_that_cannot_be_written(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = open_storage(url)
    study = storage.create_new_study([1])
    size = (tmp_path / "study.db").stat().st_size
    with (
        room_for(size),
        pytest.raises(InputError, match=rf"--storage {url}: .*(disk I/O error|is full)"),
        answering(url),
    ):
        storage.set_study_user_attr(study, "x", "y" * 50_000)
    storage.set_study_user_attr(study, "x", 1)


def test_a_database_of_nni_that_was_not_finished_has_no_trials(tmp_path):
    assert not has_trials(tmp_path)
    (tmp_path / "db").mkdir()
    for content in (b"", b"SQLite format 3\0 cut"):
        (tmp_path / "db/nni.sqlite").write_bytes(content)
        assert not has_trials(tmp_path)
    (tmp_path / "db/nni.sqlite").unlink()
    with sqlite3.connect(tmp_path / "db/nni.sqlite") as database:
        database.execute("CREATE TABLE ExperimentProfile (params TEXT)")
    assert not has_trials(tmp_path)
    with sqlite3.connect(tmp_path / "db/nni.sqlite") as database:
        database.execute("INSERT INTO ExperimentProfile VALUES ('{}')")
    assert has_trials(tmp_path)
