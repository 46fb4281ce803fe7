"""The blocks that rows are made of. Importing this package registers them all."""

from .area import A2C2f
from .attention import C2PSA, PSA, Attention
from .c2f import C2f, C3k, C3k2
from .cib import C2fCIB, RepVGGDW, SCDown
from .conv import Conv, CrossConv, DWConv, DWConvTranspose2d, Focus, MixConv2d, activation, default_activation
from .csp import C3, C3SPP, C3TR, SPP, SPPF, Bottleneck, BottleneckCSP, C3Ghost, C3x
from .fbnet import FBNet
from .gelan import ELAN1, SPPELAN, AConv, ADown, RepNCSPELAN4
from .ghost import GhostBottleneck, GhostConv
from .mobile import GlobalPool, MBConv, Pointwise
from .pyramid import Add, Pick, SharedTowers
from .reparam import RepConv, RepCSP
from .residual import RegBottleneck, ResBasic, ResBottleneck
from .reversible import CBFuse, CBLinear
from .shape import Concat, Contract, Expand
from .transformer import TransformerBlock
from .vit import ChannelNorm, Encoder, PatchEmbed

__all__ = [
    "C2PSA",
    "C3",
    "C3SPP",
    "C3TR",
    "ELAN1",
    "PSA",
    "SPP",
    "SPPELAN",
    "SPPF",
    "A2C2f",
    "AConv",
    "ADown",
    "Add",
    "Attention",
    "Bottleneck",
    "BottleneckCSP",
    "C2f",
    "C2fCIB",
    "C3Ghost",
    "C3k",
    "C3k2",
    "C3x",
    "CBFuse",
    "CBLinear",
    "ChannelNorm",
    "Concat",
    "Contract",
    "Conv",
    "CrossConv",
    "DWConv",
    "DWConvTranspose2d",
    "Encoder",
    "Expand",
    "FBNet",
    "Focus",
    "GhostBottleneck",
    "GhostConv",
    "GlobalPool",
    "MBConv",
    "MixConv2d",
    "PatchEmbed",
    "Pick",
    "Pointwise",
    "RegBottleneck",
    "RepCSP",
    "RepConv",
    "RepNCSPELAN4",
    "RepVGGDW",
    "ResBasic",
    "ResBottleneck",
    "SCDown",
    "SharedTowers",
    "TransformerBlock",
    "activation",
    "default_activation",
]
