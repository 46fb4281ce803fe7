"""C2f, its kin, and attention, against definitions written out here."""

import pytest
import torch
from torch.nn import functional as F

from models.blocks import C2PSA, PSA, SPPF, Attention, C2f, C2fCIB, C3k2, RepVGGDW
from models.errors import InputError
from tests.random_state import randomized


def x(channels, side=6):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_c2f_keeps_what_every_bottleneck_makes():
    block = randomized(C2f(8, 12, 2, True))
    a, b = block.cv1(x(8)).split(6, 1)
    c = b + block.m[0].cv2(block.m[0].cv1(b))
    d = c + block.m[1].cv2(block.m[1].cv1(c))
    torch.testing.assert_close(block(x(8)), block.cv2(torch.cat((a, b, c, d), 1)))
    assert {m.kernel_size for m in block.m.modules() if isinstance(m, torch.nn.Conv2d)} == {(3, 3)}


def test_attention_is_that_of_its_heads():
    attention = randomized(Attention(128, 2))
    qkv = attention.qkv(x(128)).flatten(2).view(2, 2, 128, 36)
    q, k, v = qkv[:, :, :32], qkv[:, :, 32:64], qkv[:, :, 64:]
    mixed = F.scaled_dot_product_attention(*(t.transpose(2, 3) for t in (q, k, v))).transpose(2, 3)
    shape = (2, 128, 6, 6)
    expected = attention.proj(mixed.reshape(shape) + attention.pe(v.reshape(shape)))
    torch.testing.assert_close(attention(x(128)), expected)


def test_psa_is_c2psa_of_one():
    one, several = randomized(PSA(16, 16)), randomized(C2PSA(16, 16, 1))
    state = {k.replace("m.0.", ""): v for k, v in several.state_dict().items()}
    one.load_state_dict(state)
    torch.testing.assert_close(one(x(16)), several(x(16)), rtol=0, atol=0)
    with pytest.raises(InputError, match="16 channels and asked for 32"):
        PSA(16, 32)


def test_attention_stands_in_c3k2_behind_a_bottleneck():
    block = C3k2(128, 256, 1, True, 0.5, True)
    assert block.m[0][1].attn.num_heads == 2
    assert block.m[0][0].cv1.conv.out_channels == 64


@pytest.mark.parametrize("n", [1, 3])
def test_sppf_of_so_many_pools_and_a_shortcut(n):
    block = randomized(SPPF(16, 16, 5, n, True))
    y = block.cv1(x(16))
    pools = [y, *(F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)[:n])]
    torch.testing.assert_close(block(x(16)), x(16) + block.cv2(torch.cat(pools, 1)))


def test_large_kernels_become_one():
    block = randomized(C2fCIB(8, 12, 1, True, True))
    large = next(m for m in block.modules() if isinstance(m, RepVGGDW))
    expected = large(x(12))
    torch.testing.assert_close(expected, F.silu(large.conv(x(12)) + large.conv1(x(12))))
    large.fuse()
    torch.testing.assert_close(large(x(12)), expected, rtol=1e-4, atol=1e-5)
    assert [m.kernel_size for m in large.modules() if isinstance(m, torch.nn.Conv2d)] == [(7, 7)]
