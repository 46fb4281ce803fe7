"""The sides of the images that are searched."""

from types import SimpleNamespace

import pytest
import yaml

from experiments.find.options import Options
from experiments.find.supernet import _restricted, worth
from spaces import Space


@pytest.mark.parametrize(
    ("at", "own", "kept"),
    [
        ({"32": 0.13, "64": 0.63, "96": 0.5}, 64, [64, 96]),
        ({"32": 0.32, "64": 0.63, "96": 0.5}, 64, [32, 64, 96]),
        # A larger one is what a narrower network may need.
        ({"32": 0.5, "64": 0.63, "96": 0.0}, 32, [32, 64, 96]),
        ({"32": 0.0, "64": 0.0, "96": 0.0}, 64, [32, 64, 96]),
        ({"32": 0.1, "64": 0.2, "96": 0.6}, 96, [96]),
    ],
)
def test_a_side_at_which_the_plain_network_sees_nothing_is_not_searched(at, own, kept):
    assert worth([32, 64, 96], at, own) == kept


def job(tmp_path, tiny_cfg, at, **options):
    raw = yaml.safe_load(tiny_cfg.read_text())
    (tmp_path / "spaces").mkdir()
    space = raw | {"resolution": {"choice": [32, 64, 96], "plain": 64}}
    (tmp_path / "spaces/n.yaml").write_text(yaml.safe_dump(space))
    results = {
        "measure": {"sides": {"n": [32, 64, 96]}},
        "baselines": {"networks": {"n": {"at": at, "side": 64}}},
    }
    said = []
    found = SimpleNamespace(options=Options(data="d", **options), path=tmp_path, results=results, note=said.append)
    return found, said


def test_the_space_is_written_anew_and_a_resume_does_it_again(tmp_path, tiny_cfg):
    given, said = job(tmp_path, tiny_cfg, {"32": 0.1, "64": 0.6, "96": 0.5})
    before = yaml.safe_load((tmp_path / "spaces/n.yaml").read_text())
    for _ in range(2):
        assert _restricted(given, "n") == [64, 96]
        after = yaml.safe_load((tmp_path / "spaces/n.yaml").read_text())
        assert after == before | {"resolution": {"choice": [64, 96], "plain": 64}}
    assert Space(tmp_path / "spaces/n.yaml").upstream()["resolution"] == 64
    assert said[0].startswith("sides 32: ")


def test_sides_that_were_asked_for_are_searched(tmp_path, tiny_cfg):
    given, said = job(tmp_path, tiny_cfg, {"32": 0.1, "64": 0.6, "96": 0.5}, sizes=[32, 64, 96])
    assert _restricted(given, "n") == [32, 64, 96]
    assert not said
