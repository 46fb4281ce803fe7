import ast
import math
import subprocess
import sys

import pytest
from torch import nn

from models import Call, Classifier, Model, read_config
from models.grammar import MODELS, choices_in, find_file, parse_value
from spaces import Space
from tests.refusal import refused

ROW = [-1, 1, "Conv", [16, 3, 2]]


def _read(rows=(ROW,), **keys):
    return read_config({"nc": 2, "backbone": [list(r) for r in rows], **keys})


def _file(tmp_path, content):
    path = tmp_path / "model.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Widths and depths.


@pytest.mark.parametrize(
    ("channels", "width_multiple", "channel_multiple", "expected"),
    [
        (64, 0.25, 8, 16),
        (64, 0.5, 8, 32),
        (100, 0.5, 8, 56),  # 50, up to 56
        (24, 0.33, 8, 8),  # 7.92
        (25, 0.33, 8, 16),  # 8.25
        (1, 0.01, 8, 8),
        (48, 1.25, 8, 64),  # 60
        (100, 0.5, 16, 64),
        (100, 0.5, 1, 50),
        (255, 0.5, 8, 255),  # 3 x (80 + 5): the head's output count
        (254, 0.5, 8, 128),
        (510, 0.5, 8, 256),
    ],
)
def test_width(channels, width_multiple, channel_multiple, expected):
    config = _read(width_multiple=width_multiple, channel_multiple=channel_multiple, nc=80, anchors=3)
    assert config.width(channels, config.rows[0]) == expected


def test_width_counts_outputs_by_classes_and_anchors():
    anchors = [[1, 2, 3, 4]] * 3  # two a level
    config = _read(width_multiple=0.5, nc=27, anchors=anchors)
    assert config.width(64, config.rows[0]) == 64  # 2 x (27 + 5)
    assert _read(width_multiple=0.5, nc=28, anchors=anchors).width(64, config.rows[0]) == 32
    assert _read(width_multiple=0.5, nc=27, anchors=3).width(64, config.rows[0]) == 32
    assert _read(width_multiple=0.5, nc=27).width(64, config.rows[0]) == 32


@pytest.mark.parametrize(
    ("number", "depth_multiple", "expected"),
    [
        *((1, 0.33, 1), (1, 3.0, 1), (3, 0.33, 1), (6, 0.33, 2), (9, 0.33, 3), (2, 0.1, 1), (9, 0.67, 6), (6, 1.33, 8)),
        *((5, 0.5, 2), (3, 0.5, 2), (2, 1.25, 2)),  # Python rounds halves to even
    ],
)
def test_depth(number, depth_multiple, expected):
    config = _read([[-1, number, "C3", [16]]], depth_multiple=depth_multiple)
    assert config.depth(config.rows[0]) == expected


def test_absent_and_empty_keys_have_defaults():
    absent, empty = _read(), _read(depth_multiple=None, width_multiple=None, channel_multiple=None, ch=None)
    for config in (absent, empty):
        assert (config.depth_multiple, config.width_multiple, config.channel_multiple, config.ch) == (1.0, 1.0, 8, 3)


# Values.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("None", None),
        ("True", True),
        ("'nearest'", "nearest"),
        ('"nearest"', "nearest"),
        ("nearest", "nearest"),
        ("nc", 7),
        ("anchors", [[1, 2]]),
        ("nn.SiLU()", Call("nn.SiLU")),
        ("nn.LeakyReLU(0.1)", Call("nn.LeakyReLU", (0.1,))),
        ("nn.LeakyReLU(negative_slope=-0.5)", Call("nn.LeakyReLU", (), {"negative_slope": -0.5})),
        (["None", ["nc", 2]], [None, [7, 2]]),
        ({"act": "nn.ReLU()"}, {"act": Call("nn.ReLU")}),
        ({"choice": ["None", "nc"]}, {"choice": ["None", "nc"]}),  # what a choice means is the business of spaces
        (0.5, 0.5),
    ],
)
def test_parse_value(text, value):
    assert parse_value(text, {"nc": 7, "anchors": [[1, 2]]}) == value


