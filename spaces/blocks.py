"""The searchable blocks `NASConv` and `NASC3` as NNI mutables, with the attribute names of the plain blocks.

Because the names are the plain blocks', what NNI's `freeze` leaves of a supernet has the state dict keys of the plain
network that `spaces.freeze` describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.blocks import C3, Bottleneck, Conv, activation
from models.blocks.conv import BatchNorm2d
from models.blocks.drop_path import drop_path
from models.grammar import Call

from .fused import fast_layout, mixed_conv, norm_act, weights_of
from .nas_rows import ACTIVATIONS, BOTTLENECK_RATIOS, NASC3Row, NASConvRow, kernel_candidates
from .nni_compat import LayerChoice, MixedOperation, ParametrizedModule, nni, traverse_all_options
from .supernet_parts import MixedLayer


class NASConv(nn.Module):
    """A convolution whose kernel and activation are layer choices: bare convolutions, one batch norm, activations."""

    def __init__(self, c1: int, c2: int, kernels: list[tuple[int, int]], stride: int, label: str) -> None:
        super().__init__()
        self.conv = LayerChoice([nn.Conv2d(c1, c2, k, stride, p, bias=False) for k, p in kernels], label=label)
        self.bn = BatchNorm2d(c2)
        self.act = LayerChoice([activation(Call(name)) for name in ACTIVATIONS], label=f"{label}_act")

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.conv, MixedLayer) or not isinstance(self.act, MixedLayer):
            return self.act(self.bn(self.conv(x)))
        kernel, act = self.conv.chosen, self.act.chosen
        if isinstance(kernel, int) and isinstance(act, int):
            return self.act(self.bn(self.conv(x)))
        y = mixed_conv(fast_layout(x), cast(Any, list(self.conv)), kernel)
        if isinstance(act, int):
            return norm_act(y, self.bn, [self.act[act]])
        return norm_act(y, self.bn, [self.act[i] for i in act.paths], weights_of(act))


class MutableBottleneck(ParametrizedModule, Bottleneck, wraps=Bottleneck):  # type: ignore[call-arg]
    """`Bottleneck` whose `hidden` may be a value choice."""


class MixedBottleneck(MixedOperation, Bottleneck):
    """`MutableBottleneck` in a supernet: the widest hidden layer, of which narrower archs use the first channels.

    Where NNI's own mixed convolution weighs the channels before the batch normalisation, which takes the weights out
    again, a mixture of widths is a mask on the activated hidden channels here (FBNetV2: Wan et al. 2020,
    arXiv:2004.05565, section 3.1), so that the widths' probabilities get a gradient.
    """

    bound_type = MutableBottleneck
    argument_list = ["hidden"]  # noqa: RUF012  (NNI reads it from the class)

    def super_init_argument(self, name: str, value_choice: Any) -> int:
        return max(traverse_all_options(value_choice))

    def freeze_weight(self, hidden: int, **_: Any) -> dict[str, Tensor]:
        """State dict of the bottleneck of `hidden` channels."""
        state = {f"cv1.bn.{k}": v if v.ndim == 0 else v[:hidden] for k, v in self.cv1.bn.state_dict().items()}
        state["cv1.conv.weight"] = self.cv1.conv.weight[:hidden]
        state["cv2.conv.weight"] = self.cv2.conv.weight[:, :hidden]
        return {**state, **{f"cv2.bn.{k}": v for k, v in self.cv2.bn.state_dict().items()}}

    def forward_with_args(self, hidden: int | Mapping[int, Tensor], x: Tensor) -> Tensor:
        y = self._sliced(hidden, x) if isinstance(hidden, int) else self._masked(hidden, x)
        return x + drop_path(y, self.drop_prob, self.training) if self.add else y

    def _masked(self, hidden: Mapping[int, Tensor], x: Tensor) -> Tensor:
        widest = max(hidden)
        channels = torch.arange(widest, device=x.device)
        mask = torch.stack([torch.as_tensor(p) * (channels < width) for width, p in hidden.items()]).sum(0)
        first, second = self.cv1, self.cv2
        y = nn.functional.conv2d(x, first.conv.weight[:widest])
        y = norm_act(y, cast(nn.BatchNorm2d, first.bn), [first.act], mask=mask)
        y = nn.functional.conv2d(y, second.conv.weight[:, :widest], padding=second.conv.padding)
        return norm_act(y, cast(nn.BatchNorm2d, second.bn), [second.act])

    def _sliced(self, hidden: int, x: Tensor) -> Tensor:
        conv, bn = self.cv1.conv, cast(nn.BatchNorm2d, self.cv1.bn)
        if self.training:
            cast(Tensor, bn.num_batches_tracked).add_(1)
        y = nn.functional.conv2d(x, conv.weight[:hidden])
        y = nn.functional.batch_norm(
            y,
            cast(Tensor, bn.running_mean)[:hidden],
            cast(Tensor, bn.running_var)[:hidden],
            bn.weight[:hidden],
            bn.bias[:hidden],
            self.training,
            cast(float, bn.momentum),
            bn.eps,
        )
        y = nn.functional.conv2d(self.cv1.act(y), self.cv2.conv.weight[:, :hidden], padding=self.cv2.conv.padding)
        return self.cv2.act(self.cv2.bn(y))


class NASC3Candidate(nn.Module):
    """C3 of one hidden width: searchable `cv1` and `cv2`, a plain last convolution, bottlenecks of searchable width."""

    def __init__(self, c1: int, row: NASC3Row, hidden: int) -> None:
        super().__init__()
        first, second = row.conv_labels
        self.cv1 = NASConv(c1, hidden, kernel_candidates(1, None), 1, first)
        self.cv2 = NASConv(c1, hidden, kernel_candidates(1, None), 1, second)
        self.cv3 = Conv(2 * hidden, row.c2, 1)
        self.m = nn.Sequential(*(self._bottleneck(hidden, row.shortcut, label) for label in row.bottleneck_labels))

    @staticmethod
    def _bottleneck(hidden: int, shortcut: bool, label: str) -> nn.Module:
        width = round(nni.choice(label, list(BOTTLENECK_RATIOS)) * hidden)
        return MutableBottleneck(c1=hidden, c2=hidden, shortcut=shortcut, hidden=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class MixedWidths(MixedLayer):
    """A C3's layer choice of widths in a supernet."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.chosen
        if isinstance(chosen, int):
            return super().forward(x)
        x = fast_layout(x)
        total: Tensor | None = None
        for i in chosen.paths:
            c3 = cast("NASC3Candidate | C3", self[i])
            y = c3.cv3.conv(torch.cat((c3.m(c3.cv1(x)), c3.cv2(x)), 1))
            y = norm_act(y, cast(nn.BatchNorm2d, c3.cv3.bn), [c3.cv3.act], chosen.weights[i : i + 1])
            total = y if total is None else total.add_(y)
        return cast(Tensor, total)

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        ours = "active" in mutate_kwargs and type(module) is LayerChoice
        if ours and all(isinstance(c, (NASC3Candidate, C3)) for c in cast(LayerChoice, module)):
            return cls(cast(LayerChoice, module), mutate_kwargs["active"])
        return None


def build_nas_conv(row: NASConvRow, c1: int) -> tuple[nn.Module, int]:
    """The supernet block of a `NASConv` row, and channels of its output."""
    return NASConv(c1, row.c2, row.kernels, row.stride, row.label), row.c2


def build_nas_c3(row: NASC3Row, c1: int) -> tuple[nn.Module, int]:
    """The supernet block of a `NASC3` row, and channels of its output."""
    candidates: list[nn.Module] = [NASC3Candidate(c1, row, hidden) for hidden in row.widths if not row.upstream_form]
    if row.upstream_form:
        candidates = [C3(c1, row.c2, row.n, row.shortcut, e=row.expansion(i)) for i in range(len(row.widths))]
    return LayerChoice(candidates, label=row.label), row.c2


BUILDERS: dict[type, Any] = {NASConvRow: build_nas_conv, NASC3Row: build_nas_c3}
