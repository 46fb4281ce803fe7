"""One thread a test process: the suite runs two of them, and sums must not depend on how many cores there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import sys

import pytest
import torch

from experiments.run.registry import KINDS
from models import registry
from models.catalog import registered
from spaces import nni_compat  # NNI's repairs, before any test imports it

assert nni_compat.nni is not None
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _plugins_are_forgotten():
    """What a test's plug-ins registered is gone afterwards, and none of them counts as imported."""
    entries, modules = registered(), set(sys.modules)
    kinds = {kind: dict(names) for kind, names in KINDS.items()}
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(entries)
    KINDS.update(kinds)
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]
