"""Generic choices: decisions, labels, and `freeze`."""

import copy
import json
import random
import re
import subprocess
import sys

import pytest

from models import Classifier, Model, read_config
from models.files import dump_model_yaml
from models.grammar import MODELS
from spaces import Space, freeze, read_arch, space_of
from spaces.kinds import kind_of
from tests.refusal import refused

ELASTIC = {
    "nc": 3,
    "anchors": 3,
    "width_multiple": 0.5,
    "resolution": {"choice": [160, 224]},
    "backbone": [
        [-1, 1, "Conv", [{"range": [16, 48, 16], "label": "width"}, 3, 2]],
        [-1, {"range": [1, 3, 1]}, "C3", [{"choice": [32, 64]}, True, {"e": {"choice": [0.5, 0.75]}}]],
        [-1, 1, "SPP", [32, [{"choice": [3, 5]}, 9]]],
        [-1, {"table": {1: 2, 2: 2, 3: 4}, "by": "row1.number"}, "Bottleneck", [{"choice": [32]}]],
    ],
    "head": [
        [-1, 1, "Conv", [{"range": [16, 48, 16], "label": "width"}, 1, 1, {"act": {"choice": ["nn.ReLU()", False]}}]],
        [[-1], 1, "Detect", ["nc", "anchors"]],
    ],
}
ARCH = {
    "width": 48,
    "row1.number": 3,
    "row1.0": 64,
    "row1.e": 0.75,
    "row2.1.0": 5,
    "row3.0": 32,
    "row4.act": "nn.ReLU()",
    "resolution": 224,
}
FROZEN = {
    "nc": 3,
    "anchors": 3,
    "width_multiple": 0.5,
    "resolution": 224,
    "backbone": [
        [-1, 1, "Conv", [48, 3, 2]],
        [-1, 3, "C3", [64, True, {"e": 0.75}]],
        [-1, 1, "SPP", [32, [5, 9]]],
        [-1, 4, "Bottleneck", [32]],
    ],
    "head": [[-1, 1, "Conv", [48, 1, 1, {"act": "nn.ReLU()"}]], [[-1], 1, "Detect", ["nc", "anchors"]]],
}
CHOICES = re.compile("NAS|choice:|range:")
PLAIN = sorted(p for p in MODELS.rglob("*.yaml") if not CHOICES.search(p.read_text()))


def _space(row, **keys):
    return Space({"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]], row], **keys})


def test_decisions():
    space = Space(ELASTIC)
    assert {label: d.values for label, d in space.decisions.items()} == {
        "width": (16, 32, 48),
        "row1.number": (1, 2, 3),
        "row1.0": (32, 64),
        "row1.e": (0.5, 0.75),
        "row2.1.0": (3, 5),
        "row3.0": (32,),
        "row4.act": ("nn.ReLU()", False),
        "resolution": (160, 224),
    }
    assert space.size() == 3 * 3 * 2 * 2 * 2 * 2 * 2


def test_freeze_writes_the_values():
    assert freeze(ELASTIC, ARCH) == FROZEN
    model = Model(FROZEN)
    assert model.channels[:4] == [24, 32, 16, 16]
    assert len(model.model[1].m) == 3


def test_freeze_takes_strings_and_gives_the_spaces_own_values():
    frozen = freeze(ELASTIC, {k: str(v) for k, v in ARCH.items()})
    assert frozen == FROZEN
    assert dump_model_yaml(frozen) == dump_model_yaml(FROZEN)


def test_freeze_leaves_the_space_alone():
    before = copy.deepcopy(ELASTIC)
    frozen = freeze(ELASTIC, ARCH)
    frozen["backbone"][0][3][0] = 0
    assert before == ELASTIC
    space = space_of("models/yolov5s_nas.yaml")
    one = space.freeze({})
    one["backbone"][9][3].append("x")
    one["anchors"].clear()
    assert space.freeze({})["backbone"][9][3] == [1024, 5]
    assert len(space.freeze({})["anchors"]) == 3


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.stem)
def test_a_plain_yaml_freezes_to_itself(path):
    raw = read_config(path).raw
    assert freeze(path, {}) == raw
    assert freeze(raw, {}) == raw


def test_freezing_is_idempotent():
    rng = random.Random(0)
    for cfg in (ELASTIC, "models/yolov5s_nas.yaml", "models/yolov5sb_nas.yaml"):
        frozen = freeze(cfg, Space(cfg).sample(rng))
        assert freeze(frozen, {}) == frozen
        assert dump_model_yaml(freeze(frozen, {})) == dump_model_yaml(frozen)


def test_sampled_archs_build_and_survive_json():
    space, rng = Space(ELASTIC), random.Random(0)
    for _ in range(5):
        arch = space.sample(rng)
        again = json.loads(json.dumps(arch))
        assert space.freeze(again) == space.freeze(arch)
        Model(space.freeze(arch))
    assert space.sample(random.Random(1)) == space.sample(random.Random(1))


def test_shared_label_is_one_decision():
    row = [-1, 1, "C3", [{"choice": [16, 32], "label": "w"}, True, 1, {"choice": [0.5, 0.75]}]]
    space = Space({"nc": 2, "backbone": [row, row]})
    assert set(space.decisions) == {"w", "row0.3", "row1.3"}
    frozen = space.freeze({"w": 32, "row0.3": 0.5, "row1.3": 0.75})
    assert [r[3] for r in frozen["backbone"]] == [[32, True, 1, 0.5], [32, True, 1, 0.75]]


def test_shared_label_with_other_values_is_refused():
    rows = [[-1, 1, "Conv", [{"choice": values, "label": "w"}]] for values in ([16, 32], [16, 64])]
    with refused("model dict: row 1 (Conv)", "label 'w'", "[16, 64]", "[16, 32]"):
        Space({"nc": 2, "backbone": rows})


def test_head_choices_are_of_the_head():
    frozen = freeze(ELASTIC, {**ARCH, "row4.act": False})
    assert frozen["head"][0][3] == [48, 1, 1, {"act": False}]


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ([-1, 1, "Conv", [{"choice": []}]], ["one or more values"]),
        ([-1, {"range": [2, 1, 1]}, "Conv", [16]], ["min <= max"]),
        ([-1, 1, "Conv", [{"table": {16: 8}, "by": "nothing"}]], ["'by: nothing' names no decision"]),
        ([-1, {"table": {1: 8}, "by": "d"}, "Conv", [{"choice": [1, 2], "label": "d"}]], ["table by 'd' lacks [2]"]),
        ([-1, 1, "NASConv", [16, {"choice": [3, 5]}]], []),
        ([-1, {"choice": [1, 2]}, "NASC3", [16]], []),
    ],
)
def test_wrong_choice_names_the_row(row, parts):
    with refused(f"model dict: row 1 ({row[2]})", *parts):
        _space(row)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"row1.0": 48}, ["'row1.0'", "48", "valid are 32, 64"]),
        ({"row1.0": None}, ["'row1.0'", "valid are 32, 64"]),
        ({"widht": 16}, ["'widht'", "width"]),
        ({"nasconv_0": 1}, ["'nasconv_0' is not of the space model dict", "8 labels"]),
        ({3: 1}, ["'3'"]),
    ],
)
def test_arch_that_does_not_fit(change, parts):
    with refused(*parts):
        freeze(ELASTIC, {**ARCH, **change})


