"""The form for YOLOv5: built by the rules of its parser, of modules that know its arguments alone, it is the detector.

YOLOv5 is not here. What its v7.0 makes of a YAML is written down below: widths are multiplied and rounded up to 8 in
modules that have any, the repeat count is the third argument of the C3 family, arguments are by position, and strings
are evaluated where they can be.
"""

import random

import pytest
import torch
import yaml
from torch import nn

import export
from experiments.run.cli import run_script
from models import Model, load_detector, read_config, save_detector
from models.grammar import MODELS
from optimizer import export_yolov5, yolov5_form
from spaces import Space, in_upstream_form
from tests.lively import TINY
from tests.random_state import randomized
from tests.refusal import refused

X = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Conv(nn.Module):
    usual = nn.SiLU()

    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, d=1, act=True):
        super().__init__()
        assert all(type(v) is int for v in (c1, c2, k, s, g, d)), (c1, c2, k, s, g, d)
        self.conv = nn.Conv2d(c1, c2, k, s, (d * (k - 1) + 1) // 2 if p is None else p, d, g, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3)
        # A string, which is what an activation is whose name says nothing there, is no activation at all.
        self.act = act if isinstance(act, nn.Module) else self.usual if act is True else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c1, c2, shortcut=True, g=1, e=0.5):
        super().__init__()
        assert type(shortcut) is bool
        self.cv1, self.cv2 = Conv(c1, int(c2 * e), 1), Conv(int(c2 * e), c2, 3, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x):
        return self.cv2(self.cv1(x)) + (x if self.add else 0)


