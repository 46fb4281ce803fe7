import pytest

from models import InputError, Model, count_params, read_config
from spaces import Space
from spaces.choices import Decision, Follow, read_choice
from tests.refusal import refused


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        ([1, 3, 1], (1, 2, 3)),
        ([96, 160, 32], (96, 128, 160)),
        ([96, 150, 32], (96, 128)),
        ([5, 5, 1], (5,)),
        ([0.1, 0.3, 0.1], (0.1, 0.2, 0.3)),
        ([0.5, 1, 0.25], (0.5, 0.75, 1.0)),
        ([-2, 2, 2], (-2, 0, 2)),
    ],
)
def test_range_is_inclusive(bounds, values):
    decision = read_choice({"range": bounds}, "x")
    assert decision.values == values
    assert {type(v) for v in decision.values} == {type(v) for v in values}


def test_labels():
    assert read_choice({"choice": [1, 2]}, "row3.0").label == "row3.0"
    assert read_choice({"choice": [1, 2], "label": "mine"}, "row3.0").label == "mine"
    assert not read_choice({"choice": [1, 2]}, "x").has_default


def test_table_follows():
    follow = read_choice({"table": {1: 4, 2: 6}, "by": "depth"}, "x")
    assert isinstance(follow, Follow)
    assert follow.value({"depth": 2}) == 6


@pytest.mark.parametrize(
    ("values", "given", "own"),
    [
        ((0, 1, 2), "1", 1),
        ((0, 1, 2), 1, 1),
        ((0, 1, 2), 1.0, 1),
        ((1, 1.5, 2), "1.50", 1.5),
        ((1, 1.5, 2), "2", 2),
        (("nearest", "bilinear"), "bilinear", "bilinear"),
        ((True, False), "False", False),
        ((8, None), None, None),
    ],
)
def test_match_gives_the_spaces_own_value(values, given, own):
    result = Decision("x", values).match(given)
    assert result == own
    assert type(result) is type(own)


@pytest.mark.parametrize("given", [3, "3", "one", None, [0], {}, float("nan"), ""])
def test_what_does_not_match_names_label_and_values(given):
    with refused("'nasconv_0'", repr(given), "valid are 0, 1, 2"):
        Decision("nasconv_0", (0, 1, 2)).match(given)


@pytest.mark.parametrize(
    ("mapping", "part"),
    [
        ({"choice": []}, "one or more values"),
        ({"choice": 3}, "one or more values"),
        ({"choice": [[1], [2]]}, "one or more values"),
        ({"choice": [1, 1]}, "a value twice"),
        ({"choice": [1, 2], "plain": 3}, "plain is 3, which is none of [1, 2]"),
        ({"table": {1: 2}, "by": "x", "plain": 1}, "a choice has the keys"),
        ({"choice": [8, 8.0]}, "a value twice"),
        ({"choice": [1, "1"]}, "a value twice"),
        ({"choice": [1], "range": [1, 2, 1]}, "a choice has the keys"),
        ({"choice": [1], "lable": "x"}, "lable"),
        ({"choice": [1], "label": 3}, "a label is a name without '/', got 3"),
        ({"choice": [1], "label": ""}, "a label is a name"),
        ({"choice": [1], "label": "fpn/c"}, "got 'fpn/c'"),
        ({"range": [1, 3]}, "[min, max, step]"),
        ({"range": [3, 1, 1]}, "min <= max"),
        ({"range": [1, 3, 0]}, "step > 0"),
        ({"range": [1, 3, -1]}, "step > 0"),
        ({"range": ["1", "3", "1"]}, "[min, max, step]"),
        ({"range": [1, float("inf"), 1]}, "[min, max, step]"),
        ({"range": [True, 3, 1]}, "[min, max, step]"),
        ({"table": {}, "by": "x"}, "a table is written"),
        ({"table": {1: 2}}, "a table is written"),
        ({"table": [1, 2], "by": "x"}, "a table is written"),
        ({"table": {1: 2}, "by": "x", "label": "y"}, "a choice has the keys"),
    ],
)
def test_wrong_choice(mapping, part):
    with refused(part):
        read_choice(mapping, "x")


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
def test_plain_yolov5_is_the_upstream_arch_of_its_elastic_space(name):
    space = Space(f"{name}_bignas.yaml")
    mine, theirs = read_config(space.freeze(space.upstream())), read_config(f"{name}.yaml")
    for a, b in zip(mine.rows, theirs.rows, strict=True):
        assert (a.source, a.number, a.module) == (b.source, b.number, b.module)
        assert list(a.args[: len(b.args)]) == list(b.args)
    assert count_params(Model(mine)) == count_params(Model(theirs))


def test_equal_labels_have_one_plain_value():
    row = [-1, 1, "Conv", [{"choice": [8, 16], "label": "w", "plain": 16}]]
    assert Space({"backbone": [row, row]}).upstream() == {"w": 16}
    other = [-1, 1, "Conv", [{"choice": [8, 16], "label": "w"}]]
    with pytest.raises(InputError, match="label 'w' has the plain value 8, but elsewhere 16"):
        Space({"backbone": [row, other]})
