"""Checkpoints: of this project, of upstream, of supernets; their bytes, and what they hold."""

import copy
import io
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.supernets.subnets import load_supernet, save_supernet
from models import Classifier, Model, load_upstream, load_weights
from models.files import load_classifier, save_classifier, save_detector
from spaces import NASDETECTOR

from .guard import holds
from .hostile import bytes_of, mutated, scalars, values

CFG = {
    "nc": 2,
    "anchors": 1,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[0, 1], 1, "Detect", ["nc", "anchors"]]],
}
OPEN = {**CFG, "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One of each, and what is in it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    detector = Model(CFG)
    save_detector(detector, folder / "detector.pt", imgsz=64, arch={"a": 1})
    save_classifier(Classifier(CFG), folder / "classifier.pt", ["a", "b"])
    save_supernet(NASDETECTOR(OPEN), folder / "supernet.pt")
    torch.save({"model": {"yaml": CFG}, "state_dict": detector.state_dict()}, folder / "upstream.pt")
    return {
        path.stem: (path, path.read_bytes(), torch.load(path, weights_only=True))
        for path in sorted(folder.glob("*.pt"))
    }


def _detector(path):
    model, content = load_weights(path)
    assert len(model.names) == model.head.nc
    assert all(isinstance(name, str) for name in model.names.values())
    return content


READERS = {"detector": _detector, "classifier": load_classifier, "supernet": load_supernet}


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_bytes(files, tmp_path, kind, data):
    path = tmp_path / "file.pt"
    path.write_bytes(data.draw(st.one_of(bytes_of(files[kind][1]), st.binary(max_size=100))))
    holds(f"{kind}.pt, bytes", READERS[kind], path)


tensors = st.sampled_from(
    [
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(0),
        torch.zeros(2, 3, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(4).to_sparse(),
        torch.full((8, 3, 3, 3), float("nan")),
        torch.zeros(3, dtype=torch.float16),
        torch.nn.Parameter(torch.zeros(8)),
    ]
)
anything = st.one_of(values, scalars, tensors)


def _bombs():
    shared, deep, key = ["lol"], [], ()
    for _ in range(40):
        shared, deep, key = [shared] * 9, [deep], (key, key)
    for _ in range(3000):
        deep = [deep]
    within = {}
    within["x"] = within
    return [shared, within, within["x"], {"a": deep}, [key], {0: shared}]


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_contents(files, tmp_path, kind, data):
    _, _, content = files[kind]
    light = {k: v for k, v in content.items() if k != "state_dict"}
    changed = data.draw(mutated({**light, "state_dict": dict(content["state_dict"])}, 2, anything))
    _saved(changed, tmp_path / "file.pt")
    holds(f"{kind}.pt, contents", READERS[kind], tmp_path / "file.pt")


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("key", ["yaml", "names", "state_dict", None])
@pytest.mark.parametrize("number", range(6))
def test_bombs(files, tmp_path, kind, key, number):
    bomb = _bombs()[number]
    content = bomb if key is None else {**files[kind][2], key: bomb}
    if _saved(content, tmp_path / "file.pt"):
        holds(f"{kind}.pt, bombs", READERS[kind], tmp_path / "file.pt")


def _saved(content, path):
    try:
        torch.save(content, path)
    except (RecursionError, ValueError, TypeError, AttributeError, OverflowError, pickle.PicklingError):
        path.write_bytes(b"")
        return False
    return True


PICKLES = {
    "a hash that takes years": b"\x80\x02)q\x00"
    + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    + b"}h<K\x01s.",
    "room for four thousand million notes": b"\x80\x02]r\xff\xff\xff\xfe.",
    "a set of them": b"\x80\x04)\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(60)) + b"\x8f(h<\x90.",
    "a mapping that is made of itself": b"\x80\x02ccollections\nOrderedDict\n]q\x00h\x00\x85R.",
    "a long number": b"\x80\x02\x8b" + (10**5).to_bytes(4, "little") + b"\x7f" * 10**5 + b".",
    "no end": b"\x80\x02" + b"(" * 10**6,
    "empty": b"",
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path, kind, name):
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("file/data.pkl", PICKLES[name])
        archive.writestr("file/version", "3\n")
        archive.writestr("file/byteorder", "little")
    holds("pickles", READERS[kind], tmp_path / "file.pt")


@pytest.mark.parametrize("kind", READERS)
def test_archives_are_not_blown_up(files, tmp_path, kind):
    """A gigabyte of zeros is a megabyte."""
    _, whole, _ = files[kind]
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as old,
        zipfile.ZipFile(tmp_path / "f.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, bytes(1 << 28) if entry.filename.endswith("data/0") else old.read(entry))
    assert holds("archives", READERS[kind], tmp_path / "f.pt") is None


@given(st.data())
def test_upstream(files, tmp_path, data):
    """A state dict with a YAML beside it, as its reader takes it."""
    content = data.draw(mutated({"model": dict(files["upstream"][2]["state_dict"]), "epoch": 1}, 2, anything))
    if _saved(content, tmp_path / "file.pt"):
        holds("upstream, contents", load_upstream, tmp_path / "file.pt", copy.deepcopy(CFG))


class _Module:
    """Pickled under a name of upstream's."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return _Module, (None,), self.state


def _module(state):
    made = _Module.__new__(_Module)
    made.state = state
    return made


def _tree(state, prefix=""):
    """A state dict as the states of modules in modules."""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    children = dict.fromkeys(k.partition(".")[0] for k in own if "." in k)
    here = {k: v for k, v in own.items() if "." not in k}
    return {"_parameters": here, "_buffers": {}, "_modules": {k: _tree(state, f"{prefix}{k}.") for k in children}}


def _wrapped(tree):
    """The same with modules in the place of their states."""
    if not isinstance(tree, dict) or not isinstance(tree.get("_modules"), dict):
        return tree
    return _module({**tree, "_modules": {k: _wrapped(v) for k, v in tree["_modules"].items()}})


@given(st.data())
def test_upstream_modules(files, tmp_path, data):
    """A network as upstream pickles it: modules in modules, its YAML and names."""
    tree = {**_tree(files["upstream"][2]["state_dict"]), "yaml": CFG, "names": ["a", "b"]}
    how = data.draw(st.sampled_from(["as it is", "changed", "changed", "changed", "within itself"]))
    network = _wrapped(data.draw(mutated(tree, 1, anything)) if how == "changed" else tree)
    if how == "within itself":
        network.state["_modules"] = {"model": network, "again": network}
    if _saved({"model": network}, tmp_path / "file.pt"):
        (tmp_path / "file.pt").write_bytes(_renamed((tmp_path / "file.pt").read_bytes()))
        found = holds("upstream, modules", load_upstream, tmp_path / "file.pt")
        assert how != "as it is" or found.names == {0: "a", 1: "b"}
        assert how != "within itself" or found is None


def _renamed(whole):
    """The archive with `_Module` under upstream's name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(f"c{__name__}\n_Module\n".encode(), b"cmodels.yolo\nDetectionModel\n")
            new.writestr(entry.filename, content)
    return out.getvalue()
