"""A search that ends in identities, or in the cheapest of everything, says so."""

from experiments.oneshot.collapse import collapse
from spaces import CostModel, Space

SPACE = Space("tests/assets/tiny_nas.yaml")
MODEL = CostModel(SPACE, 64)


def extreme(pick):
    """For every decision the value of least or most FLOPs, the first among equals."""
    base = SPACE.upstream()
    return {
        label: pick(d.values, key=lambda v, label=label: MODEL.of({**base, label: v})["flops"])
        for label, d in SPACE.decisions.items()
    }


def test_identities_are_named():
    arch = {**extreme(max), **{label: 1 for label in SPACE.decisions if label.endswith("_act")}}
    (sign,) = collapse(SPACE, MODEL, arch)
    count = sum(label.endswith("_act") for label in SPACE.decisions)
    assert sign == f"{count} of {count} choices with an Identity took it"


def test_the_cheapest_of_everything_is_named():
    (sign,) = collapse(SPACE, MODEL, extreme(min))
    assert "choices that differ in FLOPs took the cheapest" in sign


def test_a_mixed_arch_is_silent():
    assert collapse(SPACE, MODEL, extreme(max)) == []
