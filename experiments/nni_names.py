"""Strategies by the names that NNI gives them beside their own (docs/nni-strategies.md)."""

from __future__ import annotations

from spaces.nni_compat import Strategy

from .multi_trial import strategies
from .oneshot.gumbel import GumbelDARTS as FBNet
from .oneshot.proxyless import Proxyless as ProxylessNAS
from .oneshot.spos import SPOS

RandomOneShot, TPEStrategy = SPOS, strategies.TPE

__all__ = ["FBNet", "ProxylessNAS", "RandomOneShot", "Strategy", "TPEStrategy"]
