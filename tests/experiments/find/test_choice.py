"""What is searched, finetuned and handed over, of figures alone."""

import pytest

from experiments.find.baselines import begins, still_learning
from experiments.find.bases import space_around, with_sizes
from experiments.find.choice import Candidate, choose
from experiments.find.finetune import promising
from experiments.find.measure import aimed_at, choose_sides, ladder, search_cost, usable
from experiments.find.options import Options
from experiments.find.search import finalists, plain_archs, ranges
from models.files import save_model_yaml
from models.grammar import read_config
from spaces import Space


def candidate(name, score, latency, plain=False, params=1e6):
    return Candidate(name, plain, score, {"latency": latency, "flops": 1e9 * latency, "params": params})


PLAIN = candidate("plain", 0.5, 8.0, plain=True)


def test_the_best_within_the_limit_is_chosen_and_compared_with_the_plain_one():
    found = choose([PLAIN, candidate("s1", 0.6, 7.9), candidate("s2", 0.9, 12.0)], {"latency": 8.0})
    assert (found.name, found.plain, found.rival) == ("s1", "plain", "plain")
    assert "s1 0.600 at 7.9 ms, plain plain 0.500 at 8 ms" in found.said


@pytest.mark.parametrize(("score", "latency"), [(0.5, 8.0), (0.4, 7.0)])
def test_the_plain_one_is_handed_over_where_none_is_better(score, latency):
    found = choose([candidate("s1", score, latency), PLAIN], {"latency": 8.0})
    assert (found.name, found.plain, found.rival) == ("plain", "plain", "s1")
    assert found.said.startswith("no searched network beats the plain one at that cost; the plain one is handed over")


def test_of_equals_the_cheapest_is_handed_over():
    nets = [PLAIN, candidate("s1", 0.498, 5.0), candidate("s2", 0.496, 6.0), candidate("s3", 0.49, 1.0)]
    assert choose(nets, {}).name == "s1"
    assert choose([PLAIN, candidate("s1", 0.504, 9.0)], {}).name == "plain"
    assert choose([PLAIN, candidate("s1", 0.504, 8.0)], {}).name == "plain"
    assert choose([PLAIN, candidate("s1", 0.506, 9.0)], {}).name == "s1"


def test_a_limit_that_no_plain_network_keeps():
    found = choose([PLAIN, candidate("s1", 0.3, 3.0)], {"latency": 4.0})
    assert (found.name, found.plain, found.rival) == ("s1", "plain", "plain")
    assert "no plain network keeps latency 4 ms" in found.said


def test_what_nothing_keeps_is_said_and_the_nearest_handed_over():
    found = choose([PLAIN, candidate("s1", 0.3, 5.0)], {"latency": 4.0})
    assert found.name == "s1"
    assert found.said == "none of what was trained keeps latency 4 ms, measured again; s1 is the nearest"


def test_a_limit_is_one_and_what_is_searched_keeps_some_distance_from_a_latency():
    assert choose([PLAIN, candidate("s1", 0.6, 8.01)], {"latency": 8.0}).name == "plain"
    assert aimed_at({"latency": 100.0, "flops": 1e9}) == {"latency": 97.0, "flops": 1e9}


def test_min_map_takes_the_fastest_that_has_it():
    nets = [PLAIN, candidate("s1", 0.6, 7.0), candidate("s2", 0.52, 4.0), candidate("s3", 0.4, 2.0)]
    found = choose(nets, {}, min_map=0.5)
    assert (found.name, found.rival) == ("s2", "plain")
    found = choose(nets, {}, min_map=0.7)
    assert found.name == "s1"
    assert found.said == "none of what was trained has mAP50-95 0.7 on the validation images; s1 is the best"


def rows(*told):
    return [{"trial": i, "rated": r, "latency": t, "front": front, "arch": {}} for i, (r, t, front) in enumerate(told)]


def test_finalists_are_the_best_of_the_front_then_others():
    found = rows((0.5, 5, True), (0.7, 9, True), (0.1, 1, True), (0.69, 9.5, False))
    assert [r["trial"] for r in finalists(found, 2, "latency", None)] == [1, 0]
    assert [r["trial"] for r in finalists(found, 4, "latency", None)] == [1, 0, 2, 3]


def test_finalists_are_of_several_sides():
    found = rows((0.5, 5, True), (0.7, 9, True), (0.69, 8, True), (0.1, 1, True), (0.6, 9.5, False))
    for row, side in zip(found, (256, 192, 192, 192, 256), strict=True):
        row["arch"] = {"resolution": side}
    assert [r["trial"] for r in finalists(found, 2, "latency", None)] == [1, 4]
    assert [r["trial"] for r in finalists(found, 4, "latency", None)] == [1, 4, 2, 0]