EVIL = [
    "__import__('os').system('touch evil')",
    "(lambda: 1)()",
    "nn.SiLU(__import__('os'))",
    "nn.SiLU(*[1])",
    "nn.SiLU(**{})",
    "[c for c in ().__class__.__mro__]",
    "open('evil', 'w')",
    "nn.SiLU().forward()",
    "nn.SiLU(",
    "nn.Module.__subclasses__()",
]


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("place", ["argument", "keyword", "number", "activation"])
def test_nothing_is_evaluated(text, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {
        "argument": [-1, 1, "Conv", [16, 3, 2, "None", 1, 1, text]],
        "keyword": [-1, 1, "Conv", [16, {"act": text}]],
        "number": [-1, text, "Conv", [16]],
    }
    keys = {"activation": text} if place == "activation" else {}
    with refused("model dict"):
        Classifier({"nc": 2, "backbone": [rows.get(place, ROW)], **keys})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [EVIL[0], "nn.SiLU().forward()", "[nn][0].SiLU()", "(nn.SiLU)(*[1])"])
def test_only_dotted_names_are_read_as_constructors(text):
    with refused(f"cannot read {text!r}"):
        parse_value(text)


def test_no_eval_in_the_source():
    for path in MODELS.rglob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not {n.id for n in calls if isinstance(n, ast.Name)} & {"eval", "exec", "compile"}, path


def test_string_forms_in_rows():
    rows = [
        [-1, 1, "Conv", [16]],
        [-1, 1, "nn.Upsample", ["None", 2, "'nearest'"]],
        [-1, 1, "Conv", [8, 1, 1, "None", 1, 1, "nn.LeakyReLU(0.2)"]],
        [-1, 1, "Conv", [8, {"act": "nn.Identity()"}]],
        [-1, 1, "Conv", [8, {"act": False}]],
    ]
    network = Classifier({"nc": 2, "backbone": rows, "activation": "nn.Hardswish()"})
    upsample, leaky = network.model[1], network.model[2]
    assert (upsample.size, upsample.scale_factor, upsample.mode) == (None, 2.0, "nearest")
    assert leaky.act.negative_slope == 0.2
    kinds = [type(network.model[i].act) for i in (0, 3, 4)]
    assert kinds == [nn.Hardswish, nn.Identity, nn.Identity]


