"""Classes by their names: what a list of them may hold, and outputs in another order of them."""

import pytest
import torch

from models import Model, read_config
from models.classes import class_layers, difference, in_order, order_of, pairs, read_names
from models.classifier import Classifier
from models.documents import parse_yaml
from models.errors import InputError
from models.grammar import load_yaml

BACKBONE = [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]]]
ANCHORS = {
    "backbone": BACKBONE,
    "head": [[[0, 1], 1, "Detect", ["nc", "anchors"]]],
    "anchors": [[8, 10, 12, 16], [20, 24, 28, 36]],
}
DFL = {"backbone": BACKBONE, "head": [[[0, 1], 1, "Detect", ["nc"]]], "reg_max": 4}
END2END = {**DFL, "end2end": True}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("[yes, no]", "class 0 is True"),
        ("[a, null]", "class 1 is None"),
        ("[~]", "class 0 is None"),
        ("[010, a]", "YAML reads 010 (class 0) as 8; right would be quotes, '010'"),
        ("{0: a, 1: 0x1F}", "YAML reads 0x1F (class 1) as 31"),
        ("[1_000]", "YAML reads 1_000"),
        ("[12:30]", "YAML reads 12:30 (class 0) as 750"),
        ("[1.5]", "class 0 is 1.5"),
        ("[.nan]", "class 0 is nan"),
        ("[2024-01-01]", "class 0 is datetime.date"),
        ("[[a, b]]", "class 0 is ['a', 'b']"),
        ("['']", "class 0 is ''"),
        ("[a, b, a]", "'a' is the name of classes 0, 2"),
        ("['1', 1]", "'1' is the name of classes 0, 1"),
        ("{1: a, 2: b}", "numbered 0 to 1"),
        ("{no: a, 1: b}", "numbered 0 to 1"),
        ("-1", "a list of the classes"),
        ("cat", "a list of the classes"),
        ("[]", "a list of the classes"),
    ],
)
def test_names_that_are_not_what_they_seem_are_refused(written, says):
    with pytest.raises(InputError) as found:
        read_names(parse_yaml(f"names: {written}", "data.yaml")["names"], "data.yaml")
    assert str(found.value).startswith("data.yaml: names")
    assert says in str(found.value)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[a, 'yes', '010', 7, -3]", ("a", "yes", "010", "7", "-3")),
        ("{1: b, 0: a}", ("a", "b")),
        ("[ein Hund]", ("ein Hund",)),
    ],
)
def test_names(written, names):
    assert read_names(parse_yaml(f"names: {written}", "data.yaml")["names"], "data.yaml") == names


def test_names_of_a_model_yaml_are_read_alike(tmp_path):
    (tmp_path / "a.yaml").write_text("nc: 0x2\nbackbone: []\nnames: [010, a]\n")
    raw = load_yaml(tmp_path / "a.yaml")
    assert type(raw["nc"]) is int
    for names, says in ((raw["names"], "YAML reads 010"), (-1, "a list of the classes"), ([True, False], "is True")):
        with pytest.raises(InputError, match=says):
            read_config({**ANCHORS, "nc": 2, "names": names})
    assert Model({**ANCHORS, "nc": 2, "names": [1, "b"]}).names == {0: "1", 1: "b"}


def test_classes_go_by_name():
    assert pairs(["a", "b", "c"], ["c", "d", "a"]) == [(2, 0), (0, 2)]
    assert order_of(["a", "b", "c"], ["c", "a", "b"]) == [2, 0, 1]
    assert order_of(["a", "b"], ["a", "c"]) is None
    assert order_of(["a", "b"], ["a"]) is None
    assert difference(["a", "b"], ["a", "c"]) == "has c and lacks b"
    assert difference(["a", "b"], ["a"]) == "lacks b (1 class for 2)"


def test_classes_without_names_go_by_number_where_they_are_as_many():
    assert order_of(["class0", "class1"], ["b", "a"]) == [0, 1]
    assert order_of(["b", "a"], ["class0", "class1"]) == [0, 1]
    assert order_of(["class0", "class1"], ["b"]) is None


@pytest.mark.parametrize("cfg", [ANCHORS, DFL, END2END], ids=["anchors", "dfl", "end2end"])
def test_outputs_in_another_order(cfg):
    """Class scores of the reordered network are those of the first, at the other places; boxes are the same."""
    order = [2, 0, 1]
    model = Model({**cfg, "nc": 3}).eval()
    for parameter in model.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    other = Model({**cfg, "nc": 3}).eval()
    other.load_state_dict(in_order(model.state_dict(), model, order))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        if cfg is END2END:
            first, second = (m.train()(x) for m in (model, other))
            assert len(class_layers(model)) == 4
            a, b = (torch.cat([level[:, -3:].flatten(2) for level in levels], 2) for levels in (first, second))
            assert torch.allclose(b, a[:, order])
            return
        a, b = (m(x)[0] for m in (model, other))
    assert torch.allclose(b[..., :-3], a[..., :-3])
    assert torch.allclose(b[..., -3:], a[..., -3:][..., order])
    assert not torch.allclose(a, b)


def test_outputs_of_a_classifier_in_another_order():
    model = Classifier({"backbone": BACKBONE}, 3).eval()
    other = Classifier({"backbone": BACKBONE}, 3).eval()
    other.load_state_dict(in_order(model.state_dict(), model, [1, 2, 0]))
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(other(x), model(x)[:, [1, 2, 0]])


def test_a_head_that_does_not_say_whose_outputs_are_whose_is_not_reordered(monkeypatch):
    model = Model({**ANCHORS, "nc": 2})
    monkeypatch.setattr(type(model.head), "by_class", lambda self: {})
    state = model.state_dict()
    assert in_order(state, model, [0, 1]).keys() == state.keys()
    with pytest.raises(InputError, match="does not say which of its outputs"):
        in_order(state, model, [1, 0])
