import textwrap

import pytest
import torch
from torch import nn

from models import Classifier, Model, load_plugin, read_config, register
from spaces import NASBACKBONE, CostModel, Space
from spaces.check_elastic import check_elastic
from tests.refusal import refused


def _classifier(row, **keys):
    return Classifier({"nc": 2, "backbone": [[-1, 1, "Conv", [16, 3, 2]], row], **keys})


@pytest.mark.parametrize("written", ["@register", "@register()", '@register("Mine")', "@register(repeats=True)"])
def test_plugin_module_is_used_from_a_yaml(tmp_path, written):
    name = "Mine" if "Mine" in written else "Doubled"
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        textwrap.dedent(
            f"""
            from torch import nn
            from models import register

            {written}
            class Doubled(nn.Module):
                def __init__(self, c1, c2, n=0):
                    super().__init__()
                    self.n, self.conv = n, nn.Conv2d(c1, c2, 1)

                def forward(self, x):
                    return 2 * self.conv(x)
            """
        )
    )
    load_plugin(plugin)
    cfg = tmp_path / "mine.yaml"
    cfg.write_text(f"nc: 2\nwidth_multiple: 0.5\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, {name}, [48]]\n")
    network = Classifier(cfg)
    block = network.model[1]
    assert type(block).__name__ == "Doubled"
    assert block.conv.weight.shape == (24, 8, 1, 1)
    assert network.linear.in_features == 24
    assert block.n == ("repeats" in written)


def test_a_plugin_is_imported_once_and_again_after_an_error(tmp_path):
    plugin, marks = tmp_path / "once.py", tmp_path / "marks"
    plugin.write_text(f"open({str(marks)!r}, 'a').write('x')\nraise ValueError('not yet')")
    with refused("not yet"):
        load_plugin(plugin)
    plugin.write_text(f"open({str(marks)!r}, 'a').write('x')")
    load_plugin(plugin)
    load_plugin(plugin)
    assert marks.read_text() == "xx"


def test_plugin_channel_rule_sees_row_and_inputs():
    def rule(config, row, c_in):
        return [list(c_in)], c_in[0]

    @register(channels=rule)
    class TestSum(nn.Module):
        def __init__(self, widths):
            super().__init__()
            self.widths = widths

        def forward(self, x):
            return sum(x)

    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 1]], [[-1, 0], 1, "TestSum", []]]
    network = Classifier({"nc": 2, "backbone": rows})
    assert list(network.model[2].widths) == [8, 8]
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 2)


ATTENTION = """
import torch
from torch import nn
from models import register
from models.registry import kept, kept_c1


@register(channels=kept)
class TestCBAM(nn.Module):
    def __init__(self, c1, c2, ratio=4):
        super().__init__()
        self.add = False
        self.mlp = nn.Sequential(nn.Conv2d(c1, c1 // ratio, 1), nn.ReLU(), nn.Conv2d(c1 // ratio, c2, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = x * (self.mlp(x.mean((2, 3), True)) + self.mlp(x.amax((2, 3), True))).sigmoid()
        return x * self.spatial(torch.cat((x.mean(1, True), x.amax(1, True)), 1)).sigmoid()


@register(channels=kept_c1)
class TestECA(nn.Module):
    def __init__(self, c1, k=3):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(3)


@register
class TestNarrow(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.conv = nn.Conv2d(c1, 16, 1)

    def forward(self, x):
        return self.conv(x)
"""


@pytest.fixture
def attention(tmp_path):
    plugin = tmp_path / "attention.py"
    plugin.write_text(ATTENTION)
    load_plugin(plugin)


