"""`NASConv` and `NASC3`: decisions, order, and the plain rows that they freeze to."""

import itertools
import random

import pytest

from models import Classifier, Model, count_flops, count_params, read_config
from models.grammar import MODELS
from spaces import Space, freeze
from spaces.nas_rows import kernel_candidates
from tests.refusal import refused

SEARCHABLE = sorted(MODELS.glob("*_nas.yaml"))
# The first search's own file: kernels only, values as strings.
LEGACY = {
    **{"nasconv_0": "0", "nasconv_1": "1", "nasconv_2-1": "1", "nasconv_2-2": "0", "nasconv_3": "1"},
    **{"nasconv_4-1": "1", "nasconv_4-2": "0", "nasconv_5": "0", "nasconv_6-1": "0", "nasconv_6-2": "0"},
    **{"nasconv_7": "0", "nasconv_8-1": "0", "nasconv_8-2": "0"},
}


def _space(*rows, **keys):
    return Space({"nc": 2, "backbone": [list(r) for r in rows], **keys})


@pytest.mark.parametrize(
    ("k", "p", "expected"),
    [
        (6, 2, [(6, 2), (4, 1), (8, 3)]),
        (3, None, [(3, 1), (5, 2)]),
        (1, None, [(1, 0), (3, 1)]),
        (3, 1, [(3, 1), (1, 0), (5, 2)]),
        (5, 2, [(5, 2), (3, 1), (7, 3)]),
        (2, 1, [(2, 1), (4, 2)]),  # k-2 is no kernel
        (6, None, [(6, 3), (8, 4)]),
        (3, 0, [(3, 0), (5, 1)]),  # p-1 is no padding
    ],
)
def test_kernel_candidates(k, p, expected):
    assert kernel_candidates(k, p) == expected


