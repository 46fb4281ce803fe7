"""A study that is gone on with is the one that was begun: not one that was emptied, nor one of other directions."""

import pytest

from experiments.search import Objective, open_storage
from experiments.testing import BOTH
from tests.experiments.searchers_toys import search
from tests.refusal import refused


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'study.db'}")


def test_one_that_is_not_there_any_more(storage):
    for _ in range(2):
        with refused("search", "not there any more, or was emptied"):
            search("random", storage=storage, resumes=True)


def test_one_that_is_there_goes_on(storage):
    asked = (found := search("random", storage=storage)).ask()
    found.tell(asked, {"accuracy": 0.5})
    assert len(search("random", storage=storage, resumes=True).results()) == 1


@pytest.mark.parametrize("resumes", [False, True])
def test_one_of_other_directions(resumes, storage):
    search("random", storage=storage)
    turned = [Objective(o.name, not o.maximize) for o in BOTH]
    with refused("search", "is there with other directions: maximize, minimize, not minimize, maximize"):
        search("random", storage=storage, objectives=turned, resumes=resumes)