@pytest.mark.usefixtures("attention")
def test_attention_of_other_people_has_ready_rules():
    rows = [[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "TestCBAM", [64, 8]], [-1, 1, "TestCBAM", []], [-1, 1, "TestECA", [5]]]
    network = Classifier({"nc": 2, "width_multiple": 0.5, "backbone": rows})
    assert network.channels == [32] * 4
    assert [network.model[i].mlp[0].out_channels for i in (1, 2)] == [4, 8]
    assert network.model[3].conv.kernel_size == (5,)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 2)
    rows[0][3][0] = {"choice": [32, 64]}
    assert [problems for _, problems in check_elastic({"nc": 2, "backbone": rows}, num=0, imgsz=16)] == [[], []]


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("behind", [[], [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [-1, 1, "Conv", [8]]]])
def test_block_that_gives_other_channels_than_its_rule_is_named_itself(behind):
    words = ("row 1 (TestNarrow)", "gives 16 channels, but its rule says 24")
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "TestNarrow", [24]], *behind]
    network = Classifier({"nc": 2, "backbone": rows})
    with refused(*words):
        network(torch.rand(1, 3, 16, 16))
    with refused(*words):
        CostModel(Space({"nc": 2, "backbone": rows}), 32)
    rows[1] = [-1, 1, "TestNarrow", [{"choice": [16, 24]}]]
    with refused(*words):
        NASBACKBONE({"nc": 2, "backbone": rows})


@pytest.mark.parametrize(
    ("keys", "row", "words"),
    [
        (
            {"anchors": 3},
            [[0, 1], 1, "IDetect", ["nc", "anchors"]],
            ["write [[0, 1], 1, Detect, [nc, anchors]] to"],
        ),
        ({"anchors": 3}, [[0, 1], 1, "DDetect", ["nc"]], ["Detect, [nc]] and leave out the key 'anchors'"]),
        ({"anchors": 3}, [[0, 1, 2, 3], 1, "IAuxDetect", ["nc", "anchors"]], ["[[0, 1], 1, Detect, [nc, anchors]]"]),
        ({}, [[0, 1, 2, 3], 1, "DualDDetect", ["nc"]], ["write [[2, 3], 1, Detect, [nc]] to find boxes"]),
        ({}, [[0, 1], 1, "v10Detect", ["nc"]], ["write [[0, 1], 1, Detect, [nc]] to find boxes"]),
    ],
)
def test_head_of_other_people_is_refused_with_what_would_do(keys, row, words):
    rows = [[-1, 1, "Conv", [8, 3, 2]], *([-1, 1, "Conv", [8, 3, 1]] for _ in range(3))]
    with refused(f"model dict: row 4 ({row[2]})", "plug-in", *words):
        Model({"nc": 2, "backbone": rows, "head": [row], **keys})


def test_missing_plugin_is_refused(tmp_path):
    with refused("nothing.py", "no such plug-in file"):
        load_plugin(tmp_path / "nothing.py")


@pytest.mark.parametrize(
    ("module", "hint"),
    [("Cnov", "did you mean Conv"), ("nn.UpSample", "did you mean nn.Upsample"), ("Zz", "known are"), ("os.path", "")],
)
def test_unknown_module_is_refused_with_a_suggestion(module, hint):
    with refused("model dict: row 1", module, "unknown module", hint):
        _classifier([-1, 1, module, [16]])


@pytest.mark.parametrize(("module", "args"), [("NASConv", [16, 3, 2]), ("NASC3", [16])])
def test_searchable_row_in_a_plain_network_is_refused(module, args):
    with refused(f"row 1 ({module})", "freeze the space first"):
        _classifier([-1, 1, module, args])