@pytest.mark.parametrize("p", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_candidates_have_one_output_size(k, p):
    assert len({64 + 2 * padding - kernel for kernel, padding in kernel_candidates(k, p)}) == 1


def test_the_searchable_yamls():
    assert {p.stem for p in SEARCHABLE} == {f"yolov5{s}{b}_nas" for s in "nsmlx" for b in ("", "b")}


@pytest.mark.parametrize("path", SEARCHABLE, ids=lambda p: p.stem)
def test_decisions_of_the_shipped_spaces(path):
    space = Space(path)
    depth = space.config.depth_multiple
    repeats = {2: 3, 4: 6, 6: 9, 8: 3}
    expected = {}
    for i in range(9):
        if i in repeats:
            expected[f"c3_{i}"] = (0, 1, 2)
            for j in (1, 2):
                expected[f"nasconv_{i}-{j}"], expected[f"nasconv_{i}-{j}_act"] = (0, 1), (0, 1, 2)
            for j in range(max(round(repeats[i] * depth), 1)):
                expected[f"c3_{i}_m{j}"] = (1, 1.5, 2)
        else:
            expected[f"nasconv_{i}"] = (0, 1, 2) if i == 0 else (0, 1)
            expected[f"nasconv_{i}_act"] = (0, 1, 2)
    assert {label: d.values for label, d in space.decisions.items()} == expected
    assert bool(space.config.raw["head"]) == ("b_nas" not in path.name)


@pytest.mark.parametrize("size", "nsmlx")
def test_the_empty_arch_is_upstreams_network(size):
    plain = read_config(f"models/yolov5{size}.yaml").raw
    assert freeze(f"models/yolov5{size}_nas.yaml", {}) == plain
    assert freeze(f"models/yolov5{size}b_nas.yaml", {})["backbone"] == plain["backbone"]


@pytest.mark.parametrize(
    ("row", "arch", "expected"),
    [
        (["NASConv", [64, 6, 2, 2]], {}, ["Conv", [64, 6, 2, 2]]),
        (["NASConv", [64, 6, 2, 2]], {"nasconv_0": 1}, ["Conv", [64, 4, 2, 1]]),
        (["NASConv", [64, 6, 2, 2]], {"nasconv_0": "2"}, ["Conv", [64, 8, 2, 3]]),
        (["NASConv", [64, 3, 2]], {"nasconv_0": 1}, ["Conv", [64, 5, 2]]),
        (["NASConv", [64, 3, 2, 1]], {"nasconv_0": 0}, ["Conv", [64, 3, 2, 1]]),
        (["NASConv", [64, 3, 2, 1]], {"nasconv_0": 1}, ["Conv", [64, 1, 2]]),
        (["NASConv", [64]], {}, ["Conv", [64]]),
        (["NASConv", [64]], {"nasconv_0": 1}, ["Conv", [64, 3, 1]]),
        (["NASConv", [64, 3, 2]], {"nasconv_0_act": 2}, ["Conv", [64, 3, 2, 1, 1, 1, "nn.ReLU()"]]),
        (["NASConv", [64]], {"nasconv_0_act": "1"}, ["Conv", [64, 1, 1, 0, 1, 1, "nn.Identity()"]]),
        (
            ["NASConv", [64, 6, 2, 2]],
            {"nasconv_0": 2, "nasconv_0_act": 1},
            ["Conv", [64, 8, 2, 3, 1, 1, "nn.Identity()"]],
        ),
        (["NASC3", [64]], {}, ["C3", [64]]),
        (["NASC3", [64, False]], {}, ["C3", [64, False]]),
        (["NASC3", [64]], {"c3_0": 1}, ["C3", [64, True, 1, 0.75]]),
        (["NASC3", [64, False]], {"c3_0": 2}, ["C3", [64, False, 1, 1.0]]),
        (["NASC3", [64]], {"nasconv_0-1": 1}, ["C3", [64, {"cv1_k": 3}]]),
        (["NASC3", [64]], {"nasconv_0-2": 1, "nasconv_0-2_act": 2}, ["C3", [64, {"cv2_k": 3, "cv2_act": "nn.ReLU()"}]]),
        (["NASC3", [64]], {"nasconv_0-1_act": 1}, ["C3", [64, {"cv1_act": "nn.Identity()"}]]),
        (["NASC3", [64]], {"c3_0_m0": 1.5}, ["C3", [64, {"m_e": [1.5, 1]}]]),
        (["NASC3", [64]], {"c3_0_m0": "2", "c3_0_m1": 2}, ["C3", [64, {"m_e": 2}]]),
        (["NASC3", [64]], {"c3_0": 1, "c3_0_m1": 1.5}, ["C3", [64, True, 1, 0.75, {"m_e": [1, 1.5]}]]),
    ],
)
def test_freeze_of_a_row(row, arch, expected):
    number = 2 if row[0] == "NASC3" else 1
    frozen = _space([-1, number, *row]).freeze(arch)["backbone"]
    assert frozen == [[-1, number, *expected]]
    Classifier({"nc": 2, "backbone": frozen})


@pytest.mark.parametrize("channel_multiple", [1, 2, 8])
@pytest.mark.parametrize("c2", [9, 10, 25, 33, 64, 129])
def test_frozen_hidden_width_is_the_spaces(c2, channel_multiple):
    space = _space([-1, 1, "NASC3", [c2]], channel_multiple=channel_multiple)
    for chosen, ratio in enumerate((1.0, 1.5, 2.0)):
        network = Classifier(space.freeze({"c3_0": chosen}))
        hidden = round(ratio * int(0.5 * network.channels[0]))
        assert network.model[0].cv1.conv.out_channels == hidden


@pytest.mark.parametrize(
    ("activation", "default", "written"),
    [
        ("nn.ReLU()", 2, {0: "nn.SiLU()", 1: "nn.Identity()", 2: None}),
        ("nn.SiLU()", 0, {0: None, 1: "nn.Identity()", 2: "nn.ReLU()"}),
    ],
)
def test_absent_activation_is_the_yamls(activation, default, written):
    space = _space([-1, 1, "NASConv", [16]], [-1, 1, "NASC3", [16]], activation=activation)
    assert space.freeze({})["backbone"] == [[-1, 1, "Conv", [16]], [-1, 1, "C3", [16]]]
    assert space.decisions["nasconv_0_act"].default == default
    for index, text in written.items():
        row = space.freeze({"nasconv_0_act": index})["backbone"][0]
        assert row[3] == ([16, 1, 1, 0, 1, 1, text] if text else [16])


def test_activation_that_is_no_candidate_must_be_chosen():
    space = _space([-1, 1, "NASConv", [16]], activation="nn.LeakyReLU(0.1)")
    with refused("'nasconv_0_act' is missing", "valid are 0, 1, 2"):
        space.freeze({})
    assert space.freeze({"nasconv_0_act": 0})["backbone"][0][3][-1] == "nn.SiLU()"


def test_what_upstream_can_say_is_said_in_its_form():
    """Kernels and activations of convolutions and widths of C3 need no more than upstream's positional arguments."""
    space, rng = Space("models/yolov5n_nas.yaml"), random.Random(0)
    upstream = {"Conv": 7, "C3": 4, "SPPF": 2}  # c2 k s p g d act; c2 shortcut g e; c2 k
    for _ in range(20):
        arch = {k: v for k, v in space.sample(rng).items() if "-" not in k and "_m" not in k}
        frozen = space.freeze(arch)
        for _, number, module, args in frozen["backbone"]:
            assert number in (1, 3, 6, 9)
            assert len(args) <= upstream[module]
            assert all(isinstance(a, (int, float, str, bool)) for a in args)
        Model(frozen)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ([-1, 1, "NASConv", []], "takes [c2, k, s, p]"),
        ([-1, 1, "NASConv", [16, 3, 2, 1, 1]], "takes [c2, k, s, p]"),
        ([-1, 1, "NASConv", [16, {"act": False}]], "takes [c2, k, s, p]"),
        ([-1, 1, "NASConv", [16, [3, 3]]], "k must be an integer of at least 1"),
        ([-1, 1, "NASConv", [16, 3, 0]], "s must be an integer of at least 1"),
        ([-1, 1, "NASConv", [16, 3, 1, -1]], "p must be an integer of at least 0"),
        ([-1, 1, "NASConv", ["wide", 3]], "output channels"),
        ([-1, 2, "NASConv", [16, 3]], "number must be 1"),
        ([-1, 1, "NASC3", []], "takes [c2, shortcut]"),
        ([-1, 1, "NASC3", [16, 1]], "takes [c2, shortcut]"),
        ([-1, 1, "NASC3", [16, True, 1]], "takes [c2, shortcut]"),
        ([-1, 0, "NASC3", [16]], "number of repeats"),
    ],
)
def test_wrong_searchable_row(row, part):
    with refused(f"model dict: row 0 ({row[2]})", part):
        _space(row)


