"""Every registered module: built from a row, and held against a definition written out here."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import Call, Classifier, read_config
from models.blocks import (
    C3,
    SPP,
    SPPF,
    Bottleneck,
    BottleneckCSP,
    Concat,
    Contract,
    Conv,
    CrossConv,
    DWConv,
    Expand,
    Focus,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
    TransformerBlock,
)
from models.catalog import registered
from models.network import build_row
from tests.models.block_rows import ROWS
from tests.random_state import randomized

# What upstream's constructors take after c1, in their order (v7.0); positional rows rely on it.
POSITIONAL = {
    "Conv": "c2 k s p g d act",
    "DWConv": "c2 k s d act",
    "Bottleneck": "c2 shortcut g e",
    "BottleneckCSP": "c2 n shortcut g e",
    "C3": "c2 n shortcut g e",
    "C3x": "c2 n shortcut g e",
    "C3TR": "c2 n shortcut g e",
    "C3SPP": "c2 k n shortcut g e",
    "C3Ghost": "c2 n shortcut g e",
    "GhostConv": "c2 k s g act",
    "GhostBottleneck": "c2 k s",
    "SPP": "c2 k",
    "SPPF": "c2 k n shortcut",
    "Focus": "c2 k s p g act",
    "CrossConv": "c2 k s g e shortcut",
    "MixConv2d": "c2 k s equal_ch",
    "DWConvTranspose2d": "c2 k s p1 p2",
    "C2f": "c2 n shortcut g e",
    "C3k": "c2 n shortcut g e k",
    "C3k2": "c2 n c3k e attn g shortcut",
    "C2fCIB": "c2 n shortcut lk g e",
    "SCDown": "c2 k s",
    "PSA": "c2 e",
    "C2PSA": "c2 n e",
    "RepCSP": "c2 n shortcut g e",
}
TAKE_THE_REPEAT_COUNT = {
    "BottleneckCSP",
    "C3",
    "C3x",
    "C3TR",
    "C3Ghost",
    "C2f",
    "C3k",
    "C3k2",
    "C2fCIB",
    "C2PSA",
    "RepCSP",
}


def _built(row, **keys):
    cfg = {"nc": 2, "anchors": 3, "backbone": [[-1, 1, "Conv", [16, 3, 1]], [-1, 1, "Conv", [16, 3, 1]], row], **keys}
    return Classifier(cfg)


def _x(channels, height=8, width=6):
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_every_registered_module_is_tested_here():
    assert set(ROWS) == set(registered()) - {"DetectDFL", "Segment", "Semantic"}  # which keep the contract of heads


@pytest.mark.parametrize("name", ROWS)
def test_row_gives_the_promised_channels_and_size(name):
    row, channels, size = ROWS[name]
    network = _built(row)
    assert network.channels[-1] == channels
    output = network.eval().run_rows(torch.rand(2, 3, 16, 16))
    if size is not None:
        assert output.shape == (2, channels, size, size)


@pytest.mark.parametrize("name", ROWS)
def test_every_batch_norm_has_the_constants(name):
    found = [m for m in _built(ROWS[name][0]).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(bn.eps, bn.momentum) for bn in found} == {(1e-3, 0.03)}


@pytest.mark.parametrize("name", [n for n in ROWS if n in POSITIONAL])
def test_width_is_scaled(name):
    source, number, module, args = ROWS[name][0]
    if name == "GhostBottleneck":
        args = [*args[:1], 3, 2]
    elif name == "Bottleneck":
        number = 1
    network = _built([source, number, module, args], width_multiple=0.5)
    assert network.channels == [8, 8, -(-args[0] // 16) * 8]
    network.eval().run_rows(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("name", POSITIONAL)
def test_arguments_stand_where_upstream_has_them(name):
    parameters = inspect.signature(registered()[name].cls).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[: len(POSITIONAL[name].split()) + 1] == ["c1", *POSITIONAL[name].split()]


@pytest.mark.parametrize("name", POSITIONAL)
def test_repeats(name):
    block = _built([-1, 3, name, [16]]).model[-1]
    assert registered()[name].repeats == (name in TAKE_THE_REPEAT_COUNT)
    if name not in TAKE_THE_REPEAT_COUNT:
        assert isinstance(block, nn.Sequential)
        assert len(block) == 3
        assert len({id(m) for m in block}) == 3
    elif name == "C3TR":
        assert len(block.m.tr) == 3
    else:
        assert len(block.m) == 3


# Against definitions.


def _conv_reference(conv, x, padding, stride=1, groups=1, dilation=1, act=F.silu):
    y = F.conv2d(x, conv.conv.weight, None, stride, padding, dilation, groups)
    bn = conv.bn
    y = (y - bn.running_mean.view(1, -1, 1, 1)) / (bn.running_var.view(1, -1, 1, 1) + 1e-3).sqrt()
    return act(y * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({"k": 3, "s": 2}, {"padding": 1, "stride": 2}),
        ({"k": 6, "s": 2, "p": 2}, {"padding": 2, "stride": 2}),
        ({"k": [1, 3]}, {"padding": (0, 1)}),
        ({"k": 3, "d": 2}, {"padding": 2, "dilation": 2}),
        ({"k": 2, "d": 3}, {"padding": 2, "dilation": 3}),
        ({"k": (3, 5), "d": 2}, {"padding": (2, 4), "dilation": 2}),
        ({"k": 3, "g": 4}, {"padding": 1, "groups": 4}),
        ({"act": False}, {"padding": 0, "act": lambda y: y}),
        ({"act": Call("nn.LeakyReLU", (0.2,))}, {"padding": 0, "act": lambda y: F.leaky_relu(y, 0.2)}),
        ({"act": nn.Tanh()}, {"padding": 0, "act": torch.tanh}),
    ],
)
def test_conv(arguments, reference):
    conv, x = randomized(Conv(8, 12, **arguments)), _x(8)
    assert conv.conv.bias is None
    torch.testing.assert_close(conv(x), _conv_reference(conv, x, **reference))
    before = conv(x)
    conv.fuse()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in conv.modules())
    torch.testing.assert_close(conv(x), before, atol=1e-5, rtol=1e-4)
    fused = {k: v.clone() for k, v in conv.state_dict().items()}
    conv.fuse()
    assert all(torch.equal(v, fused[k]) for k, v in conv.state_dict().items())


def test_dwconv_has_as_many_groups_as_divide_both():
    assert DWConv(12, 18, 3).conv.groups == 6
    assert DWConv(8, 8, 3).conv.weight.shape == (8, 1, 3, 3)
    assert registered()["DWConvTranspose2d"].cls(12, 18, 3).groups == 6


@pytest.mark.parametrize(("c2", "shortcut", "added"), [(8, True, True), (8, False, False), (12, True, False)])
def test_bottleneck_adds_where_widths_allow(c2, shortcut, added):
    block, x = randomized(Bottleneck(8, c2, shortcut, e=0.75)), _x(8)
    hidden = _conv_reference(block.cv1, x, 0)
    assert hidden.shape[1] == int(c2 * 0.75)
    expected = _conv_reference(block.cv2, hidden, 1) + (x if added else 0)
    torch.testing.assert_close(block(x), expected)
    assert Bottleneck(8, 8, hidden=5).cv1.conv.out_channels == 5


def test_c3():
    block, x = randomized(C3(8, 12, 2, True, 1, 0.75)), _x(8)
    a, b = _conv_reference(block.cv1, x, 0), _conv_reference(block.cv2, x, 0)
    assert a.shape[1] == b.shape[1] == 9
    for m in block.m:
        a = a + _conv_reference(m.cv2, _conv_reference(m.cv1, a, 0), 1)
    torch.testing.assert_close(block(x), _conv_reference(block.cv3, torch.cat((a, b), 1), 0))


def test_c3_of_a_search():
    block = C3(8, 16, 2, cv1_k=3, cv1_act=Call("nn.ReLU"), cv2_act=Call("nn.Identity"), m_e=[1.5, 2])
    assert [m.cv1.conv.out_channels for m in block.m] == [12, 16]
    assert [m.cv1.conv.out_channels for m in C3(8, 16, 2, m_e=2).m] == [16, 16]
    assert (block.cv1.conv.kernel_size, block.cv2.conv.kernel_size) == ((3, 3), (1, 1))
    assert [type(c.act) for c in (block.cv1, block.cv2, block.cv3)] == [nn.ReLU, nn.Identity, nn.SiLU]
    x, block = _x(8), randomized(block)
    a, b = _conv_reference(block.cv1, x, 1, act=F.relu), _conv_reference(block.cv2, x, 0, act=lambda y: y)
    torch.testing.assert_close(block(x), _conv_reference(block.cv3, torch.cat((block.m(a), b), 1), 0))


def test_bottleneck_csp():
    block, x = randomized(BottleneckCSP(8, 12, 2)), _x(8)
    inner = block.m(_conv_reference(block.cv1, x, 0))
    joined = torch.cat((F.conv2d(inner, block.cv3.weight), F.conv2d(x, block.cv2.weight)), 1)
    bn = block.bn
    joined = F.silu(F.batch_norm(joined, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-3))
    torch.testing.assert_close(block(x), _conv_reference(block.cv4, joined, 0))
    assert all(m.cv1.conv.out_channels == 6 for m in block.m)


@pytest.mark.parametrize(
    ("name", "inner"), [("C3x", CrossConv), ("C3Ghost", GhostBottleneck), ("C3TR", TransformerBlock), ("C3SPP", SPP)]
)
def test_c3_variants_differ_in_the_middle_only(name, inner):
    block, x = randomized(registered()[name].cls(8, 16)), _x(8)
    middle = block.m if isinstance(block.m, inner) else block.m[0]
    assert isinstance(middle, inner)
    a, b = _conv_reference(block.cv1, x, 0), _conv_reference(block.cv2, x, 0)
    torch.testing.assert_close(block(x), _conv_reference(block.cv3, torch.cat((block.m(a), b), 1), 0))


def test_ghost_conv():
    block, x = randomized(GhostConv(8, 12, 3, 2)), _x(8)
    half = _conv_reference(block.cv1, x, 1, 2)
    assert half.shape[1] == 6
    torch.testing.assert_close(block(x), torch.cat((half, _conv_reference(block.cv2, half, 2, groups=6)), 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_ghost_bottleneck(stride):
    block, x = randomized(GhostBottleneck(8, 8, 3, stride)), _x(8)
    y = block.conv[0](x)
    if stride == 2:
        y = _conv_reference(block.conv[1], y, 1, 2, groups=4, act=lambda v: v)
    y = _conv_reference(block.conv[2].cv1, y, 0, act=lambda v: v)
    y = torch.cat((y, _conv_reference(block.conv[2].cv2, y, 2, groups=4, act=lambda v: v)), 1)
    shortcut = x
    if stride == 2:
        shortcut = _conv_reference(block.shortcut[0], x, 1, 2, groups=8, act=lambda v: v)
        shortcut = _conv_reference(block.shortcut[1], shortcut, 0, act=lambda v: v)
    torch.testing.assert_close(block(x), y + shortcut)


def test_sppf_is_spp_of_5_9_13():
    spp, sppf, x = SPP(8, 12), SPPF(8, 12), _x(8, 16, 16)
    sppf.load_state_dict(randomized(spp).state_dict())
    torch.testing.assert_close(spp(x), sppf.eval()(x), rtol=0, atol=0)
    y = _conv_reference(spp.cv1, x, 0)
    pooled = [F.max_pool2d(F.pad(y, [k // 2] * 4, value=-torch.inf), k, 1) for k in (5, 9, 13)]
    torch.testing.assert_close(spp(x), _conv_reference(spp.cv2, torch.cat((y, *pooled), 1), 0))


def test_focus_takes_every_second_pixel():
    block, x = randomized(Focus(3, 8, 3)), _x(3)
    quarters = F.pixel_unshuffle(x, 2).view(2, 3, 2, 2, 4, 3)  # (N, c, row, column, H/2, W/2)
    ordered = torch.cat([quarters[:, :, row, col] for row, col in ((0, 0), (1, 0), (0, 1), (1, 1))], 1)
    torch.testing.assert_close(block(x), _conv_reference(block.conv, ordered, 1))


@pytest.mark.parametrize("gain", [2, 4])
def test_contract_and_expand_are_inverse(gain):
    x = _x(gain**2 * 2, gain * 2, gain * 3)
    assert torch.equal(Expand(gain)(Contract(gain)(x)), x)
    assert torch.equal(Contract(gain)(Expand(gain)(x)), x)
    n, c, h, w = x.shape
    unshuffled = F.pixel_unshuffle(x, gain).view(n, c, gain**2, h // gain, w // gain)
    assert torch.equal(Contract(gain)(x), unshuffled.transpose(1, 2).flatten(1, 2))  # the cell is the slowest


def test_cross_conv():
    block, x = randomized(CrossConv(8, 8, 3, 2, 1, 0.5)), _x(8)
    assert block.cv1.conv.weight.shape == (4, 8, 1, 3)
    assert block.cv2.conv.weight.shape == (8, 4, 3, 1)
    y = _conv_reference(block.cv2, _conv_reference(block.cv1, x, (0, 1), (1, 2)), (1, 0), (2, 1))
    torch.testing.assert_close(block(x), y)
    block = randomized(CrossConv(8, 8, 3, 1, 1, 1.0, True))
    torch.testing.assert_close(block(x) - x, block.cv2(block.cv1(x)))
    assert not CrossConv(8, 12, shortcut=True).add


@pytest.mark.parametrize(
    ("c2", "k", "equal", "widths"),
    [
        (8, (1, 3), True, [4, 4]),
        (9, (1, 3), True, [5, 4]),
        (40, (1, 3), False, [36, 4]),
        (12, (3, 5, 7), True, [4, 4, 4]),
    ],
)
def test_mixconv_split(c2, k, equal, widths):
    block, x = randomized(MixConv2d(8, c2, k, 1, equal)), _x(8)
    assert [m.out_channels for m in block.m] == widths
    assert [m.kernel_size[0] for m in block.m] == list(k)
    y = [F.conv2d(x, m.weight, padding=kk // 2, groups=m.groups) for m, kk in zip(block.m, k, strict=True)]
    bn = block.bn
    expected = F.batch_norm(torch.cat(y, 1), bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-3)
    torch.testing.assert_close(block(x), F.silu(expected))
    assert not equal or block.m[0].groups == torch.gcd(torch.tensor(8), torch.tensor(widths[0]))


def test_transformer_is_attention_over_cells():
    block, x = TransformerBlock(8, 8, 4, 1).eval(), _x(8, 3, 5)
    layer = block.tr[0]
    cells = x.flatten(2).transpose(1, 2)
    cells = cells + block.linear(cells)
    q, k, v = (
        F.linear(proj(cells), w, b).view(2, 15, 4, 2).transpose(1, 2)
        for proj, w, b in zip(
            (layer.q, layer.k, layer.v), layer.ma.in_proj_weight.chunk(3), layer.ma.in_proj_bias.chunk(3), strict=True
        )
    )
    weights = (q @ k.transpose(-1, -2) / 2**0.5).softmax(-1)
    y = layer.ma.out_proj((weights @ v).transpose(1, 2).reshape(2, 15, 8)) + cells
    y = layer.fc2(layer.fc1(y)) + y
    torch.testing.assert_close(block(x), y.transpose(1, 2).view(2, 8, 3, 5))
    assert TransformerBlock(4, 8, 4, 1)(_x(4)).shape == (2, 8, 8, 6)


def test_concat_along_its_dimension():
    a, b = _x(2), _x(3)
    assert torch.equal(Concat()([a, b]), torch.cat((a, b), 1))
    assert Concat(2)([a, a]).shape == (2, 2, 16, 6)


def test_build_row_gives_plain_arguments():
    row = read_config({"nc": 2, "backbone": [[-1, 1, "Conv", [8, [3, 5], [2, 1]]]]}).rows[0]
    conv, channels = build_row(read_config({"backbone": [[-1, 1, "Conv", [8]]]}), row, [3])
    assert channels == 8
    assert (conv.conv.kernel_size, conv.conv.stride, conv.conv.padding) == ((3, 5), (2, 1), (1, 2))


def test_the_first_convolution_of_sppf_is_linear_in_the_form_with_a_number_of_pools():
    assert isinstance(SPPF(16, 16, 5).cv1.act, nn.SiLU)
    assert isinstance(SPPF(16, 16, 5, 3, True).cv1.act, nn.Identity)
