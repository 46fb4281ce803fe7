"""Every registered block as an elastic row, in front of it a row of elastic width: equal to its slices."""

import pytest
import torch

from models.blocks import Conv
from models.catalog import registered
from spaces import NASBACKBONE, slice_weights
from spaces.check_elastic import check_elastic
from tests.refusal import refused


def choice(*values, **keys):
    return {"choice": list(values), **keys}


WIDE = choice(16, 32, label="w")  # the width of the row before, where a block has to keep it
C2 = choice(16, 24, 32)
DEPTH = {"range": [1, 3, 1]}
# Behind a row of 16 or 32 channels (decision "w"): the row.
ROWS = {
    "Conv": [-1, 1, "Conv", [C2, choice(1, 3, 5), 2]],
    "DWConv": [-1, 1, "DWConv", [WIDE, choice(3, 5), 2]],
    "Bottleneck": [-1, DEPTH, "Bottleneck", [WIDE, {"e": choice(0.25, 0.5, 1)}]],
    "BottleneckCSP": [-1, DEPTH, "BottleneckCSP", [C2, True, 1, choice(0.5, 0.75)]],
    "C3": [-1, DEPTH, "C3", [C2, {"e": choice(0.5, 0.75), "cv1_k": choice(1, 3), "m_e": choice(1, 1.5)}]],
    "C3x": [-1, DEPTH, "C3x", [C2, {"e": choice(0.5, 0.75)}]],
    "C3TR": [-1, choice(1, 2), "C3TR", [choice(16, 32)]],
    "C3SPP": [-1, 1, "C3SPP", [C2, [3, 5]]],
    "C3Ghost": [-1, choice(1, 2), "C3Ghost", [choice(16, 32)]],
    "C2f": [-1, DEPTH, "C2f", [C2, choice(True, False), {"e": choice(0.5, 0.75)}]],
    "C3k": [-1, DEPTH, "C3k", [C2, {"e": choice(0.5, 0.75)}]],
    "C3k2": [-1, DEPTH, "C3k2", [C2, True, choice(0.5, 0.75)]],
    "C2fCIB": [-1, DEPTH, "C2fCIB", [C2, True, True, {"e": choice(0.5, 0.75)}]],
    "SCDown": [-1, 1, "SCDown", [C2, choice(3, 5), 2]],
    "PSA": [-1, 1, "PSA", [WIDE]],
    "C2PSA": [-1, DEPTH, "C2PSA", [WIDE]],
    "GhostConv": [-1, 1, "GhostConv", [C2, choice(1, 3), 2]],
    "GhostBottleneck": [-1, 1, "GhostBottleneck", [C2, choice(3, 5), 2]],
    "SPP": [-1, 1, "SPP", [C2, [5, 9]]],
    "SPPF": [-1, 1, "SPPF", [C2, choice(3, 5), choice(2, 3), False]],
    "Focus": [-1, 1, "Focus", [C2, choice(1, 3)]],
    "CrossConv": [-1, 1, "CrossConv", [C2, choice(3, 5), 2, 1, choice(0.5, 1)]],
    "MixConv2d": [-1, 1, "MixConv2d", [choice(16, 32, label="w"), [1, 3], 2]],
    "Contract": [-1, 1, "Contract", [2]],
    "Expand": [-1, 1, "Expand", [2]],
    "Concat": [[-1, 0], 1, "Concat", [1]],
    "nn.Upsample": [-1, 1, "nn.Upsample", ["None", 2, choice("nearest", "bilinear")]],
    "nn.MaxPool2d": [-1, 1, "nn.MaxPool2d", [choice(2, 3, label="k"), 2, {"table": {2: 0, 3: 1}, "by": "k"}]],
    "nn.ZeroPad2d": [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]],
    "nn.ConvTranspose2d": [-1, 1, "nn.ConvTranspose2d", [C2, 2, 2]],
    "DWConvTranspose2d": [-1, 1, "DWConvTranspose2d", [WIDE, 4, 2, 1]],
    "nn.BatchNorm2d": [-1, 1, "nn.BatchNorm2d", []],
    "Add": [[-1, 1], 1, "Add", []],
    "MBConv": [
        *(-1, DEPTH, "MBConv"),
        [C2, choice(3, 5), 2, choice(1, 3, 6), choice(0, 0.25), {"act": choice("nn.ReLU()", "nn.SiLU()")}],
    ],
    "FBNet": [-1, 1, "FBNet", [C2, choice("skip", "k3_e1_g2", "k3_e1", "k5_e3"), 2]],
    "GlobalPool": [-1, 1, "GlobalPool", []],
    "Pointwise": [-1, 1, "Pointwise", [C2]],
    "ResBasic": [-1, DEPTH, "ResBasic", [C2, choice(3, 5), 2, choice(0.5, 1)]],
    "ResBottleneck": [-1, DEPTH, "ResBottleneck", [choice(32, 64), choice(3, 5), 1, 0.25, {"project": True}]],
    "RegBottleneck": [-1, DEPTH, "RegBottleneck", [C2, choice(4, 8), choice(3, 5), 2, choice(0, 0.25)]],
    "RepConv": [-1, 1, "RepConv", [C2, 3, 2]],
    "RepCSP": [-1, DEPTH, "RepCSP", [C2, {"e": choice(0.5, 0.75)}]],
    "ELAN1": [-1, 1, "ELAN1", [C2, choice(8, 16), choice(4, 8)]],
    "RepNCSPELAN4": [-1, 1, "RepNCSPELAN4", [C2, choice(8, 16), choice(4, 8), choice(1, 2)]],
    "SPPELAN": [-1, 1, "SPPELAN", [C2, choice(4, 8), choice(3, 5)]],
    "AConv": [-1, 1, "AConv", [C2]],
    "ADown": [-1, 1, "ADown", [C2]],
    "Silence": [-1, 1, "Silence", []],
    "PatchEmbed": [-1, 1, "PatchEmbed", [C2, 4, 4]],
    "Encoder": [-1, choice(1, 2), "Encoder", [WIDE, [choice(1, 2, label="h0"), choice(1, 2)], choice(1, 1.5, 2)]],
    "ChannelNorm": [-1, 1, "ChannelNorm", []],
    "A2C2f": [-1, choice(1, 2), "A2C2f", [choice(64, 128), True, 4, False, choice(1.2, 2)]],
}