def test_what_has_too_many_flops_to_be_fast_enough_is_not_timed():
    plain = {"64": {"latency": 2.0, "flops": 1e8}, "96": {"latency": 4.0, "flops": 2.5e8}}
    found = ranges({"latency": 10.0}, plain)
    assert found["latency"] == pytest.approx(9.7)
    assert found["flops"] == pytest.approx(9.7 / (0.8 * 4.0 / 2.5e8))
    assert ranges({"latency": 10.0, "flops": 1e8}, plain)["flops"] == 1e8
    assert ranges({"params": 1e6}, plain) == {"params": 1e6}
    assert ranges({"latency": 10.0}, {}) == {"latency": pytest.approx(9.7)}, "of a board"


def test_a_search_begins_with_the_plain_network_at_every_side(tmp_path):
    space = with_sizes(space_around(dict(read_config("yolov5n_dfl.yaml").raw), 3), [320, 256], 256)
    save_model_yaml(space, tmp_path / "space.yaml")
    upstream = Space(space).upstream()
    assert plain_archs(tmp_path / "space.yaml") == [upstream, {**upstream, "resolution": 320}]


def test_the_most_promising_of_a_kind_is_trained_on():
    found = {n: {"map50_95": m, "told": t} for n, m, t in (("a", 0.5, 8.0), ("b", 0.6, 9.0), ("c", 0.55, 4.0))}
    assert promising(found, None) == "b"
    assert promising(found, 0.52) == "c"
    assert promising(found, 0.9) == "b"


def test_finalists_for_a_map_are_the_fastest_that_has_it_and_the_next_faster():
    found = rows((0.5, 5, True), (0.7, 9, True), (0.1, 1, True), (0.4, 3, True))
    assert [r["trial"] for r in finalists(found, 2, "latency", 0.5)] == [0, 3]
    assert [r["trial"] for r in finalists(found, 2, "latency", 0.9)] == [1, 0]


MEASURED = {
    160: {"latency": 2, "flops": 1e8, "params": 1e6},
    320: {"latency": 8, "flops": 4e8, "params": 1e6},
    480: {"latency": 18, "flops": 9e8, "params": 1e6},
    640: {"latency": 32, "flops": 16e8, "params": 1e6},
}


@pytest.mark.parametrize(
    ("limits", "side", "sides"),
    [
        ({"latency": 8}, 320, [160, 320, 480]),
        ({"latency": 1}, 160, [160, 320]),
        ({"latency": 99}, 640, [480, 640]),
        ({"flops": 9e8}, 480, [320, 480, 640]),
        ({"params": 2e6}, 640, [480, 640]),
        ({"latency": 20, "flops": 4e8}, 320, [160, 320, 480]),
        ({}, 640, [480, 640]),
    ],
)
def test_sides_around_the_limit_are_searched(limits, side, sides):
    assert choose_sides(MEASURED, limits) == (side, sides)


def test_networks_that_need_far_too_small_images_are_left_out():
    assert usable({"n": 640, "s": 320}, 640) == ["n", "s"]
    assert usable({"n": 416, "s": 224}, 640) == ["n"]
    assert usable({"n": 256, "s": 256}, 640) == ["n"]
    assert usable({}, 640) == []


def test_ladder_and_cost():
    assert ladder(640, 32) == [256, 320, 416, 512, 640]
    assert ladder(64, 16) == [32, 48, 64]
    assert search_cost(Options(data="d")) == "latency"
    assert search_cost(Options(data="d", max_flops=1e9)) == "flops"
    assert search_cost(Options(data="d", max_flops=1e9, max_latency=3)) == "latency"


def test_a_network_whose_last_epochs_are_its_best_is_still_learning():
    assert still_learning({"best_epoch": 95, "epochs": 100})
    assert not still_learning({"best_epoch": 70, "epochs": 100})


def test_the_search_begins_with_the_best_within_the_limits():
    nets = {"n": {"side": 640, "map50_95": 0.4}, "s": {"side": 320, "map50_95": 0.5}}
    costs = {"n": {"640": {"latency": 8}}, "s": {"320": {"latency": 9}}}
    assert begins(nets, costs, {"latency": 10}, None) == "s"
    assert begins(nets, costs, {"latency": 8.5}, None) == "n"
    assert begins(nets, costs, {}, 0.3) == "n"
    assert begins(nets, costs, {}, 0.45) == "s"


def test_spaces_are_shipped_ones_or_laid_over_the_checkpoint_with_its_head():
    plain = read_config("yolov5n.yaml").raw
    own = Space("yolov5n_bignas.yaml")
    assert space_around(dict(plain), 3)["backbone"] == own.config.raw["backbone"]
    dfl = space_around(dict(read_config("yolov5n_dfl.yaml").raw), 3)
    assert dfl["head"][-1][2:] == read_config("yolov5n_dfl.yaml").raw["head"][-1][2:]
    assert Space(dfl).decisions
    sized = with_sizes(dfl, [320, 256], 256)
    assert Space(sized).decisions["resolution"].values == (256, 320)
    assert Space(sized).upstream()["resolution"] == 256
    assert with_sizes(dfl, [320], 320) == dfl
