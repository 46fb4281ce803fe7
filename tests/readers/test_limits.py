"""What is too much is refused for its reason, before anything is built; what is large and of sense is not."""

import resource
import time

import pytest
import torch

from models import Model, limits
from models.documents import check_plain, parse_json, parse_yaml
from models.grammar import read_config
from models.network import Network
from spaces import Space
from tests.refusal import refused

from .hostile import alias_bomb

ROW = [-1, 1, "Conv", [16, 3, 2]]


def _cfg(*rows, **more):
    head = [[[max(len(rows), 1) - 1], 1, "Detect", ["nc", "anchors"]]]
    return {"nc": 2, "anchors": 1, "backbone": [*rows] or [ROW], "head": head, **more}


TOO_MUCH = {
    "repeats": (_cfg(ROW, [-1, 10**9, "C3", [16]]), ["row 1 (C3)", "1,000,000,000 repeats"]),
    "repeats of all rows": (_cfg(ROW, *[[-1, 900, "nn.BatchNorm2d", []]] * 3), ["row 3", "2,701 repeats"]),
    "repeats by the multiple": (_cfg([-1, 3, "Conv", [16]], depth_multiple=1e8), ["row 0", "repeats"]),
    "rows": (_cfg(*[ROW] * 5000), ["5,000 rows", "1,000 at most"]),
    "classes": (_cfg(nc=10**9), ["nc must be a positive integer, 100000 at most", "1000000000"]),
    "input channels": (_cfg(ch=10**9), ["ch must be a positive integer, 4096 at most"]),
    "anchors": (_cfg(anchors=10**9), ["anchors must be a number"]),
    "channels": (_cfg([-1, 1, "Conv", [10**9, 3, 2]]), ["row 0 (Conv)", "needs a tensor of 1000000000x3x3x3"]),
    "channels by the multiple": (_cfg(width_multiple=1e8), ["row 0 (Conv)", "needs a tensor of"]),
    "endless channels": (_cfg([-1, 1, "Conv", [float("inf")]]), ["output channels must be a positive number"]),
    "kernel": (_cfg([-1, 1, "Conv", [16, 10**6]]), ["row 0 (Conv)", "needs a tensor of"]),
    "parameters of several rows": (
        _cfg([-1, 1, "Conv", [5000, 1]], *[[-1, 1, "Conv", [5000, 3]]] * 2),
        ["row 2 (Conv)", "needs a tensor of 5000x5000x3x3", "a network has 268,435,456 parameters at most"],
    ),
    "tensors": (
        _cfg(ROW, [-1, 1, "RepNCSPELAN4", [16, 16, 8, 10**9]]),
        ["row 1 (RepNCSPELAN4)", "needs more tensors than the 10,000"],
    ),
    "bins": (_cfg(reg_max=10**9, anchors=None, head=[[[0], 1, "Detect", ["nc"]]]), ["row 1"]),
    "whole number": (_cfg([-1, 1, "Conv", [10**400]]), ["whole number of 1329 bits"]),
    "not a number": (_cfg(width_multiple=float("nan")), ["width_multiple must be a positive number, got nan"]),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_network(kind):
    cfg, parts = TOO_MUCH[kind]
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(*parts):
        Model(cfg)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB


SPACES = {
    "values of a range": ({"range": [1, 10**6, 1]}, "has more than 1,000 values"),
    "values of a fine range": ({"range": [0, 1, 1e-320]}, "has more than 1,000 values"),
    "values of a choice": ({"choice": list(range(1, 5000))}, "a choice of 4,999 values"),
}


@pytest.mark.parametrize("kind", SPACES)
def test_a_space(kind):
    choice, says = SPACES[kind]
    with refused("row 0 (Conv)", says):
        Space(_cfg([-1, 1, "Conv", [choice, 3, 2]]))


def test_decisions_of_a_space():
    rows = [[-1, 1, "Conv", [{"choice": [8, 16]}, {"choice": [1, 3]}]]] * 600
    with refused("row 500 (Conv)", "more than 1,000 decisions"):
        Space(_cfg(*rows))


def test_a_supernet_may_hold_more_than_a_network():
    assert limits.SUPERNET_PARAMETERS > limits.PARAMETERS > 144_000_000  # YOLOv5's P7 with width x


def test_what_shapes_need_is_not_computed():
    """A forward for real would take 34 GB for the first row alone."""
    config = read_config({"backbone": [[-1, 1, "Conv", [2048, 3, 1]], [-1, 1, "Conv", [8, 1, 2]]], "ch": 3})
    network = Network()
    network.build(config)
    assert network.reductions(2048) == [1, 2]


class _Looks(torch.nn.Module):
    """As a plug-in's may: what it does depends on numbers."""

    def forward(self, x):
        return x if x.sum().item() >= 0 else -x


def test_a_module_that_looks_at_numbers_is_given_some():
    network = Network()
    network.build(read_config({"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.BatchNorm2d", []]], "ch": 3}))
    network.model[1] = _Looks()
    assert network.reductions(64) == [2, 2]


YAML = {
    "aliases": (alias_bomb("names").decode(), "more than 100,000 values"),
    "merged": ("a: &a {x: 1}\nb: &b {<<: [" + "*a, " * 60_000 + "*a]}", "more than 100,000 values"),
    "itself": ("a: &a [1, *a]", "line 1: not valid YAML: *a stands within what it names"),
    "itself as a key": ("&a {? *a : 1}", "*a stands within what it names"),
    "nesting": ("a: " + "[" * 3000, "nested more than 50 levels deep"),
    "digits": ("a: " + "9" * 5000, "a number of 5,000 characters"),
    "base 60": ("a: 1" + ":59" * 20_000, "a number of 60,001 characters"),
    "base 16": ("a: 0x" + "f" * 90, "is beyond any whole number"),
    "size": ("a: " + "x" * (2 << 20), "a YAML has 1,048,576 at most"),
}


@pytest.mark.parametrize("kind", YAML)
def test_a_yaml(kind):
    text, says = YAML[kind]
    with refused("a.yaml", says):
        parse_yaml(text, "a.yaml")


def test_aliases_of_sense_are_no_bombs():
    text = "a: &a [1, 2]\nb: [*a, *a]\nc: &c {x: *a}\nd: {<<: *c, y: 1}"
    assert parse_yaml(text, "f") == {"a": [1, 2], "b": [[1, 2]] * 2, "c": {"x": [1, 2]}, "d": {"x": [1, 2], "y": 1}}


def test_a_yaml_of_imagenets_names_is_read():
    names = {i: f"name {i}" for i in range(21_841)}
    assert parse_yaml("names:\n" + "".join(f"  {k}: {v}\n" for k, v in names.items()), "f") == {"names": names}


def test_json_that_is_nested():
    with refused("a.json", "nested too deep"):
        parse_json("[" * 100_000, "a.json")


def test_values_are_counted_as_often_as_they_stand():
    shared = [1, 2]
    check_plain([shared] * 1000, "f", 3001)
    with refused("f: more than 3,000 values"):
        check_plain([shared] * 1000, "f", 3000)
    for _ in range(30):
        shared = [shared] * 9
    with refused("f: more than"):
        check_plain(shared, "f")
