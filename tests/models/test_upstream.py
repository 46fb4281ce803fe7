"""Upstream checkpoints: written in a process that has stand-ins of upstream's classes, read in one that has none."""

import pickle
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch

from models import Model, load_upstream, load_weights, read_config, save_detector
from tests.refusal import refused

# Modules of upstream's names with classes of upstream's names and attributes, written from the blocks' definitions.
UPSTREAM = """
import datetime, pathlib, sys, types
import numpy, torch
from torch import nn

yolo, common, loss = (types.ModuleType(n) for n in ("models.yolo", "models.common", "utils.loss"))
sys.modules.update({"models": types.ModuleType("models"), "utils": types.ModuleType("utils")})
sys.modules.update({m.__name__: m for m in (yolo, common, loss)})

def home(module):
    def put(cls):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
        return cls
    return put

@home(common)
class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = ACT()
    def forward(self, x):
        return self.act(self.bn(self.conv(x)))

@home(common)
class Bottleneck(nn.Module):
    def __init__(self, c, shortcut):
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(c, c), Conv(c, c, 3), shortcut
    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y

@home(common)
class C3(nn.Module):
    def __init__(self, c1, c2, n=1, shortcut=True):
        super().__init__()
        h = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, h), Conv(c1, h), Conv(2 * h, c2)
        self.m = nn.Sequential(*(Bottleneck(h, shortcut) for _ in range(n)))
    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))

@home(common)
class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(2 * c1, c2)
        self.m = nn.MaxPool2d(k, 1, k // 2)
    def forward(self, x):
        ys = [self.cv1(x)]
        for _ in range(3):
            ys.append(self.m(ys[-1]))
        return self.cv2(torch.cat(ys, 1))

@home(common)
class Concat(nn.Module):
    def forward(self, xs):
        return torch.cat(xs, 1)

@home(yolo)
class Detect(nn.Module):
    def __init__(self, nc, anchors, ch, stride):
        super().__init__()
        self.nc, self.no, self.na = nc, nc + 5, len(anchors[0]) // 2
        self.stride = torch.tensor(stride)
        pixels = torch.tensor(anchors).float().view(len(anchors), -1, 2)
        self.register_buffer("anchors", pixels / self.stride.view(-1, 1, 1))
        if OLD:
            self.register_buffer("anchor_grid", pixels.view(len(anchors), 1, -1, 1, 1, 2))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)
    def forward(self, xs):
        out = []
        for i, x in enumerate(xs):
            y = self.m[i](x)
            n, _, h, w = y.shape
            y = y.view(n, self.na, self.no, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            cols, rows = torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")
            xy = (y[..., :2] * 2 - 0.5 + torch.stack((cols, rows), -1)) * self.stride[i]
            wh = (y[..., 2:4] * 2) ** 2 * (self.anchors[i] * self.stride[i]).view(1, -1, 1, 1, 2)
            out.append(torch.cat((xy, wh, y[..., 4:]), -1).reshape(n, -1, self.no))
        return torch.cat(out, 1)

@home(yolo)
class DetectionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.yaml = {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "ch": 3,
            "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
            "backbone": [[-1, 1, "Conv", [16, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C3", [16]],
                         [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "SPPF", [32, 5]]],
            "head": [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 3], 1, "Concat", [1]],
                     [-1, 1, "C3", [32, False]], [[8, 5], 1, "Detect", ["nc", "anchors"]]]}
        self.model = nn.Sequential(
            Conv(3, 16, 6, 2, 2), Conv(16, 16, 3, 2), C3(16, 16, 2), Conv(16, 32, 3, 2), Conv(32, 32, 3, 2),
            SPPF(32, 32), nn.Upsample(None, 2, "nearest"), Concat(), C3(64, 32, 1, False),
            Detect(2, self.yaml["anchors"], (32, 32), (8.0, 16.0)))
        self.names, self.nc, self.save = ["cat", "dog"], 2, [3, 5, 8]
        self.hyp, self.class_weights = {"box": 0.05}, torch.ones(2)
    def forward(self, x):
        ys = []
        for i, layer in enumerate(self.model):
            x = layer([x, ys[3]] if i == 7 else [ys[8], ys[5]] if i == 9 else x)
            ys.append(x)
        return x

def randomized(seed):
    torch.manual_seed(seed)
    model = DetectionModel()
    for p in model.parameters():
        p.data = p.data + 0.1 * torch.randn_like(p)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.5, 0.5)
            m.running_var.uniform_(0.5, 1.5)
    return model.eval()
"""
X = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of every kind, written in one process, with what the network there computes."""
    folder = tmp_path_factory.mktemp("upstream")
    torch.save(X, folder / "x.pt")
    script = """
    OLD, ACT = False, nn.SiLU
    x = torch.load("x.pt")
    model, ema = randomized(0), randomized(1)
    notes = {"best_fitness": numpy.array([0.5]), "fitness": numpy.float64(0.5), "optimizer": None, "epoch": -1,
        "opt": {"weights": pathlib.PosixPath("a.pt"), "sizes": {1, 2}}, "date": datetime.datetime(2022, 1, 1),
        "ema": None}
    torch.save({**notes, "model": model, "ema": ema}, "ema.pt")
    torch.save({**notes, "model": model}, "model.pt")
    torch.save({"model": nn.DataParallel(model)}, "parallel.pt")
    torch.save(nn.DataParallel(model).state_dict(), "parallel_state.pt")
    torch.save({"model": model.state_dict()}, "state.pt")
    with torch.no_grad():
        torch.save({"model": model(x), "ema": ema(x)}, "outputs.pt")
    torch.save({"model": model.half()}, "half.pt")
    with torch.no_grad():
        torch.save(model.float()(x), "half_output.pt")
    del model.model[2].m[1].cv1
    model.model[0].extra = nn.Linear(2, 2)
    torch.save({"model": model}, "cut.pt")
    model = randomized(2)
    model.yaml["width_multiple"] = 2.0
    torch.save({"model": model}, "wide.pt")
    model = randomized(2)
    model.yaml["hyp"] = nn.ReLU()
    torch.save({"model": model}, "no_yaml.pt")
    OLD, ACT = True, lambda: nn.LeakyReLU(0.1)
    model = randomized(3)
    torch.save({"model": model}, "old.pt")
    with torch.no_grad():
        torch.save(model(x), "old_output.pt")
    model.model[0].act = nn.Hardswish()
    torch.save({"model": model}, "mixed.pt")
    model.yaml = None
    torch.save({"model": model, "note": "a network without a YAML"}, "nameless.pt")
    """
    code = UPSTREAM + textwrap.dedent(script)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    return folder


def _loaded(path):
    """A model built by hand from what `load_upstream` returns, and the names."""
    cfg, state, names = load_upstream(path)
    model = Model(cfg)
    model.load_state_dict(state)
    return model.eval(), names


@torch.no_grad()
@pytest.mark.parametrize("file", ["model", "ema"])
def test_computes_what_upstream_computes(folder, file):
    model, names = _loaded(folder / f"{file}.pt")
    assert names == {0: "cat", 1: "dog"}
    expected = torch.load(folder / "outputs.pt")
    torch.testing.assert_close(model(X)[0], expected[file])
    other = expected["ema" if file == "model" else "model"]
    assert not torch.allclose(model(X)[0], other, rtol=0.01)


@torch.no_grad()
def test_half_precision_becomes_single(folder):
    assert {v.dtype for v in load_upstream(folder / "half.pt").state_dict.values()} == {torch.float32, torch.int64}
    model, _ = _loaded(folder / "half.pt")
    torch.testing.assert_close(model(X)[0], torch.load(folder / "half_output.pt"))


@torch.no_grad()
def test_before_v4_the_activation_comes_from_the_network(folder):
    cfg, _, _ = load_upstream(folder / "old.pt")
    assert cfg["activation"] == "nn.LeakyReLU(0.1)"
    model, _ = _loaded(folder / "old.pt")
    torch.testing.assert_close(model(X)[0], torch.load(folder / "old_output.pt"))
    with refused("mixed.pt", "nn.Hardswish()", "nn.LeakyReLU(0.1)"):
        load_upstream(folder / "mixed.pt")


@torch.no_grad()
def test_wrapped_for_several_gpus(folder):
    plain = load_upstream(folder / "model.pt")
    for file, cfg in (("parallel.pt", None), ("parallel_state.pt", plain.cfg)):
        cfg, state, _ = load_upstream(folder / file, cfg)
        assert cfg == plain.cfg
        assert state.keys() == plain.state_dict.keys()
        assert all(torch.equal(v, plain.state_dict[k]) for k, v in state.items())


@torch.no_grad()
def test_state_dict_alone_needs_its_yaml(folder):
    with refused("state.pt", "cfg"):
        load_upstream(folder / "state.pt")
    cfg = load_upstream(folder / "model.pt").cfg
    cfg, state, names = load_upstream(folder / "state.pt", cfg)
    model = Model(cfg)
    model.load_state_dict(state)
    torch.testing.assert_close(model.eval()(X)[0], torch.load(folder / "outputs.pt")["model"])
    assert names == {0: "class0", 1: "class1"}


@torch.no_grad()
def test_load_weights_takes_ours_and_upstreams(folder, tmp_path):
    theirs, content = load_weights(folder / "ema.pt")
    assert not theirs.training
    assert content["names"] == theirs.names == {0: "cat", 1: "dog"}
    save_detector(theirs, tmp_path / "detector.pt", imgsz=96)
    ours, content = load_weights(tmp_path / "detector.pt")
    assert content["imgsz"] == 96
    assert ours.names == theirs.names
    assert torch.equal(ours(X)[0], theirs(X)[0])
    assert read_config(content["yaml"]).nc == 2


def test_what_does_not_fit_is_named(folder):
    with refused("cut.pt", "model.2.m.1.cv1.conv.weight is missing", "more"):
        load_upstream(folder / "cut.pt")
    with refused("wide.pt", "model.0.conv.weight is [16, 3, 6, 6]", "[32, 3, 6, 6]"):
        load_upstream(folder / "wide.pt")
    with refused("no_yaml.pt", "ReLU"):
        load_upstream(folder / "no_yaml.pt")
    with refused("nameless.pt", "no YAML"):
        load_upstream(folder / "nameless.pt")


def test_files_that_are_none(tmp_path):
    with refused("absent.pt", "no such file"):
        load_upstream(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    save_whole = tmp_path / "whole.pt"
    torch.save({"a": torch.zeros(99)}, save_whole)
    (tmp_path / "cut.pt").write_bytes(save_whole.read_bytes()[:500])
    with refused("cut.pt: cut off, after 500 bytes"):
        load_upstream(tmp_path / "cut.pt")
    with refused("text.pt", "torch.save"):
        load_upstream(tmp_path / "text.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "hello")
    with refused("zip.pt", "torch.save"):
        load_upstream(tmp_path / "zip.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with refused("epoch.pt", "no YOLOv5 checkpoint"):
        load_upstream(tmp_path / "epoch.pt")


# Malice. `Pickled(name, *args)` pickles as a call of `name`: what an unpickler runs when it believes its file.
class Pickled:
    def __init__(self, name, *args):
        self.name, self.args = name, args


class _Writer(pickle._Pickler):
    """Writes `Pickled` as GLOBAL, arguments, REDUCE; and BUILD on an inert class with the state given."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Pickled):
            self.write(pickle.GLOBAL + obj.name.replace(" ", "\n").encode() + b"\n")
            if obj.args:
                super().save(obj.args[0])
                self.write(pickle.REDUCE)
                for state in obj.args[1:]:
                    super().save(state)
                    self.write(pickle.BUILD)
            return
        super().save(obj, save_persistent_id)


