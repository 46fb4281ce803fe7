"""Policies: choices laid over plain YAMLs."""

import re

import pytest

from models import Model, count_params, read_config
from models.grammar import MODELS, is_choice
from spaces import NASDETECTOR, Space
from spaces.policy import apply_policy
from tests.refusal import refused

PLAIN = sorted(
    p
    for p in [*MODELS.glob("*.yaml"), *MODELS.glob("hub/*.yaml")]
    if re.match("yolo(?!v10[smbl])", p.name) and "nas" not in p.name  # of YOLOv10 the smallest and the largest
)
WIDTHS = {"scale": [0.5, 1]}


def cfg(*rows, **keys):
    return {"nc": 3, "backbone": [[-1, 1, "Conv", [64, 3, 2]], *rows], **keys}


def rows(raw):
    return raw["backbone"] + raw.get("head", [])


def bare(part):
    """Without what is said of the plain network."""
    if isinstance(part, dict):
        return {k: bare(v) for k, v in part.items() if k != "plain"}
    return [bare(v) for v in part] if isinstance(part, list) else part


def one(row, rule, **keys):
    """What a rule makes of a row."""
    rule = {"modules": [row[2]], "rows": [1, 1], **rule}
    return apply_policy(cfg(row, **keys), {"rules": [rule]})["backbone"][1]


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.stem)
def test_elastic_policy_holds_the_plain_network(path):
    config = read_config(path)
    space = Space(apply_policy(path, "elastic"))
    assert space.size() > 1e6
    assert not any(is_choice(part) for row in rows(config.raw) for part in (row[1], *row[3]))  # left as it was
    arch = {}
    for label, decision in space.decisions.items():
        row, where = label.removeprefix("row").split(".")
        written = config.rows[int(row)]
        if where == "number":
            arch[label] = decision.match(written.number)
        elif where.isdigit():
            arch[label] = decision.match(written.args[int(where)])
        else:
            arch[label] = decision.match({"e": 0.5}[where])
    assert space.upstream() == arch
    frozen = read_config(space.freeze(arch))
    for mine, theirs in zip(frozen.rows, config.rows, strict=True):
        assert (mine.source, mine.number, mine.module) == (theirs.source, theirs.number, theirs.module)
        assert mine.args[: len(theirs.args)] == theirs.args


def test_elastic_policy_of_nano_builds_the_plain_network():
    raw = apply_policy("yolov5n.yaml", "elastic")
    space = Space(raw)
    narrow = {label: d.values[0] for label, d in space.decisions.items()}
    wide = {label: d.values[-1] for label, d in space.decisions.items()}
    sizes = [count_params(Model(c)) for c in (space.freeze(narrow), "yolov5n.yaml", space.freeze(wide))]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_identity_shortcuts_share_the_width_of_their_input():
    raw = {**read_config("yolov3.yaml").raw, "width_multiple": 0.125, "nc": 2}
    raw = apply_policy(raw, "elastic")
    assert raw["backbone"][1][3][0]["label"] == raw["backbone"][2][3][0]["label"] == "row1.0"
    NASDETECTOR(raw)  # is not refused


def test_attention_keeps_its_width_and_so_does_what_feeds_it():
    opened = apply_policy("yolo26n.yaml", "elastic")
    backbone, head = opened["backbone"], opened["head"]
    assert [backbone[i][3][0] for i in (8, 9, 10)] == [1024] * 3  # SPPF's shortcut hands it on
    assert is_choice(backbone[8][1])
    assert is_choice(backbone[6][3][0])
    assert head[-2][3] == [1024, True, 0.5, True]
    assert is_choice(head[-5][3][0])


def test_width_that_cannot_be_shared_stays():
    written = [-1, 1, "Bottleneck", [64]]
    with refused("no rule fits any row"):
        one(written, {"c2": WIDTHS})
    opened = one([-1, 1, "Bottleneck", [64, False]], {"c2": WIDTHS})
    assert opened[3] == [{"choice": [32, 64], "plain": 64}, False]


@pytest.mark.parametrize(
    ("keys", "scale", "expected"),
    [
        ({}, [0.5, 1], [32, 64]),
        ({}, [0.5], [32, 64]),  # the written width is always among them
        ({"width_multiple": 0.25}, [0.5, 1, 1.5], [32, 64, 96]),
        ({"width_multiple": 0.25}, [0.75, 1], None),  # 12 channels are rounded up to 16 again
        ({"width_multiple": 0.25}, [0.5, 0.6, 1], [32, 64]),
        ({"channel_multiple": 1, "width_multiple": 1}, [0.3, 1], [20, 64]),
    ],
)
def test_widths(keys, scale, expected):
    row = [-1, 1, "Conv", [64]]
    if expected is None:
        with refused("no choice is made"):
            one(row, {"c2": {"scale": scale}}, **keys)
    else:
        assert one(row, {"c2": {"scale": scale}}, **keys)[3] == [{"choice": expected, "plain": 64}]


@pytest.mark.parametrize(
    ("number", "multiple", "add", "built"),
    [(3, 1, [0, 1], [3, 4]), (3, 0.33, [0, 1], [1, 2]), (9, 0.33, [-1, 1], [2, 3, 4]), (1, 0.33, [-1, 0, 1], [1, 2])],
)
def test_depths(number, multiple, add, built):
    row = one([-1, number, "C3", [64]], {"number": {"add": add}}, depth_multiple=multiple)
    assert number in row[1]["choice"]
    config = read_config(cfg(row, depth_multiple=multiple))
    for written, expected in zip(sorted(row[1]["choice"]), built, strict=True):
        frozen = Space(config).freeze({"row1.number": written})
        assert (lambda c: c.depth(c.rows[1]))(read_config(frozen)) == expected


