"""Landmarks as a task: losses and NME by hand, and from a search to a file that is measured and finetuned."""

import json
import math

import pytest
import torch

import export
import oneshot_nas
import train
import val
from experiments.run.cli import run_script
from experiments.tasks.landmarks import LandmarksModule, landmark_loss, nme, score, wing
from models.files import kind_of, load_classifier
from tests.data.test_landmarks import a_set

SPACE = """
activation: nn.ReLU6()
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, MBConv, [8, {choice: [3, 5]}, 2, {choice: [0, 1, 3]}]]
"""


def test_wing_is_logarithmic_then_linear_and_continuous():
    width, curve = 10 / 256, 2 / 256
    assert float(wing(torch.tensor(0.0))) == 0
    assert float(wing(torch.tensor(-curve))) == pytest.approx(width * math.log(2))
    below, above = (float(wing(torch.tensor(width + d))) for d in (-1e-6, 1e-6))
    assert above == pytest.approx(below, abs=1e-5)
    assert float(wing(torch.tensor(0.5))) - float(wing(torch.tensor(0.4))) == pytest.approx(0.1, abs=1e-6)


def test_loss_and_nme():
    points = torch.tensor([[0.1, 0.2, 0.9, 0.2], [0.0, 0.0, 1.0, 0.0]])
    targets = torch.tensor([[0.1, 0.2, 0.6, 0.2, 0.5], [0.0, 0.0, 1.0, 0.0, 0.0]])
    # The first is wrong by 0.3 in one of two points that are 0.5 apart.
    assert nme(points, targets, (0, 1)).tolist() == pytest.approx([0.3 / 2 / 0.5, 0])
    assert float(landmark_loss(points, targets, pose=0.0)) == pytest.approx(0.09 / 2)
    assert float(landmark_loss(points, targets, pose=2.0)) == pytest.approx(0.09 * 2 / 2)
    assert float(landmark_loss(points, targets, "wing", 0.0)) == pytest.approx(float(wing(torch.tensor(0.3))) / 2)
    assert (score(0.25), score(3.0)) == (0.75, 0.0)


def test_module_takes_batches_at_any_side():
    module = LandmarksModule((0, 1))
    images, targets = torch.rand(2, 3, 64, 64), torch.rand(2, 5)
    smaller, same = module.at_side((images, targets), 32)
    assert smaller.shape == (2, 3, 32, 32)
    assert same is targets


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of landmarks, and its set."""
    folder = tmp_path_factory.mktemp("landmarks")
    data = a_set(folder, "csv", number=8)
    (folder / "space.yaml").write_text(SPACE)
    given = ["--task", "landmarks", "--cfg", folder / "space.yaml", "--data", data, "--imgsz", 32, "--cost-imgsz", 32]
    given += [
        "--batch",
        4,
        "--epochs",
        1,
        "--strategy",
        "bignas",
        "--population",
        2,
        "--generations",
        1,
        "--device",
        "cpu",
    ]
    given += ["--max-flops", "none", "--random-archs", 0, "--project", folder, "--point-loss", "wing"]
    assert run_script(oneshot_nas.main, oneshot_nas.parse([*map(str, given)])) == 0
    return folder / "exp", data


def test_search_leaves_a_regressor(searched):
    run, _ = searched
    assert kind_of(run / "landmarks.pt") == "landmarks"
    network, content = load_classifier(run / "landmarks.pt")
    assert network.landmarks == {"normalise": [0, 1]}
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 6)
    assert content["imgsz"] == 32
    results = json.loads((run / "results.json").read_text())
    assert results["metric"] == "nme_score"
    assert set(results["landmarks"]) == {"params", "flops_32"}


def test_result_is_measured_and_finetuned_by_a_teacher(searched, tmp_path):
    run, data = searched
    file = run / "landmarks.pt"
    common = ["--data", data, "--device", "cpu", "--project", tmp_path]
    assert run_script(val.main, val.parse([*map(str, ["--weights", file, *common, "--name", "val"])])) == 0
    before = json.loads((tmp_path / "val/results.json").read_text())
    assert set(before) == {"imgsz", "images", "nme"}
    assert before["images"] == 8
    more = ["--epochs", 2, "--batch", 4, "--teacher", file, "--name", "more"]
    assert run_script(train.main, train.parse([*map(str, ["--weights", file, *common, *more])])) == 0
    results = json.loads((tmp_path / "more/results.json").read_text())
    assert results["before"] == pytest.approx(before["nme"], rel=1e-4)
    assert kind_of(tmp_path / "more/landmarks.pt") == "landmarks"


def test_exported_file_says_what_it_gives(searched, tmp_path):
    onnx = pytest.importorskip("onnx")
    file = tmp_path / "points.onnx"
    args = ["--weights", searched[0] / "landmarks.pt", "--imgsz", 32, "--output", file]
    assert run_script(export.main, export.parse([*map(str, args)])) == 0
    graph = onnx.load(file)
    assert {p.key: p.value for p in graph.metadata_props}["task"] == "landmarks"
    assert [o.name for o in graph.graph.output] == ["points"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--detector", "yolov5n.yaml"], "--task landmarks gives no detector"),
        (["--task", "classify", "--data", "digits", "--pose", "2"], "--pose"),
        (["--strategy", "bignas", "--distill", "kl"], "--distill kl is not for this task"),
    ],
)
def test_what_does_not_apply_is_refused(searched, tmp_path, capsys, given, said):
    _, data = searched
    (tmp_path / "space.yaml").write_text(SPACE)
    args = ["--task", "landmarks", "--cfg", tmp_path / "space.yaml", "--data", data, "--imgsz", "32", "--batch", "4"]
    args = [*args, "--epochs", "1", "--project", tmp_path, "--device", "cpu", *given]
    assert run_script(oneshot_nas.main, oneshot_nas.parse([*map(str, args)])) == 2
    assert said in capsys.readouterr().err