class C3(nn.Module):
    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        h = int(c2 * e)
        self.cv1, self.cv2, self.cv3 = Conv(c1, h), Conv(c1, h), Conv(2 * h, c2)
        self.m = nn.Sequential(*(Bottleneck(h, h, shortcut, g, 1.0) for _ in range(n)))

    def forward(self, x):
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1, self.cv2, self.m = Conv(c1, c1 // 2), Conv(c1 // 2 * 4, c2), nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x):
        maps = [self.cv1(x)]
        maps += [self.m(maps[0]), self.m(self.m(maps[0])), self.m(self.m(self.m(maps[0])))]
        return self.cv2(torch.cat(maps, 1))


class Concat(nn.Module):
    def __init__(self, dimension=1):
        super().__init__()
        self.dimension = dimension

    def forward(self, x):
        return torch.cat(x, self.dimension)


class Detect(nn.Module):
    def __init__(self, nc, anchors, ch):
        super().__init__()
        self.no = nc + 5
        self.register_buffer("anchors", torch.tensor(anchors).float().view(len(ch), -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * len(anchors[0]) // 2, 1) for c in ch)

    def forward(self, x, height):
        rows = []
        for conv, anchors, y in zip(self.m, self.anchors, map(torch.Tensor.clone, x), strict=True):
            y = conv(y).unflatten(1, (len(anchors), self.no)).permute(0, 1, 3, 4, 2).sigmoid()
            stride = height / y.shape[2]
            at = torch.stack(torch.meshgrid(torch.arange(y.shape[3]), torch.arange(y.shape[2]), indexing="xy"), -1)
            xy, wh = (
                (2 * y[..., :2] - 0.5 + at) * stride,
                4 * y[..., 2:4] ** 2 * (anchors * stride)[None, :, None, None],
            )
            rows.append(torch.cat((xy, wh, y[..., 4:]), -1).flatten(1, 3))
        return torch.cat(rows, 1)


class Upstream(nn.Module):
    """A YAML as YOLOv5 v7.0 builds it, or as later commits do, which know ``channel_multiple``."""

    def __init__(self, cfg, later=False):
        super().__init__()
        known = {"Conv": Conv, "Bottleneck": Bottleneck, "C3": C3, "SPPF": SPPF, "Concat": Concat, "Detect": Detect}
        said = {"nn": nn, "None": None, "nc": cfg["nc"], "anchors": cfg["anchors"]}

        def value(a):
            try:
                return eval(a, {"__builtins__": {}}, said) if isinstance(a, str) else a
            except NameError:
                return a

        Conv.usual = value(cfg.get("activation", "nn.SiLU()"))
        divisor = cfg.get("channel_multiple", 8) if later else 8
        outputs = len(cfg["anchors"][0]) // 2 * (cfg["nc"] + 5)
        layers, widths, self.sources = [], [], []
        for source, number, name, args in cfg["backbone"] + cfg["head"]:
            assert source == -1 or min([source] if type(source) is int else source) >= -1
            n = max(round(number * cfg["depth_multiple"]), 1)
            c1 = [(widths or [3])[j] for j in (source if isinstance(source, list) else [source])]
            args, c2 = [value(a) for a in args], sum(c1)
            if name in ("Conv", "Bottleneck", "C3", "SPPF"):
                c2 = args[0] if args[0] == outputs else -(-args[0] * cfg["width_multiple"] // divisor) * divisor
                c2 = int(c2)
                args = [*c1, c2, *([n] if name == "C3" else []), *args[1:]]
                n = 1 if name == "C3" else n
            elif name == "Detect":
                args.append(c1)
            built = [(known.get(name) or value(name))(*args) for _ in range(n)]
            layers.append(nn.Sequential(*built) if n > 1 else built[0])
            widths.append(c2)
            self.sources.append(source)
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        height, outputs = x.shape[2], [x]
        for layer, source in zip(self.model, self.sources, strict=True):
            outputs[0] = outputs[-1]  # -1: of the row before
            if isinstance(source, list):
                inputs = [outputs[j + 1] for j in source]
                more = (height,) if isinstance(layer, Detect) else ()
                outputs.append(layer(inputs, *more))
            else:
                outputs.append(layer(outputs[source + 1]))
        return outputs[-1]


@torch.no_grad()
def _assert_upstream_computes_it(model, later=False):
    """The form, after it was written as text, built by YOLOv5's rules and filled, computes what `model` does."""
    form = yolov5_form(model)
    theirs = Upstream(yaml.safe_load(yaml.safe_dump(form.raw)), later).eval()
    theirs.load_state_dict(form.state_dict)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(theirs(X), model(X)[0], rtol=1e-5, atol=1e-5)
    return form


@pytest.mark.parametrize(("name", "splits"), [("yolov5n_nas", True), ("yolov5n_bignas", False)])
def test_every_arch_is_built_there_and_agrees(name, splits):
    space, rng = Space(f"{name}.yaml"), random.Random(0)
    for i in range(12):
        arch = space.sample(rng)
        torch.manual_seed(i)
        model = randomized(Model(space.freeze(arch), nc=3), i)
        assert bool(_assert_upstream_computes_it(model).split) == splits


@torch.no_grad()
@pytest.mark.parametrize(("name", "decisions"), [("yolov5n_nas", 14), ("yolov5n_bignas", 40)])
def test_archs_in_upstream_form_need_no_export(name, decisions):
    """The frozen YAML itself is built there; the arch is one of the whole space, and the same network in it."""
    whole, rng = Space(f"{name}.yaml", nc=3), random.Random(0)
    space = Space(in_upstream_form(whole.config))
    assert len(space.decisions) == decisions
    for i in range(2):
        arch = space.sample(rng)
        frozen, model = space.freeze(arch), randomized(Model(space.freeze(arch)), i)
        assert read_config(whole.freeze(arch)).nc == 3
        theirs = Upstream(yaml.safe_load(yaml.safe_dump(frozen))).eval()
        theirs.load_state_dict({**model.state_dict(), "model.24.anchors": model.head.anchors})
        torch.testing.assert_close(theirs(X), model(X)[0], rtol=1e-5, atol=1e-5)
        same = Model(whole.freeze(arch))
        same.load_state_dict(model.state_dict())
        assert torch.equal(same.eval()(X)[0], model(X)[0])


def test_widths_no_multiple_of_8_are_for_later_versions_alone():
    cfg = {**TINY, "channel_multiple": 1, "width_multiple": 0.75, "activation": "nn.LeakyReLU(0.1)"}
    cfg["backbone"] = [
        *TINY["backbone"][:2],
        [-1, 2, "C3", [16, {"m_e": [0.7, 1.3], "cv2_k": 3}]],
        *TINY["backbone"][3:],
    ]
    model = randomized(Model(cfg, nc=2))
    form = _assert_upstream_computes_it(model, later=True)
    assert form.split == (2,)
    assert form.odd == {0: 6, 1: 12, 2: 6, 3: 6, 4: 6, 5: 6, 7: 12}
    with pytest.raises(RuntimeError, match="size mismatch"):
        Upstream(form.raw).load_state_dict(form.state_dict)


@pytest.mark.parametrize("path", sorted(MODELS.glob("hub/*.yaml")), ids=lambda path: path.stem)
def test_yolov5s_own_yamls_stay_as_they_are(path):
    model = Model({**read_config(path).raw, "width_multiple": 0.125, "depth_multiple": 0.34}, nc=2)
    form = yolov5_form(model)
    again = Model(form.raw)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert [(r.sources, r.module) for r in again.config.rows] == [(r.sources, r.module) for r in model.config.rows]
    assert not form.split
    assert not any(r.kwargs for r in again.config.rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 1, "MBConv", [16]], "YOLOv5 has no such module"),
        ([[-1, 1], 1, "Add", []], "YOLOv5 has no such module"),
        ([1, 1, "nn.BatchNorm2d", []], "right would be from -1"),
        ([-1, 1, "MixConv2d", [16]], "its activation is nn.SiLU(), here nn.ReLU()"),
    ],
)
def test_what_it_cannot_be_there_is_refused(row, message):
    cfg = {**TINY, "activation": "nn.ReLU()"}
    cfg["backbone"] = [*TINY["backbone"][:2], [-1, 1, "Conv", [16]], row, *TINY["backbone"][3:]]
    cfg["head"] = [
        TINY["head"][0],
        [[-1, 4], 1, "Concat", [1]],
        TINY["head"][2],
        [[9, 6], 1, "Detect", ["nc", "anchors"]],
    ]
    with refused(f"row 3 ({row[2]})", message):
        yolov5_form(Model(cfg, nc=2))


def test_other_heads_and_an_image_read_twice_are_refused():
    with refused("row 24 (DetectDFL)", "no such head"):
        yolov5_form(Model("yolov5n_dfl.yaml", nc=2))
    first = {**TINY, "backbone": [[-1, 1, "C3", [8, {"cv1_k": 3}]], *TINY["backbone"][1:]]}
    with refused("row 0 (C3)", "read the image twice"):
        yolov5_form(Model(first, nc=2))


def test_script_writes_what_both_projects_read(tmp_path, capsys):
    space = Space({**TINY, "nc": 2, "backbone": [*TINY["backbone"][:2], [-1, 1, "NASC3", [16]], *TINY["backbone"][3:]]})
    model = randomized(Model(space.freeze({**space.upstream(), "nasconv_2-1": 1})))
    model.names = {0: "cat", 1: "dog"}
    save_detector(model, tmp_path / "detector.pt", imgsz=96, arch={})

    def run(*options):
        return run_script(export.main, export.parse([*map(str, ["--weights", tmp_path / "detector.pt", *options])]))

    assert run("--format", "yolov5") == 0
    said = capsys.readouterr().out
    assert "largest difference 0, of the number" in said
    assert "detector-yolov5.yaml: 14 rows for 10, of 2 of which the parts are written; weights: " in said
    assert "channel_multiple" not in said
    raw = yaml.safe_load((tmp_path / "detector-yolov5.yaml").read_text())
    written = torch.load(tmp_path / "detector-yolov5.pt", weights_only=True)
    assert (raw["names"], written["names"], written["imgsz"]) == (["cat", "dog"], {0: "cat", 1: "dog"}, 96)
    theirs = Upstream(raw).eval()
    theirs.load_state_dict(written["state_dict"])
    ours, _ = load_detector(tmp_path / "detector-yolov5.pt")
    with torch.no_grad():
        torch.testing.assert_close(theirs(X), model(X)[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(ours(X)[0], model(X)[0])

    before = sorted(tmp_path.iterdir())
    for options, message in (
        (["--nms"], "--nms: is of --format onnx or openvino"),
        (["--output", tmp_path / "a.onnx"], "a.onnx: right would be a .yaml"),
        (["--output", tmp_path / "detector.yaml"], "detector.yaml: right would be a .yaml beside which"),
    ):
        assert run("--format", "yolov5", *options) != 0
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    model = randomized(Model(TINY, nc=2))
    form = yolov5_form(model)
    form.state_dict["model.9.m.0.bias"] = form.state_dict["model.9.m.0.bias"] + 0.01
    monkeypatch.setattr("optimizer.yolov5.yolov5_form", lambda _: form)
    with refused("a.yaml: differs from the detector by up to"):
        export_yolov5(model, tmp_path / "a.yaml", 64)
    assert not list(tmp_path.iterdir())
