"""The blocks that rows are made of. Importing this package registers them all."""

from .conv import Conv, CrossConv, DWConv, DWConvTranspose2d, Focus, MixConv2d, activation, default_activation
from .csp import C3, C3SPP, C3TR, SPP, SPPF, Bottleneck, BottleneckCSP, C3Ghost, C3x
from .ghost import GhostBottleneck, GhostConv
from .shape import Concat, Contract, Expand
from .transformer import TransformerBlock

__all__ = [
    "C3",
    "C3SPP",
    "C3TR",
    "SPP",
    "SPPF",
    "Bottleneck",
    "BottleneckCSP",
    "C3Ghost",
    "C3x",
    "Concat",
    "Contract",
    "Conv",
    "CrossConv",
    "DWConv",
    "DWConvTranspose2d",
    "Expand",
    "Focus",
    "GhostBottleneck",
    "GhostConv",
    "MixConv2d",
    "TransformerBlock",
    "activation",
    "default_activation",
]
