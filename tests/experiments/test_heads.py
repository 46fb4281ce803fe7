"""Every head keeps the contract, and so does one of a plug-in that has nothing of ours."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.testing import HeadContract
from models.head import Head
from models.registry import all_inputs, register


def _centre_head(config, row, c_in):
    return [row.args[0], all_inputs(row, c_in)], row.args[0] + 4


class CentreHead(Head):
    """A box and classes in the cell that has an object's centre."""

    parts: ClassVar = ("box", "cls")

    def __init__(self, nc, ch):
        super().__init__()
        self.nc, self.nl = nc, len(ch)
        self.m = nn.ModuleList(nn.Conv2d(c, 4 + nc, 1) for c in ch)

    def set_strides(self, strides):
        self.stride = torch.tensor(strides)

    def by_class(self):
        return {f"m.{i}": (1, 4) for i in range(self.nl)}

    def of_classes(self, logits, classes):
        return torch.cat([y[:, [0, 1, 2, 3, *(4 + i for i in classes)]].flatten() for y in logits])

    def forward(self, x):
        logits = [m(level) for m, level in zip(self.m, x, strict=True)]
        if self.training:
            return logits
        sides = [64 * y[:, :4].sigmoid().flatten(2) for y in logits]
        scores = [y[:, 4:].sigmoid().flatten(2) for y in logits]
        return torch.cat((torch.cat(sides, 2), torch.cat(scores, 2)), 1).transpose(1, 2), logits

    def loss(self, imgsz=640):
        def of(logits, targets):
            box = cls = sum(y.sum() * 0 for y in logits)
            for y in logits:
                wanted = torch.zeros_like(y[:, 4:])
                for image, label, *xywh in targets.tolist():
                    i, j = int(xywh[0] * y.shape[3]), int(xywh[1] * y.shape[2])
                    wanted[int(image), int(label), j, i] = 1
                    box = box + F.l1_loss(y[int(image), :4, j, i].sigmoid(), torch.tensor(xywh))
                cls = cls + F.binary_cross_entropy_with_logits(y[:, 4:], wanted)
            return (box + cls) * len(logits[0]), {"box": box.detach(), "cls": cls.detach()}

        return of


class TestDetect(HeadContract):
    row = ("Detect", ["nc", "anchors"])
    top = {"anchors": 2}  # noqa: RUF012


class TestDFL(HeadContract):
    row = ("Detect", ["nc"])


class TestDepthwise(HeadContract):
    row = ("Detect", ["nc", {"depthwise": True, "reg_max": 8}])


class TestEndToEnd(HeadContract):
    row = ("Detect", ["nc"])
    top = {"end2end": True, "reg_max": 1, "depthwise": True}  # noqa: RUF012


class TestSegment(HeadContract):
    row = ("Segment", ["nc", "anchors", 8, 16])
    top = {"anchors": 2}  # noqa: RUF012


class TestSemantic(HeadContract):
    row = ("Semantic", ["nc", 16])


class TestOfAPlugin(HeadContract):
    row = ("CentreHead", ["nc"])

    @pytest.fixture(autouse=True)
    def plugin(self):
        register(channels=_centre_head)(CentreHead)