def space(*rows):
    return {"nc": 3, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [WIDE, 3]], *rows]}


def detector(row):
    return {**space(), "anchors": 2, "head": [[-1, 1, "Conv", [C2, 3, 2]], row]}


def wrong(cfg, **keys):
    return [(arch, problems) for arch, problems in check_elastic(cfg, imgsz=32, **keys) if problems]


def test_towers_that_levels_share_are_their_slices():
    towers = [[1, 2], DEPTH, "SharedTowers", [C2, choice(1, 3)]]
    rows = [[1, 1, "Conv", [WIDE, 3, 2]], towers, [-1, 1, "Pick", [1]], [-1, 1, "Conv", [choice(8, 16)]]]
    assert wrong(space(*rows)) == []
    net = NASBACKBONE(space(*rows))
    whole = net.model[5].block.conv.weight
    whole.data = torch.arange(64).float().view(1, -1, 1, 1).expand(whole.shape).contiguous()
    part = slice_weights(net, {**net.space.upstream(), "row3.0": 16})[1]["model.5.conv.weight"]
    assert part[0, :, 0, 0].tolist() == [*range(16), *range(32, 48)]  # of the classes and of the boxes


def test_what_one_backbone_adds_to_another_is_its_slices():
    linear, fuse = [1, 1, "CBLinear", [[8, 16]]], [[2, -1], 1, "CBFuse", [[1]]]
    rows = [linear, [0, 1, "Conv", [16, 3, 2]], fuse, [-1, 1, "Conv", [choice(8, 16)]]]
    assert wrong(space(*rows), num=1) == []
    rows[1] = [0, 1, "Conv", [choice(16, 32), 3, 2]]
    with refused("row 4 (CBFuse)", "adds to 32 channels", "map 1 of row 2 (CBLinear)", "8, 16"):
        NASBACKBONE(space(*rows))


def test_every_block_is_here():
    others = {"Detect", "DetectDFL", "Segment", "Semantic", "SharedTowers", "Pick", "RepNCSP", "CBLinear", "CBFuse"}
    assert {*ROWS, *others} == {name for name in registered() if "." not in name or name.startswith("nn.")}


