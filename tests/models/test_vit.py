"""Transformer blocks beside their definition, and AutoFormer's space beside its published sizes."""

import pytest
import torch

from models import Classifier, count_params
from models.blocks.vit import HEAD, Encoder, PatchEmbed, RelativeAttention
from models.errors import InputError
from spaces import NASBACKBONE, Space, slice_weights


def attention_by_definition(attention, x, h, w):
    """Section 3 of Shaw et al. 2018, token by token."""
    found = torch.zeros(x.shape[0], x.shape[1], HEAD * attention.num_heads)
    for n in range(len(x)):
        for head in range(attention.num_heads):
            own = attention.qkv(x[n])[:, 3 * HEAD * head : 3 * HEAD * (head + 1)]
            q, k, v = own.split(HEAD, 1)
            for i in range(h * w):
                at = [
                    (max(-14, min(14, j // w - i // w)) + 14, max(-14, min(14, j % w - i % w)) + 14)
                    for j in range(h * w)
                ]
                keys = torch.stack([attention.key_rows[r] + attention.key_columns[c] for r, c in at])
                values = torch.stack([attention.value_rows[r] + attention.value_columns[c] for r, c in at])
                weights = ((k + keys) @ q[i] / HEAD**0.5).softmax(0)
                found[n, i, HEAD * head : HEAD * (head + 1)] = weights @ (v + values)
    return attention.proj(found)


@pytest.mark.parametrize(("h", "w"), [(3, 2), (1, 17)])
def test_attention_is_that_of_its_definition(h, w):
    torch.manual_seed(0)
    attention = RelativeAttention(8, 2)
    for table in (attention.key_rows, attention.key_columns, attention.value_rows, attention.value_columns):
        torch.nn.init.normal_(table)
    x = torch.randn(2, h * w, 8)
    with torch.no_grad():
        assert torch.allclose(attention(x, h, w), attention_by_definition(attention, x, h, w), atol=1e-5)


def test_positions_are_interpolated_for_another_map():
    embed = PatchEmbed(3, 4, 2, 3)
    torch.nn.init.zeros_(embed.proj.weight), torch.nn.init.zeros_(embed.proj.bias)
    assert torch.equal(embed(torch.rand(1, 3, 6, 6)), embed.position)
    larger = embed(torch.rand(1, 3, 12, 8))
    assert larger.shape == (1, 4, 6, 4)
    assert torch.allclose(larger.mean(), embed.position.mean(), atol=0.02)


def test_an_encoder_keeps_its_width():
    with pytest.raises(InputError, match="it keeps its width, but it is fed 8 channels and asked for 16"):
        Encoder(8, 16)


def test_autoformer_tiny_has_the_published_space():
    space = Space("autoformer_tiny.yaml")
    values = {label: decision.values for label, decision in space.decisions.items()}
    assert values["embed"] == (192, 216, 240)
    assert {label for label in values if label not in ("embed", "last")} == {
        f"{kind}{i}" for kind in ("heads", "ratio") for i in range(1, 15)
    }
    # An arch of the size of AutoFormer-T (13 encoders of 192 channels, 5.7 M), counted by hand. Its class token and one
    # position more, 384 numbers, are not here.
    arch = {label: decision.values[0] for label, decision in space.decisions.items()} | {"last": 2}
    arch |= {f"ratio{i}": 4.0 for i in (3, 5, 7)}
    with torch.device("meta"):
        network = Classifier(space.freeze(arch))
    c, heads, tables = 192, 3, 4 * 29 * HEAD
    of_block = 4 * c + (c + 1) * 3 * HEAD * heads + (HEAD * heads + 1) * c + tables
    hidden = [int(c * arch[f"ratio{i}"]) for i in range(1, 14)]
    of_blocks = sum(of_block + (c + 1) * n + (n + 1) * c for n in hidden)
    expected = (3 * 256 + 1) * c + 196 * c + of_blocks + 2 * c + (c + 1) * 1000
    assert count_params(network) == expected
    assert 5.3e6 < expected < 6.0e6


def test_slices_are_the_first_heads_and_hidden_units():
    rows = [
        [-1, 1, "PatchEmbed", [8, 4, 4]],
        [
            -1,
            {"choice": [1, 2]},
            "Encoder",
            [8, {"choice": [1, 2], "label": "heads"}, {"choice": [1, 2], "label": "ratio"}],
        ],
    ]
    net = NASBACKBONE({"nc": 2, "backbone": rows})
    whole = dict(net.model[1].block.named_parameters())
    with torch.no_grad():
        for name in ("m.0.attn.qkv.weight", "m.0.fc1.weight", "m.0.attn.proj.weight"):
            dim = 1 if "proj" in name else 0
            shape = [1, 1]
            shape[dim] = -1
            whole[name].copy_(torch.arange(whole[name].shape[dim]).float().view(shape).expand(whole[name].shape))
    arch = {"heads": 1, "ratio": 1, "row1.number": 1}
    _, state = slice_weights(net, {**net.space.upstream(), **arch})
    assert state["model.1.m.0.attn.qkv.weight"][:, 0].tolist() == [*range(3 * HEAD)]
    assert state["model.1.m.0.attn.proj.weight"][0].tolist() == [*range(HEAD)]
    assert state["model.1.m.0.fc1.weight"][:, 0].tolist() == [*range(8)]
    assert not [name for name in state if ".m.1." in name]
