"""The folder of a run from somebody else runs nothing: plug-ins, pickles, commands, the database of NNI's trials."""

import os
import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import multi_trial_nas
import oneshot_nas
import search_subnets
import train
import val
from experiments.nni_experiment.experiment import _load_state, _save_state
from experiments.run.folder import RunFolder
from models import InputError
from models.plain_files import load_plain, save_plain
from models.plugins import loaded_plugins
from models.trust import noted, seal, trust

SPACE = Path(__file__).resolve().parents[2] / "assets/tiny_nas.yaml"
ONESHOT = {"strategy": "darts", "task": "classify", "cfg": str(SPACE), "data": "nowhere", "batch": 300, "imgsz": 32}
MULTI = {"strategy": "random", "task": "classify", "cfg": str(SPACE), "data": "digits", "batch": 300, "imgsz": 32}
MULTI |= {"threads": 1, "device": "cpu"}
ONESHOT |= {"device": "cpu"}
TRAIN = {"cfg": "tiny.yaml", "data": "digits-detect", "imgsz": 64, "batch": 4, "optimizer": "sgd", "device": "cpu"}


class Evil:
    """Makes a file where a pickle is believed."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(autouse=True)
def _trusts_nobody():
    yield
    trust(False)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def foreign(tmp_path, marker):
    """Makes the folder of a run, as somebody else would: (options, more of config.yaml) -> folder."""

    def make(options, **more):
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
        (folder / "config.yaml").write_text(yaml.safe_dump({"format": 1, "options": options, **more}))
        (folder / "supernet.pt").write_bytes(b"")
        (folder / "detector.yaml").write_text("nc: 1")
        return folder

    return make


def refused(found, *parts):
    code, _, err = found
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err


DOORS = {
    "train --resume": (train, TRAIN, "--resume"),
    "oneshot --resume": (oneshot_nas, ONESHOT, "--resume"),
    "multi-trial --resume": (multi_trial_nas, MULTI, "--resume"),
    "subnets --resume": (search_subnets, {"supernet": "gone"}, "--resume"),
    "train --supernet": (train, ONESHOT, "--supernet"),
    "val --supernet": (val, ONESHOT, "--supernet"),
    "subnets --supernet": (search_subnets, ONESHOT, "--supernet"),
    "subnets --fidelity": (search_subnets, ONESHOT, "--fidelity", "3", "--supernet"),
    "multi-trial --inherit": (
        *(multi_trial_nas, ONESHOT, "--cfg", SPACE, "--imgsz", "32", "--batch", "300", "--device", "cpu", "--inherit"),
    ),
    "oneshot --teacher": (
        *(oneshot_nas, ONESHOT, "--strategy", "bignas", "--cfg", SPACE, "--imgsz", "32", "--batch", "300"),
        *("--device", "cpu", "--teacher"),
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_plugin_that_a_folder_names_does_not_run(door, foreign, marker, call, tmp_path):
    script, options, *args = DOORS[door]
    (tmp_path / "arch.json").write_text("{}")
    folder = foreign({**options, "plugin": ["evil.py"]})
    refused(call(script, *args, folder), "theirs/config.yaml: the plug-in evil.py", "right would be --plugin evil.py")
    assert not marker.exists()
    call(script, "--plugin", "evil.py", *args, folder)
    assert marker.exists()


def test_a_forged_note_is_none(foreign, marker, call, tmp_path):
    folder = foreign({**TRAIN, "plugin": ["evil.py"]})
    note = noted([str(tmp_path / "evil.py")])
    note = {"evil.py": next(iter(note.values()))}
    for forged in ("", "0" * 64, None, 3, seal(folder, {}), seal(tmp_path, note)):
        foreign({**TRAIN, "plugin": ["evil.py"]}, code=note, seal=forged)
        refused(call(train, "--resume", folder), "is of a run that may be somebody else's")
    for odd in ([], {"evil.py": "x"}, {"evil.py": [1, 2]}, {"evil.py": []}, {3: ["a", "b"]}):
        foreign({**TRAIN, "plugin": ["evil.py"]}, code=odd, seal="0" * 64)
        refused(call(train, "--resume", folder), "is of a run that may be somebody else's")
    assert not marker.exists()
    foreign({**TRAIN, "plugin": ["evil.py"]}, code=note, seal=seal(folder, note))
    call(train, "--resume", folder)
    assert marker.exists()


def test_with_trust_it_runs(foreign, marker, call):
    call(train, "--resume", foreign({**TRAIN, "plugin": ["evil.py"]}), "--trust")
    assert marker.exists()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run of the user's own, with a plug-in: its folder, and the plug-in's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("X = 1")
    run = RunFolder("runs", "exp")
    run.write_config({**TRAIN, "plugin": ["mine.py"]})
    return tmp_path / "runs/exp", tmp_path / "mine.py"


def was_admitted(found, file):
    assert "--plugin" not in found[2], found[2]  # what is wrong with the run comes later
    return [path for path in loaded_plugins() if path == file] == [file]


def test_ones_own_plugin_runs_again_from_wherever_one_is(own, call, tmp_path, monkeypatch):
    folder, file = own
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine.py").write_text("raise AssertionError('another of its name')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert was_admitted(call(train, "--resume", folder), file)


@pytest.mark.parametrize("what", ["changed", "gone", "moved", "another key", "another user's note"])
def test_ones_own_plugin_does_not_run_where_something_is_another(what, own, call, tmp_path, monkeypatch):
    folder, file = own
    if what == "changed":
        file.write_text("raise AssertionError('changed')")
    elif what == "gone":
        file.rename(tmp_path / "other.py")
    elif what == "moved":
        folder = shutil.move(folder, tmp_path / "moved")
    elif what == "another key":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    else:
        content = yaml.safe_load((folder / "config.yaml").read_text())
        content["code"]["evil.py"] = ["/evil.py", "0"]
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
    refused(call(train, "--resume", folder), "the plug-in mine.py", "nothing of it was run")
    assert loaded_plugins() == []


def test_the_key_is_the_users_alone_and_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = seal(tmp_path, {})
    assert seal(tmp_path, {}) == first
    (key,) = tmp_path.rglob("key")
    assert key.stat().st_mode & 0o077 == 0
    assert list(key.parent.iterdir()) == [key]
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert seal(tmp_path, {}) is None


@pytest.mark.parametrize("content", ["evil", "evil state"])
@pytest.mark.parametrize(("script", "options"), [(train, TRAIN), (oneshot_nas, ONESHOT)], ids=["train", "oneshot"])
def test_a_checkpoint_that_names_code_does_not_run_it(script, options, content, foreign, marker, call):
    folder = foreign(options)
    evil = Evil(marker)
    torch.save(evil if content == "evil" else {"engine": {}, "state": evil}, folder / "last.ckpt")
    before = sorted(p.name for p in folder.iterdir())
    refused(call(script, "--resume", folder), "last.ckpt: names posix.mkdir, which would run", "right would be --trust")
    assert not marker.exists()
    assert sorted(p.name for p in folder.iterdir()) == before
    trust()
    load_plain(folder / "last.ckpt", may_trust=True)
    assert marker.exists(), "evil indeed"


def test_weights_are_never_trusted(tmp_path, marker):
    torch.save({"x": Evil(marker)}, tmp_path / "evil.pt")
    trust()
    with pytest.raises(InputError, match=r"evil.pt: names posix.mkdir, which would run; nothing of it was run$"):
        load_plain(tmp_path / "evil.pt")
    assert not marker.exists()


def test_checkpoints_of_before_have_the_state_of_numpys_generator_as_an_array(tmp_path):
    state = np.random.RandomState(3).get_state()
    torch.save({"numpy": state, "of object": 1}, tmp_path / "last.ckpt")
    found = load_plain(tmp_path / "last.ckpt")["numpy"]
    np.testing.assert_array_equal(found[1], state[1])
    again = np.random.RandomState()
    again.set_state(tuple(found))
    assert again.rand() == np.random.RandomState(3).rand()


def test_an_array_of_objects_runs_nothing(tmp_path, marker):
    torch.save({"numpy": np.array([Evil(marker)], object)}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"names posix.mkdir, which would run"):
        load_plain(tmp_path / "last.ckpt")
    assert not marker.exists()


def test_what_is_not_plain_is_not_written(tmp_path):
    class Label(str):
        __slots__ = ()

    Label.__qualname__ = "Label"
    globals()["Label"] = Label
    with pytest.raises(InputError, match=r"would hold .*Label; right would be tensors, numbers, text"):
        save_plain({"arch": {Label("a"): 1}}, tmp_path / "detector.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_multi_trial_search_is_plain(tmp_path, marker):
    state = {"engine": {"heard": [0, 2]}, "strategy": {"seed": 1, "log": [[None, 0, [0.5]]]}}
    (tmp_path / "state.pickle").write_bytes(pickle.dumps(state))  # of an earlier version
    assert _load_state(tmp_path) == state
    _save_state(state, tmp_path, is_plain=True)
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]
    assert _load_state(tmp_path) == state
    (tmp_path / "state.json").write_text("[")
    with pytest.raises(InputError, match=r"state.json: cannot be read"):
        _load_state(tmp_path)
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.pickle").write_bytes(pickle.dumps({"strategy": Evil(marker)}))
    with pytest.raises(
        InputError, match=r"state.pickle: names posix.mkdir, which would run; .* right would be --trust"
    ):
        _load_state(tmp_path)
    assert not marker.exists()
    trust()
    _load_state(tmp_path)
    assert marker.exists(), "evil indeed"


@pytest.mark.parametrize(
    ("script", "options"), [(multi_trial_nas, MULTI), (oneshot_nas, {**ONESHOT, "ui": 8081})], ids=["multi", "ui"]
)
def test_nni_does_not_go_on_with_the_trials_of_others(script, options, foreign, call, monkeypatch):
    folder = foreign(options)
    (folder / "experiment.json").write_text('{"id": "abcdefgh"}')
    (folder / "nni/abcdefgh/db").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "nni/abcdefgh/db/nni.sqlite")) as database, database:
        database.execute("CREATE TABLE ExperimentProfile (params TEXT)")
        database.execute('INSERT INTO ExperimentProfile VALUES (\'{"trialCommand": "evil"}\')')
    (folder / "nni/abcdefgh/space.json").write_text("evil")
    monkeypatch.setattr("subprocess.Popen", None)  # nothing is started
    monkeypatch.setattr("experiments.run.folder._git_commit", lambda: None)
    refused(
        call(script, "--resume", folder), "holds a database of NNI, whose commands would run; right would be --trust"
    )


def test_the_id_of_an_experiment_is_no_path(foreign, call):
    folder = foreign(MULTI)
    (folder / "experiment.json").write_text('{"id": "../../elsewhere"}')
    refused(call(multi_trial_nas, "--resume", folder), "experiment.json: id: String should match pattern")


def test_a_command_that_tells_a_latency_does_not_run(foreign, marker, call, tmp_path):
    told = {"provider": "command", "hw_config": {"command": f"touch {marker} {{onnx}}", "device": "x"}}
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump({"costs": {"latency": told}}))
    folder = foreign({**ONESHOT, "costs": "costs.yaml", "max_latency": 1.0})
    refused(call(oneshot_nas, "--resume", folder), "--costs costs.yaml, which runs commands", "right would be --trust")
    assert not marker.exists()