@pytest.mark.parametrize("name", ROWS)
def test_supernet_is_its_slices(name):
    assert wrong(space(ROWS[name], [-1, 1, "Conv", [choice(8, 16)]]), num=3) == []


def test_attention_with_one_head_more_is_its_slices():
    """Of C2PSA whose input's width is open, by whole heads of 64 channels in its half."""
    wide = choice(128, 256, label="psa")
    rows = [[-1, 1, "SPPF", [wide, 5]], [-1, choice(1, 2), "C2PSA", [wide]], [-1, 1, "Conv", [16]]]
    assert wrong(space(*rows), num=2) == []


def test_detect_is_its_slices():
    assert wrong(detector([[1, 2], 1, "Detect", ["nc", "anchors"]])) == []


def sliced_from(row, tensor, **arch):
    """Indices of the whole block's channels that a slice's tensor takes: dimension 0, and 1 where there is one."""
    net = NASBACKBONE(space(row, [-1, 1, "Conv", [16]]))
    whole = dict(net.model[2].block.named_parameters())[tensor]
    found = []
    for dim in range(min(whole.ndim, 2)):
        shape = [1] * whole.ndim
        shape[dim] = -1
        whole.data = torch.arange(whole.shape[dim]).float().view(shape).expand(whole.shape).contiguous()
        part = slice_weights(net, {**net.space.upstream(), **arch})[1][f"model.2.{tensor}"]
        index = [0] * part.ndim
        index[dim] = slice(None)
        found.append(part[tuple(index)].long().tolist())
    return found


def runs(*pairs):
    return [i for start, n in pairs for i in range(start, start + n)]


# The whole block is 32 wide behind 32; the slice is 16 behind 16.
@pytest.mark.parametrize(
    ("row", "tensor", "outputs", "inputs"),
    [
        ([-1, 1, "Conv", [C2]], "conv.weight", runs((0, 16)), runs((0, 16))),
        # The first half of a concatenation, and the first of the other.
        ([-1, 1, "C3", [C2]], "cv3.conv.weight", runs((0, 16)), runs((0, 8), (16, 8))),
        ([-1, DEPTH, "C3", [C2]], "cv3.conv.weight", runs((0, 16)), runs((0, 8), (16, 8))),
        # Halves, and what the first of three bottlenecks makes of the second.
        ([-1, DEPTH, "C2f", [C2]], "cv2.conv.weight", runs((0, 16)), runs((0, 8), (16, 8), (32, 8))),
        ([-1, DEPTH, "C2f", [C2, True]], "cv1.conv.weight", runs((0, 8), (16, 8)), runs((0, 16))),
        # Queries, keys and values of one head of 8 channels, of 16 in the whole block.
        ([-1, 1, "PSA", [WIDE]], "attn.qkv.conv.weight", runs((0, 4), (8, 4), (16, 8)), runs((0, 8))),
        ([-1, 1, "SPPF", [C2]], "cv2.conv.weight", runs((0, 16)), runs((0, 8), (16, 8), (32, 8), (48, 8))),
        ([-1, 1, "SPP", [C2, [3, 5]]], "cv2.conv.weight", runs((0, 16)), runs((0, 8), (16, 8), (32, 8))),
        ([-1, 1, "Focus", [C2]], "conv.conv.weight", runs((0, 16)), runs(*((i * 32, 16) for i in range(4)))),
        ([-1, 1, "BottleneckCSP", [C2]], "bn.weight", runs((0, 8), (16, 8)), None),
        ([-1, 1, "BottleneckCSP", [C2]], "cv4.conv.weight", runs((0, 16)), runs((0, 8), (16, 8))),
        ([-1, 1, "GhostBottleneck", [C2, 3, 2]], "conv.2.cv1.conv.weight", runs((0, 8)), runs((0, 4), (8, 4))),
        ([-1, 1, "MixConv2d", [WIDE, [1, 3]]], "bn.weight", runs((0, 8), (16, 8)), None),
        ([-1, 1, "C3TR", [WIDE]], "m.tr.0.ma.in_proj_bias", runs(*((i * 4, 2) for i in range(12))), None),
    ],
    ids=lambda v: v[2] if isinstance(v, list) and len(v) == 4 and isinstance(v[2], str) else None,
)
def test_narrow_blocks_take_the_first_channels_of_every_run(row, tensor, outputs, inputs):
    widths = {"w": 16, "row2.0": 16} if row[3][0] is C2 else {"w": 16}
    found = sliced_from(row, tensor, **widths)
    assert found[0] == outputs
    assert inputs is None or found[1] == inputs