def test_activation_reaches_every_block_and_ends_with_the_network():
    leaky = Model("models/hub/yolov5s-leaky.yaml")
    kinds = {type(m) for m in leaky.modules() if type(m).__module__ == "torch.nn.modules.activation"}
    assert kinds == {nn.LeakyReLU}
    assert {m.negative_slope for m in leaky.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    plain = Classifier({"nc": 2, "backbone": [ROW]})
    assert isinstance(plain.model[0].act, nn.SiLU)


# Rows.


def test_from_is_relative_or_absolute():
    rows = [ROW, [-1, 1, "Conv", [8]], [-2, 1, "Conv", [8]], [[-1, -3, 0], 1, "Concat", [1]], [2, 1, "Conv", [8]]]
    assert [r.sources for r in _read(rows).rows] == [(-1,), (0,), (0,), (2, 0, 0), (2,)]


def test_row_index_counts_over_backbone_and_head():
    config = _read([ROW, ROW], head=[[-1, 1, "Conv", [8]], [[1, -1], 1, "Concat", [1]]])
    assert [(r.index, r.section) for r in config.rows] == [(0, "backbone"), (1, "backbone"), (2, "head"), (3, "head")]
    assert config.rows[3].sources == (1, 2)
    assert config.num_backbone == 2
    assert [r.index for r in config.backbone().rows] == [0, 1]


def test_choices_are_found_wherever_they_stand():
    choice = {"choice": [1, 2]}
    row = [-1, choice, "C3", [choice, True, [choice, 3], {"e": choice}]]
    assert [where for where, _ in choices_in(_read([ROW, row]).rows[1])] == ["number", "0", "2.0", "e"]


@pytest.mark.parametrize("where", ["number", "argument", "keyword"])
def test_a_choice_in_a_plain_network_is_refused(where):
    choice = {"choice": [1, 2]}
    row = {
        "number": [-1, choice, "C3", [16]],
        "argument": [-1, 1, "C3", [choice]],
        "keyword": [-1, 1, "C3", [16, {"e": choice}]],
    }[where]
    with refused("row 1 (C3)", "is a choice", "freeze"):
        Classifier({"nc": 2, "backbone": [ROW, row]})


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("Conv", ["a row is [from, number, module, args]"]),
        ([-1, 1, "Conv"], ["a row is [from, number, module, args]"]),
        ([-1, 1, 5, [8]], ["module must be a name"]),
        ([1, 1, "Conv", [8]], ["(Conv)", "from 1 points at no earlier row", "-1 to -1, or 0 to 0"]),
        ([7, 1, "Conv", [8]], ["from 7 points at no earlier row"]),
        ([-2, 1, "Conv", [8]], ["from -2 points at no earlier row"]),
        ([[-1, -5], 1, "Concat", [1]], ["from -5"]),
        ([[], 1, "Concat", [1]], ["from is an empty list"]),
        ([True, 1, "Conv", [8]], ["from must be a row index"]),
        (["up", 1, "Conv", [8]], ["from must be a row index", "'up'"]),
        ([None, 1, "Conv", [8]], ["from must be a row index"]),
        ([-1, 1, "Conv", 8], ["args must be a list, got 8"]),
        ([-1, 0, "Conv", [8]], ["number of repeats must be a positive integer, got 0"]),
        ([-1, 1.5, "Conv", [8]], ["number of repeats"]),
        ([-1, True, "Conv", [8]], ["number of repeats"]),
        ([-1, 1, "Conv", [{"k": 3}, 8]], ["keyword arguments close args"]),
        ([-1, 1, "Conv", ["anchors"]], ["'anchors' is used, but the YAML does not say what it is"]),
    ],
)
def test_wrong_row_is_refused_by_index(row, parts):
    with refused("model dict: row 1", *parts):
        Classifier({"nc": 2, "backbone": [ROW, row]})


# Files.


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("- 1\n- 2\n", ["not a model YAML", "'backbone'"]),
        ("", ["not a model YAML"]),
        ("just words", ["not a model YAML"]),
        ("nc: 3\n", ["not a model YAML", "'backbone'"]),
        ("nc: 3\nbackbone: [[1, 2\nhead: [", ["line 3", "not valid YAML"]),
        ("nc: 3\n\tbackbone: []", ["line 2", "not valid YAML"]),
        ("nc: !!python/object/apply:os.system [x]\n", ["line 1", "not valid YAML"]),
        ("nc: 2024-13-45\n", ["not valid YAML"]),
        (b"backbone: \x00\x01", ["not valid YAML"]),
        (bytes(range(128, 256)), ["cannot be read"]),
        ("nc: 3\nbackbone: []\n", ["'backbone' has no rows"]),
        ("nc: 3\nbackbone: 5\n", ["'backbone' must be a list of rows"]),
        ("nc: 3\nbackbone: [[-1, 1, Conv, [8]]]\nhead: {}\n", ["'head' must be a list of rows"]),
        ("nc: 0\nbackbone: [[-1, 1, Conv, [8]]]\n", ["nc must be a positive integer, got 0"]),
        ("nc: many\nbackbone: [[-1, 1, Conv, [8]]]\n", ["nc must be a positive integer, got 'many'"]),
        ("width_multiple: -1\nbackbone: [[-1, 1, Conv, [8]]]\n", ["width_multiple must be a positive number"]),
        ("depth_multiple: x\nbackbone: [[-1, 1, Conv, [8]]]\n", ["depth_multiple must be a positive number"]),
        ("channel_multiple: 1.5\nbackbone: [[-1, 1, Conv, [8]]]\n", ["channel_multiple must be a positive integer"]),
        ("width_multipel: 1\nbackbone: [[-1, 1, Conv, [8]]]\n", ["'width_multipel'", "'width_multiple'"]),
        ("activation: SiLU\nbackbone: [[-1, 1, Conv, [8]]]\n", ["activation must be written like nn.SiLU()"]),
        ("activation: nn.Silu()\nbackbone: [[-1, 1, Conv, [8]]]\n", ["nn.Silu() is no activation"]),
        ("activation: nn.Linear(3, 3)\nbackbone: [[-1, 1, Conv, [8]]]\n", ["is no activation"]),
        ("anchors: 0\nbackbone: [[-1, 1, Conv, [8]]]\n", ["anchors must be a number a level"]),
        ("anchors: [[1, 2, 3]]\nbackbone: [[-1, 1, Conv, [8]]]\n", ["anchors must be"]),
        ("anchors: [[1, 2], [1, 2, 3, 4]]\nbackbone: [[-1, 1, Conv, [8]]]\n", ["anchors must be"]),
        ("anchors: [[a, b]]\nbackbone: [[-1, 1, Conv, [8]]]\n", ["anchors must be"]),
    ],
)
def test_yaml_that_is_no_model(tmp_path, content, parts):
    path = _file(tmp_path, content)
    with refused(str(path), *parts):
        Classifier(path, nc=None if b"nc" in path.read_bytes() else 2)


