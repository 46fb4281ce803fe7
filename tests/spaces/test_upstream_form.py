"""The part of a space that YOLOv5's own arguments suffice for: its supernet, what searches draw of it, refusals."""

import random
from pathlib import Path

import pytest
import torch

from experiments.multi_trial import options as multi_trial
from experiments.oneshot import options as oneshot
from experiments.supernets.studies import domain_of
from experiments.tasks.task import open_task
from models import Model
from spaces import NASDETECTOR, CostModel, Space, in_upstream_form, slice_weights
from tests.refusal import refused
from tests.spaces.supernets import SMALL, activate, decide, supernet

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WIDE = {"c3_2": 2, "c3_5": 1, "nasconv_0": 1, "nasconv_1_act": 2}


@torch.no_grad()
def test_supernet_is_its_slices_and_its_mixtures():
    net = supernet(NASDETECTOR(in_upstream_form(SMALL)))
    assert [label for label in net.space.decisions if "c3" in label or "-" in label] == ["c3_2", "c3_5"]
    outputs = []
    for chosen in ({}, WIDE):
        arch = {**net.space.upstream(), **chosen}
        raw, state = slice_weights(activate(net, arch), arch)
        assert not any(isinstance(a, dict) for row in raw["backbone"] for a in row[3])
        plain = Model(raw)
        plain.load_state_dict(state)
        outputs.append(net(X)[0])
        torch.testing.assert_close(plain.eval()(X)[0], outputs[-1])
        torch.testing.assert_close(decide(net, arch)(X)[0], outputs[-1])
    assert not torch.allclose(*outputs, rtol=1e-3)


def test_search_draws_that_part_of_a_whole_space():
    model = CostModel(Space(SMALL), 64)
    domain, rng = domain_of(model, ["flops"], [], upstream_form=True), random.Random(0)
    drawn = [domain.arch(domain.draw(rng)) for _ in range(50)]
    part = Space(in_upstream_form(SMALL)).decisions
    assert {label: {a[label] for a in drawn} for label in part} == {k: set(d.values) for k, d in part.items()}
    beyond = model.space.decisions.keys() - part
    assert len(beyond) == 12
    assert all(a[label] == model.space.upstream()[label] for a in drawn for label in beyond)


@pytest.mark.parametrize("options", [oneshot.Options, multi_trial.Options])
def test_option_of_searches_leaves_that_part(options):
    cfg = str(Path(__file__).parents[1] / "assets/tiny_nas.yaml")
    given = {"cfg": cfg, "data": "digits", "imgsz": 32, "batch": 16, "device": "cpu"}
    space, _, _ = open_task(options(**given, upstream_form=True))
    assert space.decisions.keys() == Space(in_upstream_form(cfg)).decisions.keys() < Space(cfg).decisions.keys()


def test_again_it_is_the_same():
    once = in_upstream_form("yolov5n_bignas.yaml")
    assert in_upstream_form(once) == once != Space("yolov5n_bignas.yaml").config.raw
    assert in_upstream_form(in_upstream_form(SMALL)) == in_upstream_form(SMALL)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 1, "MBConv", [16, {"choice": [3, 5]}]], "YOLOv5 has no such module"),
        ([-1, 1, "C3", [32, {"m_e": {"choice": [1, 2]}}]], "takes no m_e; right would be c2, shortcut, g, e"),
    ],
)
def test_rows_that_are_never_in_that_form_are_refused(row, message):
    with refused(f"row 3 ({row[2]})", message):
        in_upstream_form({**SMALL, "backbone": [*SMALL["backbone"][:3], row, *SMALL["backbone"][4:]]})
