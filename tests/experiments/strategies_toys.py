"""Small spaces, data and evaluators for the strategies' tests, and one way to run a strategy on them."""

from functools import partial

import nni
import numpy as np
import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear, Repeat
from nni.nas.space import RawFormatModelSpace
from torch import nn

from experiments import strategies
from experiments.run.callbacks import LastCheckpoint
from experiments.search import Genetic
from experiments.tasks.evaluator import Classification, DataLoader
from spaces.blocks import MixedBottleneck, MutableBottleneck

_FEW = {"searcher": Genetic(population=8, top=3), "evaluations": 24}

# Name to a maker of the strategy, with settings for few steps.
STRATEGIES = {
    "darts": partial(strategies.DARTS, arc_learning_rate=0.1),
    "darts-dirichlet": partial(strategies.DARTS, arc_learning_rate=0.1, relax="dirichlet"),
    "darts-2nd": partial(strategies.SecondOrderDARTS, arc_learning_rate=0.1),
    "gumbel": partial(strategies.GumbelDARTS, arc_learning_rate=0.1),
    "proxyless": partial(strategies.Proxyless, arc_learning_rate=0.1),
    "proxyless-reinforce": partial(strategies.Proxyless, arc_learning_rate=0.03, update="reinforce"),
    "enas": partial(strategies.ENAS, arc_learning_rate=0.01),
    "spos": partial(strategies.SPOS, **_FEW),
    "fairnas": partial(strategies.FairNAS, **_FEW),
    "cream": partial(strategies.Cream, board=5, meta_every=1),
}


class Noise(nn.Module):
    """What nothing can be learned from."""

    def forward(self, x):
        return torch.randn_like(x)


class Planted(ModelSpace):
    """A choice for each half of the input: one candidate lets it through, the two others make noise of it."""

    def __init__(self, good, candidates=lambda g: [nn.Identity() if i == g else Noise() for i in range(3)]):
        super().__init__()
        self.halves = nn.ModuleList(LayerChoice(candidates(g), label=f"half{n}") for n, g in enumerate(good))
        self.classifier = nn.Linear(8, 2)

    def forward(self, x):
        halves = zip(self.halves, x.chunk(2, 1), strict=True)
        return self.classifier(torch.cat([half(part) for half, part in halves], 1))


class Elastic(ModelSpace):
    """Every kind of choice that one-shot strategies take: layers, widths, kernels, depth, and our bottleneck."""

    def __init__(self):
        super().__init__()
        width, hidden, kernel = nni.choice("width", [4, 8]), nni.choice("hidden", [1, 1.5, 2]), nni.choice("k", [1, 3])
        self.conv = MutableConv2d(3, width, kernel, padding=kernel // 2, bias=False)
        self.bn = MutableBatchNorm2d(width)
        self.project = MutableConv2d(width, 8, 1)
        self.bottleneck = MutableBottleneck(c1=8, c2=8, hidden=round(hidden * 4))
        self.deep = Repeat(lambda _: nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.SiLU()), (0, 2), label="d")
        candidates = {"max": nn.AdaptiveMaxPool2d(1), "mean": nn.AdaptiveAvgPool2d(1)}
        self.pool = LayerChoice(candidates, label="pool")
        features = nni.choice("features", [4, 6])
        self.first, self.last = MutableLinear(8, features), MutableLinear(features, 3)
        self.dropout = nn.Dropout(0.1)

    def extra_oneshot_hooks(self, strategy):
        return [MixedBottleneck.mutate]

    def forward(self, x):
        x = self.deep(self.bottleneck(self.project(self.bn(self.conv(x)).relu())))
        return self.last(self.dropout(self.first(self.pool(x).flatten(1)).relu()))


class Cost:
    """A budget of a price for every value; the target's penalty grows with the expected price.

    Parameters
    ----------
    prices
        Label to prices in the order of the values.
    """

    def __init__(self, choices, prices, limit=float("inf"), weight=0.0):
        self.prices = {k: dict(zip(choices[k], prices[k], strict=True)) for k in choices}
        self.limit, self.weight = limit, weight

    def of(self, arch):
        return sum(self.prices[label][value] for label, value in arch.items())

    def feasible(self, archs):
        return [self.of(arch) <= self.limit for arch in archs]

    def cheapest(self):
        return {label: min(prices, key=prices.get) for label, prices in self.prices.items()}

    def penalty(self, probabilities):
        expected = [(p * torch.tensor([*self.prices[k].values()]).to(p)).sum() for k, p in probabilities.items()]
        return self.weight * torch.stack(expected).sum()


class Data(torch.utils.data.Dataset):
    """Inputs and labels."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def separable(num=128, seed=0):
    """Vectors of 8, whose sum says the class."""
    x = torch.randn(num, 8, generator=torch.Generator().manual_seed(seed))
    return Data(x, (x.sum(1) > 0).long())


def images(num=12, side=8, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(num) % classes
    return Data(torch.rand(num, 3, side, side, generator=generator) + y[:, None, None, None] / 2, y)


def evaluator(data, trainer, batch=4, checkpoint=None, shuffle=True, **settings):
    """Classification of `data`, one half for the weights, the other for the architecture."""
    half = len(data) // 2
    parts = [Data(data.x[:half], data.y[:half]), Data(data.x[half:], data.y[half:])]
    # Shuffled by the global generator, as most people's loaders are.
    train, val = (DataLoader(part, batch_size=batch, shuffle=shuffle) for part in parts)
    fit_kwargs = {} if checkpoint is None else {"ckpt_path": str(checkpoint), "weights_only": False}
    loaders = {"train_dataloaders": train, "val_dataloaders": val}
    return Classification(**{"learning_rate": 0.03, **settings}, **loaders, fit_kwargs=fit_kwargs, **trainer)


def trainer(epochs=1, callbacks=(), **options):
    """Options of a quiet trainer."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    few = {"max_epochs": epochs, "accelerator": "cpu", "devices": 1, "callbacks": [*callbacks]}
    return {**few, **dict.fromkeys(quiet, False), **options}


def run(strategy, space, evaluator):
    """The strategy, once it has searched `space`."""
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy


def search(name, path=None, epochs=1, seed=0, space=Elastic, data=None, callbacks=(), training=None, **settings):
    """Search with a strategy.

    path: where the last checkpoint goes. training: arguments of `evaluator`. settings: of the strategy.
    """
    pl.seed_everything(seed, verbose=False)
    saves = [LastCheckpoint(path)] if path else []
    made = evaluator(data or images(), trainer(epochs, [*callbacks, *saves]), **(training or {}))
    return run(STRATEGIES[name](**settings), space(), made)


def differences(a, b, at=""):
    """Where two checkpoints differ, bit by bit."""
    a, b = (torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in (a, b))
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in differences(a[k], b[k], f"{at}.{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{at}.{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        return [] if same else [at]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [at]