def test_missing_label_and_no_mapping():
    with refused("'width' is missing", "valid are 16, 32, 48"):
        freeze(ELASTIC, {k: v for k, v in ARCH.items() if k != "width"})
    with refused("an arch is a mapping", "list"):
        freeze(ELASTIC, [1])


def test_arch_files(tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(ARCH))
    assert read_arch(path) == ARCH
    for content, part in (("{", "not an arch JSON"), ("[1]", "got list"), ("\xff\x00", "not an arch JSON")):
        path.write_text(content, encoding="latin-1")
        with refused(str(path), part):
            read_arch(path)
    with refused("gone.json", "no such arch file"):
        read_arch(tmp_path / "gone.json")


def test_space_of_reads_the_file_as_it_is(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("nc: 2\nbackbone:\n  - [-1, 1, Conv, [{choice: [8, 16]}]]\n")
    assert freeze(path, {"row0.0": 16})["backbone"] == [[-1, 1, "Conv", [16]]]
    path.write_text("nc: 2\nbackbone:\n  - [-1, 1, Conv, [{choice: [8, 24]}]]\n")
    assert freeze(path, {"row0.0": 24})["backbone"] == [[-1, 1, "Conv", [24]]]


def test_bad_space_file_is_refused_as_a_model_is():
    with refused("no such file"):
        freeze("gone.yaml", {})


def test_freeze_is_pure_python():
    code = (
        "import sys; from spaces import freeze, Space, read_arch; freeze('yolov5s_nas.yaml', {'nasconv_0': '1'});"
        "assert not {'torch', 'nni', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MODELS.parent)


@pytest.mark.parametrize(
    "more", [{"choice": [32, 64], "label": "size"}, {"table": {1: 32, 3: 64}, "by": "row2.number"}]
)
def test_resolution_is_a_decision_of_its_own(more):
    with refused("resolution: right would be a choice or a range without a label"):
        Space({**ELASTIC, "resolution": more})


@pytest.mark.parametrize("args", [[2], [-1], [], ["a"]])
def test_pick_takes_one_of_its_maps(args):
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [[0, 1], 1, "Pick", args]]
    with refused("row 2 (Pick): args must be the index of one of the maps"):
        Classifier({"nc": 2, "backbone": rows})


def test_kinds_leave_out_the_input_channels():
    kinds = kind_of(Space(MODELS / "resnet_bignas.yaml"))
    assert (kinds["row16.0"], kinds["row16.1"]) == ("c", "k")


def test_resolution_may_be_plain():
    arch = {k: v for k, v in ARCH.items() if k != "resolution"}
    assert freeze({**ELASTIC, "resolution": 320}, arch) == {**FROZEN, "resolution": 320}
