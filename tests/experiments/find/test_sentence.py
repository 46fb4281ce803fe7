"""What is said on the way."""

from types import SimpleNamespace

from experiments.find.sentence import best_so_far


def test_best_so_far():
    results = {}
    job = SimpleNamespace(results=results)
    assert best_so_far(job) == ""
    results["baselines"] = {"networks": {"yolov5n": {"map50_95": 0.5}, "yolov5s": {"map50_95": 0.55}}}
    assert best_so_far(job) == "best so far: plain yolov5s, mAP50-95 0.550 of validation"
    found = {"yolov5n": {"kind": "plain", "map50_95": 0.52}, "searched1": {"kind": "searched", "map50_95": 0.61}}
    results |= {"finetune": {"candidates": found}, "equal": {}}
    assert best_so_far(job) == "best so far: searched1, mAP50-95 0.610 of validation"
    results["long"] = {"candidates": {"searched1": {"kind": "searched", "map50_95": 0.62}}}
    assert best_so_far(job) == "best so far: searched1, mAP50-95 0.620 of validation"
    results["equal"] = {"candidates": {"yolov5n-equal": {"kind": "plain", "map50_95": 0.63}}}
    assert best_so_far(job).startswith("best so far: plain yolov5n-equal, ")
