"""A model space as a user of NNI writes it."""

import nni
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, MutableConv2d, Repeat
from torch import nn


class MySpace(ModelSpace):
    """A value, a layer, inputs, depths and a cell."""

    def __init__(self, width=4, num_classes=10):
        super().__init__()
        kernel = nni.choice("kernel", [1, 3])
        self.stem = MutableConv2d(3, width, kernel, stride=2, padding=kernel // 2)
        convolution = nn.Conv2d(width, width, 3, padding=1)
        self.layer = LayerChoice({"conv": convolution, "pool": nn.MaxPool2d(3, 1, 1)}, label="layer")
        self.inputs = InputChoice(3, 2, reduction="sum", label="inputs")
        self.cell = Cell([nn.Conv2d(width, width, 1), nn.ReLU()], num_nodes=2, label="cell")
        block = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.body = Repeat(block, (1, 2), label="depth")
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = self.stem(x)
        y = self.inputs([x, self.layer(x), x.relu()])
        return self.head(self.body(self.cell([y])).mean((2, 3)))


class Fixed(ModelSpace):
    """Nothing to choose."""

    def __init__(self, num_labels=10):
        super().__init__()
        self.head = nn.Linear(3, num_labels)

    def forward(self, x):
        return self.head(x.mean((2, 3)))