@pytest.mark.parametrize(
    ("arch", "parts"),
    [
        ({"nasconv_0": 3}, ["'nasconv_0'", "valid are 0, 1, 2"]),
        ({"nasconv_1": "2"}, ["'nasconv_1'", "valid are 0, 1"]),
        ({"c3_2_m0": 3}, ["'c3_2_m0'", "valid are 1, 1.5, 2"]),
        ({"c3_3": 0}, ["'c3_3' is not of the space", "yolov5s_nas.yaml"]),
        ({"model_29": 1}, ["'model_29'", "model_1 to model_28"]),
        ({"model_0": 1}, ["'model_0'", "model_1 to model_28"]),
        ({"model_1": 3}, ["'model_1'", "valid are 1, 1.5, 2"]),
        ({"model_1": 2, "c3_2": 5}, ["'c3_2'", "valid are 0, 1, 2"]),
    ],
)
def test_label_that_does_not_fit(arch, parts):
    with refused(*parts):
        freeze("models/yolov5s_nas.yaml", arch)


# Arch files of the first search.


@pytest.mark.parametrize("convert", [str, int])
@pytest.mark.parametrize("cfg", ["models/yolov5s_nas.yaml", "dict"])
def test_legacy_arch(cfg, convert):
    cfg = read_config("models/yolov5s_nas.yaml").raw if cfg == "dict" else cfg
    model = Model(freeze(cfg, {k: convert(v) for k, v in LEGACY.items()}))
    assert count_params(model) == 7_481_149
    assert round(count_flops(model, 640) / 2e9, 4) == 10.7334


# Rows 2, 4, 6, 8 of yolov5s repeat 1, 2, 3, 1 times; each counts n for 1.0, n for 1.5, n for 2.0, n unused.
NUMBERS = {
    "c3_2": {0: [1], 1: [2], 2: [3]},
    "c3_4": {0: [5, 6], 1: [7, 8], 2: [9, 10]},
    "c3_6": {0: [13, 14, 15], 1: [16, 17, 18], 2: [19, 20, 21]},
    "c3_8": {0: [25], 1: [26], 2: [27]},
}


@pytest.mark.parametrize("value", [1.5, "2", 1])
@pytest.mark.parametrize(("label", "chosen"), itertools.product(NUMBERS, (0, 1, 2)))
def test_model_k_numbering(label, chosen, value):
    space = Space("models/yolov5s_nas.yaml")
    for j, key in enumerate(NUMBERS[label][chosen]):
        arch = space.complete({label: str(chosen), f"model_{key}": value})
        assert {k: v for k, v in arch.items() if "_m" in k and v != 1} == (
            {f"{label}_m{j}": float(value)} if float(value) != 1 else {}
        )


def test_model_k_of_what_was_not_chosen_means_nothing():
    used = {n for rows in NUMBERS.values() for numbers in rows.values() for n in numbers}
    everything = {f"model_{k}": 2 for k in range(1, 29)}
    space = Space("models/yolov5s_nas.yaml")
    assert {v for k, v in space.complete(everything).items() if "_m" in k} == {2}
    unused = {f"model_{k}": 2 for k in range(1, 29) if k not in used}
    assert len(unused) == 7
    assert space.freeze(unused) == space.freeze({})
    assert space.freeze({f"model_{k}": 2 for k in NUMBERS["c3_6"][1]}) == space.freeze({})