def _write(path, content):
    """A file as torch.save lays it out, with `content` as its pickle."""
    import io

    buffer = io.BytesIO()
    _Writer(buffer, 2).dump(content)
    torch.save({"x": 1}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, buffer.getvalue() if name.endswith("/data.pkl") else data)


CALLS = {
    "posix.system": "posix system",
    "os.system": "os system",
    "subprocess.Popen": "subprocess Popen",
    "builtins.exec": "builtins exec",
    "builtins.eval": "__builtin__ eval",
    "builtins.getattr": "builtins getattr",
    "builtins.__import__": "builtins __import__",
    "torch.serialization.load": "torch.serialization load",
    "torch.storage._load_from_bytes": "torch.storage _load_from_bytes",
    "pathlib.Path.unlink": "pathlib Path.unlink",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("nested", [False, True], ids=["bare", "in a stub's state"])
def test_calls_are_refused_by_name_and_nothing_runs(tmp_path, name, nested):
    marker = tmp_path / "ran"
    argument = f"touch {marker}" if "system" in name else f"open({str(marker)!r}, 'w')"
    call = Pickled(CALLS[name], (argument,))
    content = {"model": Pickled("models.yolo Model", (), {"yaml": call}) if nested else call}
    _write(tmp_path / "evil.pt", content)
    with refused("evil.pt", name):
        load_upstream(tmp_path / "evil.pt")
    with refused("evil.pt", name):
        load_weights(tmp_path / "evil.pt")
    assert not marker.exists()


def test_the_evil_file_is_evil_indeed(tmp_path):
    marker = tmp_path / "ran"
    _write(tmp_path / "evil.pt", {"model": Pickled("posix system", (f"touch {marker}",))})
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert marker.exists()


def test_classes_of_upstream_are_never_the_real_ones(tmp_path):
    """`models.*` is this project's package too, and `models.files.atomic` a function that makes files."""
    target = tmp_path / "made" / "file"
    state = {"yaml": Pickled("torch.nn.modules.module Module", ())}
    content = {"model": Pickled("models.files atomic", (str(target),), state)}
    _write(tmp_path / "ours.pt", content)
    with refused("ours.pt", "YAML"):
        load_upstream(tmp_path / "ours.pt")
    assert not target.parent.exists()
    for content in ({"model": Pickled("models.yolo Model", ("touch",), (1, 2))}, {"model": Pickled("utils.a b", ())}):
        _write(tmp_path / "odd.pt", content)
        with refused("odd.pt"):
            load_upstream(tmp_path / "odd.pt")


def test_damaged_pickles_are_refused(folder, tmp_path):
    with zipfile.ZipFile(folder / "ema.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for cut in (10, 1000, -3):
        with zipfile.ZipFile(tmp_path / "cut.pt", "w", zipfile.ZIP_STORED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data[:cut] if name.endswith("/data.pkl") else data)
        with refused("cut.pt"):
            load_upstream(tmp_path / "cut.pt")


@torch.no_grad()
@pytest.mark.parametrize("form", ["plain", "later"])
def test_computes_what_an_anchor_free_successor_computes(tmp_path, form):
    """Written by stand-ins of the successors' names and attributes, whose output is (N, 4 + nc, P)."""
    script = (
        UPSTREAM.replace("models.yolo", "ultralytics.nn.modules.head").replace("models.common", "ultralytics.nn.tasks")
        + f"LATER, OLD, ACT = {form == 'later'}, False, nn.SiLU"
        + """
@home(yolo)
class DFL(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(4.0).view(1, 4, 1, 1)

class DW(Conv):
    def __init__(self, c):
        super().__init__(c, c, 3)
        self.conv = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
home(common)(DW)

@home(yolo)
class v10Detect(nn.Module):
    def __init__(self, nc, c):
        super().__init__()
        def boxes():
            return nn.ModuleList([nn.Sequential(Conv(c, 16, 3), Conv(16, 16, 3), nn.Conv2d(16, 16, 1))] * 1)
        def classes():
            if not LATER:
                return nn.ModuleList([nn.Sequential(Conv(c, c, 3), Conv(c, c, 3), nn.Conv2d(c, nc, 1))])
            one, two = (nn.Sequential(DW(c), Conv(c, c)) for _ in range(2))
            return nn.ModuleList([nn.Sequential(one, two, nn.Conv2d(c, nc, 1))])
        self.cv2, self.cv3, self.dfl = boxes(), classes(), DFL()
        self.stride = torch.tensor([4.0])
        if LATER:
            self.one2one_cv2, self.one2one_cv3 = boxes(), classes()
    def forward(self, x):
        box, cls = (self.one2one_cv2, self.one2one_cv3) if LATER else (self.cv2, self.cv3)
        b, c = box[0](x), cls[0](x).sigmoid().flatten(2)
        n, _, h, w = b.shape
        d = (b.view(n, 4, 4, h * w).softmax(2) * torch.arange(4.0).view(1, 1, 4, 1)).sum(2)
        ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        xy = torch.stack((xs.flatten(), ys.flatten()))
        low, high = xy - d[:, :2], xy + d[:, 2:]
        return torch.cat(((low + high) / 2 * 4, (high - low) * 4, c), 1)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.yaml = {"nc": 2, "scale": "s", "scales": {"n": [1, 1, 8], "s": [0.5, 0.5, 24]}, "yaml_file": "any.yaml",
            "channels": 3, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 4, "C3", [16]], [-1, 1, "Conv", [64, 3, 2]]],
            "head": [[[2], 1, "v10Detect" if LATER else "Detect", ["nc"]]]}
        self.model = nn.Sequential(Conv(3, 8, 3, 2), C3(8, 8, 2), Conv(8, 16, 3, 2), v10Detect(2, 16))
        self.names = {0: "cat", 1: "dog"}
    def forward(self, x):
        return self.model(x)
DetectionModel = home(common)(Net)
model = randomized(0)
model.model[3].dfl = DFL()
x = torch.load("x.pt")
torch.save({"model": model.half(), "ema": None, "train_args": {"imgsz": 64}}, "theirs.pt")
torch.save(model.float()(x), "output.pt")
"""
    )
    torch.save(X, tmp_path / "x.pt")
    script = script.replace(
        "sys.modules.update({m",
        "sys.modules.update({n: types.ModuleType(n) for n in "
        '("ultralytics", "ultralytics.nn", "ultralytics.nn.modules")})\nsys.modules.update({m',
    )
    subprocess.run(
        [sys.executable, "-c", "import torch\nwith torch.no_grad():\n" + textwrap.indent(script, " ")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    model, content = load_weights(tmp_path / "theirs.pt")
    assert content["names"] == {0: "cat", 1: "dog"}
    assert (model.head.reg_max, model.head.depthwise, model.head.end2end) == (4, form == "later", form == "later")
    decoded, logits = model(X)
    expected = torch.load(tmp_path / "output.pt").transpose(1, 2)
    if form == "later":
        decoded = model.head.decode(logits)
    torch.testing.assert_close(decoded, expected, rtol=1e-3, atol=1e-3)
