import pytest
import torch

from models import Model, count_params
from models.grammar import read_config
from tests.refusal import refused

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


def test_what_a_yaml_says_is_the_head():
    model = Model(tiny(reg_max=1, depthwise=True, last=[[0, 1], 1, "Detect", ["nc", {"end2end": True}]]))
    head = model.head
    assert (head.reg_max, head.depthwise, head.end2end, head.form) == (1, True, True, "detections")
    head = Model(tiny(reg_max=1, last=[[0, 1], 1, "DetectDFL", ["nc", {"reg_max": 8}]])).head
    assert (head.reg_max, head.end2end, head.form) == (8, False, "classes")  # the row has the last word
    assert Model(tiny(anchors=2, last=[[0, 1], 1, "Detect", ["nc", "anchors"]])).head.form == "objectness"


def test_decodes_distances_in_strides():
    head = Model(tiny(nc=1, reg_max=4)).head.eval()
    logits = [torch.full((1, 17, 2, 2), -20.0), torch.full((1, 17, 1, 1), -20.0)]
    for side, distance in enumerate((0, 1, 2, 3)):  # left, top, right, bottom of the cell in the second row and column
        logits[0][0, 4 * side + distance, 1, 1] = 20
    logits[0][0, 16, 1, 1] = 0
    x, y, w, h, score = head.decode(logits)[0, 3].tolist()
    assert [x, y, w, h, score] == pytest.approx([2 * (1.5 + 1), 2 * (1.5 + 1), 2 * 2, 2 * 4, 0.5], abs=1e-4)


def test_gives_the_most_confident_classes_of_the_most_confident_cells():
    head = Model(tiny(nc=2, end2end=True)).head
    z = torch.zeros(1, 400, 6)
    z[0, :, :4] = torch.tensor([10.0, 20.0, 4.0, 6.0])
    z[0, 7, 4:], z[0, 350, 4:] = torch.tensor([0.5, 0.9]), torch.tensor([0.8, 0.1])
    found = head.most_confident(z)
    assert found.shape == (1, 300, 6)
    expected = [[8, 17, 12, 23, 0.9, 1], [8, 17, 12, 23, 0.8, 0], [8, 17, 12, 23, 0.5, 0]]
    torch.testing.assert_close(found[0, :3], torch.tensor(expected))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (tiny(anchors=3, last=[[0, 1], 1, "DetectDFL", ["nc"]]), ("row 2", "DetectDFL", "without that key")),
        (tiny(anchors=3), ("row 2", "anchors", "anchor-free")),
        (tiny(last=[[0, 1], 1, "DetectDFL", ["nc", 3]]), ("row 2", "[nc]")),
        (tiny(last=[1, 1, "Detect", ["nc"]]), ("row 2", "list of inputs")),
        (tiny(reg_max=0), ("row 2", "reg_max", "positive integer", "0")),
        (tiny(reg_max=2.5), ("reg_max", "2.5")),
        (tiny(end2end="yes"), ("end2end", "true or false", "yes")),
        (tiny(last=[[0, 1], 1, "Detect", ["nc", {"regmax": 4}]]), ("regmax", "reg_max, end2end, depthwise")),
        (tiny(last=[[0, 1], 1, "IDetect", ["nc"]]), ("row 2 (IDetect)", "write", "Detect, [nc]")),
        (tiny(last=[[0, 1], 1, "Segment", ["nc"]]), ("row 2 (Segment)",)),
        (tiny(end2edn=True), ("unknown key 'end2edn'", "end2end")),
    ],
)
def test_bad_input_is_one_line(given, parts):
    with refused(*parts):
        Model(given)
