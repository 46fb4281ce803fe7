"""The front as a picture: its axes and what is under the pointer say units."""

import numpy as np
import pytest

from experiments.run.amounts import titled
from experiments.supernets.plots import Shown, _hover, plot_front

ROW = {"trial": 3, "accuracy": 0.75, "flops": 4_500_000_000, "latency": 2.25, "energy": 12.5, "front": True, "arch": {}}


@pytest.mark.parametrize(
    ("name", "unit", "title"),
    [
        ("latency", "", "latency, ms"),
        ("latency", "ms", "latency, ms"),
        ("edge_latency", "ms", "edge_latency, ms"),
        ("flops", "", "FLOPs"),
        ("params", "", "parameters"),
    ],
)
def test_titles(name, unit, title):
    assert titled(name, unit) == title


def test_the_front_says_units(tmp_path):
    shown = Shown("accuracy", "energy", {"nsga3": [ROW]}, {"nsga3": np.array([1.0])}, 3, {"energy": "mJ"})
    plot_front(tmp_path / "front.html", shown)
    page = (tmp_path / "front.html").read_text()
    assert "accuracy against energy, mJ" in page
    assert '"title":{"text":"energy, mJ"}' in page
    assert shown._replace(cost="latency").cost_title == "latency, ms"
    assert shown._replace(cost="flops").unit == ""


def test_what_is_under_the_pointer_says_units():
    lines = _hover(ROW, {"energy": "mJ", "latency": "ms", "flops": ""}).split("<br>")
    assert lines == ["trial 3", "accuracy: 0.7500", "flops: 4.5G", "latency: 2.25 ms", "energy: 12.5 mJ"]