@pytest.mark.parametrize(
    ("row", "rule", "expected"),
    [
        ([-1, 1, "Conv", [64, 3, 2]], {"k": {"of": {3: [3, 5]}}}, [64, {"choice": [3, 5]}, 2]),
        ([-1, 1, "Conv", [64, 3]], {"k": {"choice": [1, 3, 5]}}, [64, {"choice": [1, 3, 5]}]),
        ([-1, 1, "Conv", [64]], {"k": {"of": {1: [1, 3]}}}, [64, {"k": {"choice": [1, 3]}}]),
        ([-1, 1, "Conv", [64, {"s": 2}]], {"k": {"of": {1: [1, 3]}}}, [64, {"s": 2, "k": {"choice": [1, 3]}}]),
        ([-1, 1, "Conv", [64, {"k": 3}]], {"k": {"of": {3: [3, 5]}}}, [64, {"k": {"choice": [3, 5]}}]),
        ([-1, 3, "C3", [64]], {"e": {"of": {0.5: [0.5, 1]}}}, [64, {"e": {"choice": [0.5, 1]}}]),
        ([-1, 3, "C3", [64, True, 1, 0.5]], {"e": {"choice": [0.5, 1]}}, [64, True, 1, {"choice": [0.5, 1]}]),
        ([-1, 3, "C3", [64]], {"m_e": {"choice": [1, 1.5]}}, [64, {"m_e": {"choice": [1, 1.5]}}]),
        ([-1, 1, "Conv", [64, 3]], {"k": {"range": [1, 5, 2]}}, [64, {"range": [1, 5, 2]}]),
    ],
)
def test_arguments_by_name(row, rule, expected):
    opened = one(row, rule)
    assert bare(opened[3]) == expected
    Space(cfg(opened)).sample(__import__("random").Random(0))


def test_rules_are_for_their_rows():
    plain = cfg([-1, 1, "Conv", [64]], head=[[-1, 1, "Conv", [64]], [[-1], 1, "Detect", ["nc", "anchors"]]], anchors=2)

    def opened(**place):
        raw = apply_policy(plain, {"rules": [{"modules": ["Conv"], "c2": WIDTHS, **place}]})
        return [i for i, row in enumerate(rows(raw)) if is_choice(row[3][0])]

    assert opened() == [0, 1, 2]
    assert opened(section="head") == [2]
    assert opened(section="backbone") == [0, 1]
    assert opened(rows=[1, 2]) == [1, 2]


def test_later_rules_take_the_place_of_earlier_ones():
    rules = [{"modules": ["Conv"], "c2": WIDTHS}, {"modules": ["Conv"], "rows": [1, 1], "c2": {"scale": [1, 2]}}]
    raw = apply_policy(cfg([-1, 1, "Conv", [64]]), {"rules": rules})
    assert [row[3][0]["choice"] for row in raw["backbone"]] == [[32, 64], [64, 128]]


def test_policy_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rules:\n  - modules: [Conv]\n    c2: {scale: [1, 2]}\n")
    assert apply_policy(cfg(), path)["backbone"][0][3][0] == {"choice": [64, 128], "plain": 64}


# Refusals.


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("gone", ["gone: no such policy", "elastic"]),
        ({}, ["'rules'"]),
        ({"rules": []}, ["'rules'"]),
        ({"rules": [{"c2": WIDTHS}]}, ["rule 1", "'modules'"]),
        ({"rules": [{"modules": [["Conv"]]}]}, ["rule 1", "modules are names, got ['Conv']"]),
        ({"rules": [{"modules": ["Conv"], "section": "neck"}]}, ["section is backbone or head", "neck"]),
        ({"rules": [{"modules": ["Conv"], "rows": 3}]}, ["[first, last]", "3"]),
        ({"rules": [{"modules": ["Conv"], "c2": [1, 2]}]}, ["c2 is {way: …}", "scale"]),
        ({"rules": [{"modules": ["Conv"], "c2": {"times": [1]}}]}, ["c2 is {way: …}", "scale"]),
        ({"rules": [{"modules": ["Conv"], "k": {"of": [1]}}]}, ["k: of takes a mapping"]),
        ({"rules": [{"modules": ["Conv"], "c2": {"scale": ["wide"]}}]}, ["c2: scale takes numbers"]),
        ({"rules": [{"modules": ["Conv"], "c2": {"add": [1]}}]}, ["add is for number"]),
        ({"rules": [{"modules": ["Conv"], "number": {"scale": [1]}}]}, ["add is for number"]),
        ({"rules": [{"modules": ["Conv"], "width": WIDTHS}]}, ["row 0 (Conv)", "'width'", "it takes c1, c2, k"]),
        ({"rules": [{"modules": ["C3"], "c2": WIDTHS}]}, ["no rule fits any row of model dict"]),
        ({"rules": [{"modules": ["Conv", "Cnov"], "c2": WIDTHS}]}, ["policy: there is no module 'Cnov'"]),
        ({"rules": [{"modules": ["Conv"], "c2": {"scale": [float("inf")]}}]}, ["scale takes numbers"]),
    ],
)
def test_refused(policy, parts):
    with refused(*parts):
        apply_policy(cfg(), policy)


def test_spaces_are_not_opened_again():
    with refused("row 0 (Conv)", "is a choice"):
        apply_policy({"nc": 2, "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}]]]}, "elastic")
