"""One thread a test process: the suite runs two of them, and sums must not depend on how many cores there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from data.detect import DetectionSet
from data.digits_detect import DigitImages
from experiments.run.registry import KINDS
from models import registry
from models.catalog import registered
from spaces import nni_compat  # NNI's repairs, before any test imports it

assert nni_compat.nni is not None
torch.set_num_threads(1)

_STATE = tempfile.TemporaryDirectory()
os.environ["XDG_STATE_HOME"] = _STATE.name  # of `models.trust`, also in the processes that tests start

TESTS = Path(__file__).parent
# The files that take longest, the longest first: begun first, so that the two processes end at much the same time. By
# the number of their tests, which is pytest-xdist's order, some of them would be last.
LONGEST = (
    "experiments/search/test_searchers.py",
    "experiments/oneshot/test_strategies.py",
    "experiments/supernets/test_search.py",
    "experiments/multi_trial/test_multi_trial.py",
    "experiments/training/test_train_memory.py",
    "spaces/test_cost.py",
    "experiments/oneshot/test_oneshot.py",
    "optimizer/test_match.py",
    "spaces/test_elastic.py",
    "experiments/oneshot/test_resume.py",
    "experiments/training/test_train.py",
    "test_earlier_runs.py",
    "experiments/multi_trial/test_strategies.py",
    "models/test_detector.py",
    "spaces/test_model_space.py",
    "experiments/oneshot/test_oneshot_ui.py",
    "experiments/tasks/test_data_separation.py",
    "spaces/test_elastic_blocks.py",
    "test_scripts.py",
    "test_docs.py",
)
assert all((TESTS / name).is_file() for name in LONGEST)


def pytest_collection_modifyitems(items):
    place = {TESTS / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@contextmanager
def _plugins_forgotten():
    entries, modules = registered(), set(sys.modules)
    kinds = {kind: dict(names) for kind, names in KINDS.items()}
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(entries)
    KINDS.update(kinds)
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _plugins_are_forgotten():
    """What a test's plug-ins registered is gone afterwards, and none of them counts as imported."""
    with _plugins_forgotten():
        yield


@pytest.fixture(autouse=True, scope="module")
def _plugins_of_a_module_are_forgotten():
    """So it is with what its fixtures imported."""
    with _plugins_forgotten():
        yield


@pytest.fixture(autouse=True, scope="session")
def _digits_are_drawn_once():
    """Sets of digits-detect share their images, which nobody changes: a second is saved wherever one is opened."""
    drawn, decode_all = {}, DetectionSet._decode_all

    def once(self):
        if type(self._source) is not DigitImages or self.imgsz > 128:  # larger ones take hundreds of MB
            return decode_all(self)
        if (key := (id(self._source), self.imgsz)) not in drawn:
            images = decode_all(self)
            for image in images:
                image.flags.writeable = False
            drawn[key] = (self._source, images)
        return drawn[key][1]

    DetectionSet._decode_all = once
    yield
    DetectionSet._decode_all = decode_all
