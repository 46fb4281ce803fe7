import pytest
import torch

from models import Model, count_params
from models.grammar import read_config

# Published for YOLOv5u as built for training: YOLOv5's rows with this head, the 16 values of its bins included.
PUBLISHED = {"n": 2_654_816, "s": 9_153_152, "m": 25_111_456, "l": 53_225_024, "x": 97_276_448}
ROWS = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]


def tiny(nc=3, last=None, **top):
    return {"nc": nc, "backbone": ROWS, "head": [last or [[0, 1], 1, "Detect", ["nc"]]], **top}


@pytest.mark.parametrize("size", PUBLISHED)
def test_yolov5_rows_with_this_head_have_the_published_parameters(size):
    raw = {k: v for k, v in read_config(f"yolov5{size}.yaml").raw.items() if k != "anchors"}
    raw["head"][-1] = [[17, 20, 23], 1, "Detect", ["nc"]]
    with torch.device("meta"):
        assert count_params(Model(raw)) == PUBLISHED[size]
    if size == "n":
        assert read_config("yolov5n_dfl.yaml").rows == read_config(raw, file=read_config("yolov5n_dfl.yaml").file).rows