def test_missing_file_names_it():
    with refused("nowhere/yolov5s.yaml", "no such file"):
        read_config("nowhere/yolov5s.yaml")  # and not the shipped file of that name
    with refused("yolov5q.yaml", "no such file"):
        Model("yolov5q.yaml")


def test_files_are_found_by_bare_name_and_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [find_file(name) for name in ("models/yolov5s.yaml", "yolov5s.yaml", "hub/yolov3.yaml", "yolov3.yaml")]
    assert found[0] == found[1] != found[2] == found[3]
    (tmp_path / "yolov5s.yaml").write_text("nc: 1\nbackbone: [[-1, 1, Conv, [8]]]\n")
    assert read_config("yolov5s.yaml").nc == 1  # one's own file comes first


def test_no_head_and_missing_keys():
    detect = [[0], 1, "Detect", ["nc", "anchors"]]
    with refused("'nc' is used"):
        Model({"anchors": 3, "backbone": [ROW], "head": [detect]})
    with refused("'anchors' is used"):
        Model({"nc": 2, "backbone": [ROW], "head": [detect]})
    with refused("yolov5nb_nas.yaml", "last row is Detect"):
        Model("models/yolov5nb_nas.yaml")
    with refused("number of classes is missing"):
        Classifier({"backbone": [ROW]})


def test_reading_does_not_touch_the_mapping():
    raw = {"nc": 2, "anchors": 3, "backbone": [ROW], "head": [[[0], 1, "Detect", ["nc", "anchors"]]]}
    before = repr(raw)
    assert Model(raw, nc=5, ch=1).config.raw["nc"] == 5
    assert repr(raw) == before


def test_grammar_needs_no_torch():
    code = "import sys; from models import read_config; read_config('yolov5s.yaml'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MODELS.parent)


@pytest.mark.parametrize("side", [math.nan, -10, 0, math.inf, 100_000, True, "10"])
def test_anchors_are_sides_in_pixels(side):
    with refused("anchors must be", "each more than 0 and less than 100,000"):
        read_config({"backbone": [[-1, 1, "Conv", [8]]], "anchors": [[side, 10], [20, 20]]})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -1])
def test_multiples_are_positive_numbers(value):
    with refused("depth_multiple must be a positive number"):
        read_config({"backbone": [[-1, 1, "Conv", [8]]], "depth_multiple": value})


@pytest.mark.parametrize("value", [math.nan, 0, -32, 64.0, True, "64"])
def test_resolution_is_a_side_in_pixels(value):
    with refused("resolution must be a positive integer"):
        read_config({"backbone": [[-1, 1, "Conv", [8]]], "resolution": value})
    with refused("resolution: must be positive integers"):
        Space({"backbone": [[-1, 1, "Conv", [8]]], "resolution": {"choice": [96, value]}})


def test_one_head():
    conv = [-1, 1, "Conv", [8, 3, 2]]
    detect = [[0], 1, "Detect", ["nc", "anchors"]]
    with refused("row 1 (Detect): a detector has one head, its last row (row 2, Detect)"):
        Model({"nc": 2, "anchors": 3, "backbone": [conv], "head": [detect, detect]})