def test_searchable_yaml_is_no_model():
    with refused("yolov5n_nas.yaml: row 0 (NASConv)", "freeze"):
        Model("models/yolov5n_nas.yaml")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ([-1, 1, "Conv", []], ["output channels are missing"]),
        ([-1, 1, "Conv", [16, 3, 2, 1, 5]], ["cannot be built from [16, 3, 2, 1, 5]", "groups"]),
        ([-1, 1, "Conv", [16, 3, 2, 1, 1, 1, True, 9]], ["cannot be built", "arguments"]),
        ([-1, 1, "Conv", [16, {"kernel": 3}]], ["cannot be built", "kernel"]),
        ([-1, 1, "Conv", ["wide"]], ["output channels must be a positive number, got 'wide'"]),
        ([-1, 1, "Conv", [-8]], ["output channels must be a positive number"]),
        ([-1, 2, "Conv", [32]], ["repeated 2 times it must keep its width"]),
        ([[0], 1, "Conv", [16]], ["takes one input", "[0]"]),
        ([[0, 0], 1, "C3", [16]], ["takes one input"]),
        ([0, 1, "Concat", [1]], ["takes a list of inputs", "got 0"]),
        ([-1, 1, "Contract", [0]], ["gain must be a positive integer, got 0"]),
        ([-1, 1, "Expand", ["x"]], ["gain must be a positive integer"]),
        ([-1, 1, "Expand", [3]], ["16 input channels cannot be divided by gain squared (9)"]),
        ([-1, 1, "MixConv2d", [16, [1, 3, 5, 7], 1, False]], ["cannot be split"]),
        ([-1, 1, "C3TR", [8, True, 1, 0.25]], ["cannot be built", "num_heads"]),  # two channels for four heads
        ([-1, 1, "C3", [16, True, 1, 0.5, {"m_e": [1, 2]}]], ["m_e names 2 bottlenecks, but the block has 1"]),
    ],
)
def test_what_cannot_be_built_names_row_and_reason(row, parts):
    with refused(f"model dict: row 1 ({row[2]})", *parts):
        _classifier(row)


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([[-1, 1, "Conv", [8, 3, 2]], [[-1, 0], 1, "Concat", [1]]], "row 2 (Concat)"),
        ([[-1, 1, "nn.MaxPool2d", ["a", 2]]], "row 1 (nn.MaxPool2d)"),
        ([[-1, 1, "nn.MaxPool2d", [1000]]], "row 1 (nn.MaxPool2d)"),
        ([[-1, 1, "Contract", [5]]], "row 1 (Contract)"),
    ],
)
def test_what_does_not_fit_at_run_time_names_the_row_and_shapes(rows, where):
    network = Classifier({"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], *rows]})
    with refused(f"model dict: {where}", "does not fit its input", "2x8x16x16"):
        network(torch.rand(2, 3, 32, 32))


def test_out_of_memory_is_not_the_users_yaml(monkeypatch):
    network = _classifier([-1, 1, "Conv", [8]])

    def full(x):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(network.model[1], "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        network(torch.rand(2, 3, 32, 32))


def test_a_last_row_that_is_no_head_is_named():
    backbone = [[-1, 1, "Conv", [16]], [-1, 1, "Conv", [16]]]
    with refused("model dict: row 2 (Conv): is no head; a detector's last row is Detect"):
        Model({"nc": 2, "anchors": 3, "backbone": backbone, "head": [[-1, 1, "Conv", [16]]]})
    with refused("model dict: row 2 (Detct): no head of this name is known, did you mean Detect?", "--plugin FILE"):
        Model({"nc": 2, "anchors": 3, "backbone": backbone, "head": [[-1, 1, "Detct", ["nc", "anchors"]]]})


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (["Conv", [16, 3, 1, None, 1, "nn.LeakyReLU(0.1)"]], ["Conv", [16, 3, 1, None, 1, 1, "nn.LeakyReLU(0.1)"]]),
        (["Conv", [16, 3, 1, None, 1, False]], ["Conv", [16, 3, 1, None, 1, 1, False]]),
        (["Conv", [16, 3, 1, "None", 1, True]], ["Conv", [16, 3, 1]]),
        (["Conv", [16, 3, 1, None, 1, 2]], ["Conv", [16, 3, 1, None, 1, 2]]),  # a dilation
        (["DWConv", [16, 3, 1, False]], ["DWConv", [16, 3, 1, 1, False]]),
    ],
)
def test_older_yamls_have_the_activation_in_the_place_of_the_dilation(older, newer):
    def of(row):
        module, args = row
        config = read_config({"nc": 2, "backbone": [[-1, 1, "Conv", [16]], [-1, 1, module, args]]})
        return str(Classifier(config).model[1])

    assert of(older) == of(newer)


def test_messages_name_the_file_that_a_network_is_in(tmp_path):
    from models.files import load_detector
    from models.upstream import load_weights

    rows = [[-1, 1, "Conv", [16]], [-1, 1, "Mine", [16]], [[0, 1], 1, "Detect", ["nc", "anchors"]]]
    content = {"format": 1, "yaml": {"nc": 2, "anchors": 3, "backbone": rows[:2], "head": rows[2:]}, "state_dict": {}}
    torch.save({**content, "names": {}}, tmp_path / "detector.pt")
    for load in (load_detector, load_weights):
        with refused(f"{tmp_path / 'detector.pt'}: row 1 (Mine)", "--plugin FILE"):
            load(tmp_path / "detector.pt")
