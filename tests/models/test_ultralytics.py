"""Networks of both sides by side, where the package `ultralytics` is installed: the same state dict, the same outputs.

It is no dependency, and none of its code is used: `pip install ultralytics==8.4.190` in an environment of your own.
"""

import pytest
import torch

from models import Model, count_params

# Cheap ones that together have every block and every form of the head.
NAMES = [
    *("yolov8n", "yolov9t", "yolov9c", "yolov9e", "yolov10n", "yolov10b", "yolo11n", "yolo11m"),
    *("yolo12n", "yolo12l", "yolo26n", "yolo26m"),
]


@pytest.mark.parametrize("name", NAMES)
def test_same_weights_give_the_same_outputs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    theirs, ours = tasks.DetectionModel(f"{name}.yaml", verbose=False).eval(), Model(f"{name}.yaml").eval()
    assert count_params(ours) == sum(p.numel() for p in theirs.parameters())
    generator = torch.Generator().manual_seed(0)
    state = theirs.state_dict()
    for key, value in state.items():  # fresh statistics would let an activation too many pass
        if key.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        if key.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    ours.load_state_dict(state)
    rows = {}
    for side, network in (("theirs", theirs), ("ours", ours)):
        rows[side] = []
        for layer in network.model[:-1]:
            layer.register_forward_hook(lambda _, __, y, side=side: rows[side].append(y))
    theirs.model[-1].end2end = ours.model[-1].form == "detections"
    x = torch.rand(1, 3, 128, 128, generator=generator)
    with torch.no_grad():
        their_prediction, our_prediction = theirs(x)[0], ours(x)[0]
    for i, (theirs_row, ours_row) in enumerate(zip(rows["theirs"], rows["ours"], strict=True)):
        if isinstance(ours_row, torch.Tensor):
            torch.testing.assert_close(ours_row, theirs_row, rtol=1e-4, atol=1e-4, msg=f"row {i}")
    if theirs.model[-1].end2end:  # each the best detections; near scores may change places
        distance = (our_prediction[0, :, None] - their_prediction[0, None, :100]).abs().amax(2)
        assert float(distance.amin(0).max()) < 1e-2
    else:
        torch.testing.assert_close(our_prediction, their_prediction.transpose(1, 2), rtol=1e-4, atol=1e-3)
