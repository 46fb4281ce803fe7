"""DARTS, first order (Liu et al. 2019, arXiv:1806.09055): NNI's, with the repairs of `spaces.nni_compat`."""

from spaces import nni_compat  # isort: skip

from nni.nas.strategy import DARTS

assert nni_compat.nni is not None

__all__ = ["DARTS"]
