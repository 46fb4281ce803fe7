"""A detector that cannot learn eight images by heart has a fault in its loss, its loop or its measurement."""

import json
from pathlib import Path

import pytest
import yaml

import train

ROOT = Path(__file__).resolve().parents[3]
BCCD = ROOT.parent / "shared/data/bccd/BCCD"
BY_HEART = ["--batch", "8", "--device", "cpu", "--no-augment", "--optimizer", "adamw", "--lr0", "0.005"]


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"BCCD is not at {BCCD}")
def test_learns_eight_photographs_of_blood_by_heart(script, tmp_path):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).symlink_to(BCCD / name)
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    first = (BCCD / "ImageSets/Main/train.txt").read_text().split()[:8]
    (lists / "eight.txt").write_text("\n".join(first))
    names = ["Platelets", "RBC", "WBC"]
    content = {"path": str(tmp_path), "format": "voc", "train": "eight", "val": "eight", "names": names}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    train = script(tmp_path, "--cfg", "yolov5n.yaml", "--data", "data.yaml", "--imgsz", "160", *BY_HEART)
    code, _, err = train.run("--epochs", "180")
    assert code == 0, err
    best = json.loads((tmp_path / "runs/train/exp/results.json").read_text())["best"]
    assert best["map50"] > 0.95
    assert best["map50_95"] > 0.7
    assert set(best["classes"]) == set(names)


def test_learns_eight_images_of_digits_by_heart(call, digits, tiny_cfg, tmp_path):
    """By a small detector: half way its mAP50-95 is 0.5."""
    given = ["--cfg", tiny_cfg, "--data", digits(8, 64), "--imgsz", "64", *BY_HEART]
    code, _, err = call(train, *given, "--epochs", "180")
    assert code == 0, err
    best = json.loads((tmp_path / "runs/train/exp/results.json").read_text())["best"]
    assert best["map50"] > 0.95
    assert best["map50_95"] > 0.7