def test_a_row_behind_a_concatenation_takes_the_first_of_both():
    rows = [
        [-1, 1, "Conv", [choice(8, 24, label="a")]],
        [[-1, 1], 1, "Concat", [1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [-1, 1, "Conv", [8]],
    ]
    net = NASBACKBONE(space(*rows))
    whole = net.model[5].block.conv.weight
    whole.data = torch.arange(24 + 32).float().view(1, -1, 1, 1).expand(whole.shape).contiguous()
    part = slice_weights(net, {"a": 8, "w": 16})[1]["model.5.conv.weight"]
    assert part[0, :, 0, 0].long().tolist() == runs((0, 8), (24, 16))


def test_a_row_behind_ghosts_takes_the_first_of_both_halves():
    net = NASBACKBONE(space([-1, 1, "GhostConv", [C2]], [-1, 1, "Conv", [8]]))
    whole = net.model[3].block.conv.weight
    whole.data = torch.arange(32).float().view(1, -1, 1, 1).expand(whole.shape).contiguous()
    part = slice_weights(net, {"w": 16, "row2.0": 24})[1]["model.3.conv.weight"]
    assert part[0, :, 0, 0].long().tolist() == runs((0, 12), (16, 12))


@pytest.mark.parametrize(("kernels", "k", "start"), [((3, 7), 3, 2), ((1, 3, 5), 1, 2), ((2, 6), 2, 2), ((3, 6), 3, 2)])
def test_kernels_are_cropped_in_the_centre(kernels, k, start):
    padding = {"table": {kk: (kk - 1) // 2 for kk in kernels}, "by": "k"}
    net = NASBACKBONE(space([-1, 1, "Conv", [16, choice(*kernels, label="k"), 2, padding]]))
    whole = net.model[2].block.conv.weight
    state = slice_weights(net, {"w": 32, "k": k})[1]
    assert torch.equal(state["model.2.conv.weight"], whole[:, :, start : start + k, start : start + k])


def test_depth_is_the_first_blocks():
    net = NASBACKBONE(space([-1, DEPTH, "MBConv", [16, 3, 2]]))
    for depth in (1, 2, 3):
        state = slice_weights(net, {"w": 32, "row2.number": depth})[1]
        blocks = {key.split(".")[2] for key in state if key.startswith("model.2.")}
        assert blocks == {str(i) for i in range(depth)}
        assert torch.equal(state["model.2.0.project.conv.weight"], net.model[2].block[0].project.conv.weight)


def test_one_of_several_repeats_is_the_first():
    net = NASBACKBONE(space([-1, DEPTH, "Bottleneck", [WIDE]]))
    whole = net.model[2].block
    for depth, prefix in ((1, ""), (2, "0.")):
        state = slice_weights(net, {"w": 32, "row2.number": depth})[1]
        assert torch.equal(state[f"model.2.{prefix}cv2.conv.weight"], whole[0].cv2.conv.weight)
    assert len(whole) == 3
    assert sum(p.numel() for p in whole.parameters()) == 3 * sum(p.numel() for p in whole[0].parameters())


def test_choice_of_the_structure_keeps_all_layers():
    """An identity, a bare convolution, or a branch, of one depth or of several."""
    ratios = choice(0, 1, 3, label="e")
    for number in (1, DEPTH):
        net = NASBACKBONE(space([-1, number, "MBConv", [C2, 3, 2, ratios]]))
        assert {"skip", "expand", "depthwise", "project"} == set(dict(net.model[2].block[0].named_children()))
        arch = {**net.space.upstream(), "w": 32, "row2.0": 32}
        keys = {e: {k.split(".")[3] for k in slice_weights(net, {**arch, "e": e})[1] if "2.0." in k} for e in (0, 1, 3)}
        assert keys == {0: {"skip"}, 1: {"depthwise", "project"}, 3: {"expand", "depthwise", "project"}}


def test_groups_are_the_first():
    net = NASBACKBONE(space([-1, 1, "RegBottleneck", [C2, 8, 3, 2]], [-1, 1, "Conv", [8]]))
    whole = net.model[2].block[0].branch[1].conv.weight
    state = slice_weights(net, {"w": 32, "row2.0": 16})[1]
    assert whole.shape == (32, 8, 3, 3)
    assert torch.equal(state["model.2.0.branch.1.conv.weight"], whole[:16])


def test_narrower_groups_lie_within_the_wider_ones():
    net = NASBACKBONE(space([-1, 1, "RegBottleneck", [16, choice(4, 8), 3, 2]], [-1, 1, "Conv", [8]]))
    whole = net.model[2].block[0].branch[1].conv.weight
    part = slice_weights(net, {"w": 32, "row2.1": 4})[1]["model.2.0.branch.1.conv.weight"]
    assert part.shape == (16, 4, 3, 3)
    for group in range(4):
        channels = slice(4 * group, 4 * group + 4)
        first = 4 * group % 8
        assert torch.equal(part[channels], whole[channels, first : first + 4])


def test_number_of_groups_is_open():
    net = NASBACKBONE(space([-1, 1, "Conv", [16, 3, 1, 1, choice(1, 4)]]))
    whole = net.model[2].block.conv.weight
    part = slice_weights(net, {"w": 32, "row2.4": 4})[1]["model.2.conv.weight"]
    assert whole.shape == (16, 32, 3, 3)
    for group in range(4):
        channels = slice(4 * group, 4 * group + 4)
        assert torch.equal(part[channels], whole[channels, 8 * group : 8 * group + 8])


def test_rows_behind_a_fixed_width_are_plain():
    net = NASBACKBONE({"nc": 2, "backbone": [[-1, 1, "Conv", [16, choice(1, 3)]], [-1, 1, "Conv", [16]]]})
    assert isinstance(net.model[1], Conv)
    assert isinstance(net.linear, torch.nn.Linear)


# Refusals, when the space is read.


def test_width_that_comes_and_goes_under_a_shortcut_is_refused():
    with refused("row 2 (Bottleneck)", "at row2.0=32, input channels 32", "identity shortcut", "one label"):
        NASBACKBONE(space([-1, 1, "Bottleneck", [choice(16, 32)]]))
    NASBACKBONE(space([-1, 1, "Bottleneck", [choice(16, 32), False]]))
    NASBACKBONE(space([-1, 1, "Bottleneck", [choice(16, 32, label="w")]]))


def test_repeats_that_change_the_width_are_refused():
    with refused("row 2 (Bottleneck)", "repeated 2 times it must keep its width"):
        NASBACKBONE(space([-1, choice(1, 2), "Bottleneck", [16, False]]))


def test_groups_that_do_not_fit_are_refused():
    with refused("row 2 (RegBottleneck)", "40 channels are no multiple of the group width 16"):
        NASBACKBONE(space([-1, 1, "RegBottleneck", [choice(32, 40), 16]]))
    with refused("row 2 (Conv)", "row2.0=24", "groups"):
        NASBACKBONE(space([-1, 1, "Conv", [choice(24, 32), 3, 1, 1, choice(2, 8)]], [-1, 1, "Conv", [16]]))
    with refused("row 2 (DWConv)", "row2.0=16, input channels 32", "groups"):
        NASBACKBONE(space([-1, 1, "DWConv", [choice(16, 24, 32), 3]]))


def test_heads_of_attention_that_are_no_part_of_one_another_are_refused():
    wide = choice(192, 256, label="v")  # halves: a head of 96 channels, two of 64
    with refused("row 3 (PSA)", "heads of 1 x 96 channels", "2 x 64", "one width"):
        NASBACKBONE(space([-1, 1, "Conv", [wide]], [-1, 1, "PSA", [wide]]))


def test_settings_of_different_output_sizes_are_refused():
    with refused("row 2 (Conv)", "row2.1=5", "62 x 62", "64 x 64", "stride and padding"):
        NASBACKBONE(space([-1, 1, "Conv", [16, choice(3, 5), 1, 1]]))


def test_channels_that_cannot_be_added_are_refused():
    with refused("row 3 (Add)", "inputs of one width", "32, 16"):
        NASBACKBONE(space([1, 1, "Conv", [16]], [[1, 2], 1, "Add", []]))
    with refused("row 2 (GhostBottleneck)", "row2.0=16, input channels 32", "broadcast"):
        NASBACKBONE(space([-1, 1, "GhostBottleneck", [choice(16, 32)]]))
