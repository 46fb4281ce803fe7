"""The names and options of NNI's strategies."""

import inspect
import json
import re
from pathlib import Path

import nni.nas.strategy
import pytest
from nni.algorithms.hpo.tpe_tuner import TpeTuner

from experiments import strategy
from experiments.costs import latency_table
from experiments.costs.latency_table import LatencyTable
from models import InputError
from spaces import NASBACKBONE, CostModel, Space
from tests.experiments.strategies_toys import Elastic, evaluator, images, run, trainer

PAGE = Path(__file__).parents[2] / "docs" / "nni-strategies.md"
NAMES = sorted(name for name, c in vars(nni.nas.strategy).items() if inspect.isclass(c))
OF_NNI_2 = ["FBNet", "ProxylessNAS", "SPOS", "RandomOneShot", "TPEStrategy"]
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().partition("## Options")[2].splitlines()
    if line.startswith("| ")
][1:]


def options():
    """(class, option of NNI, what is here) by the page."""
    owner = ""
    for first, option, here in TABLE:
        owner = first.strip("`") or owner
        yield owner, option.strip("`"), here


def of_nni(name):
    kind = getattr(nni.nas.strategy, name)
    made = [TpeTuner] if name == "TPE" else kind.__mro__
    inits = [inspect.signature(c.__init__) for c in made if "__init__" in vars(c)]
    named = {p.name for i in inits for p in i.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return named - {"self", "engine", "model_space", "tuner"}


@pytest.mark.parametrize("name", sorted({*NAMES, *OF_NNI_2}))
def test_every_name_is_a_strategy_and_on_the_page(name):
    assert issubclass(getattr(strategy, name), nni.nas.strategy.Strategy)
    assert f"`{name}`" in PAGE.read_text().partition("## Options")[0]


def test_every_option_is_on_the_page():
    told = {(owner, option) for owner, option, _ in options()}
    inherited = {"GumbelDARTS": "DARTS", "Proxyless": "DARTS", "TPEStrategy": "TPE"}
    assert "TPE" in NAMES
    for name in NAMES:
        missing = {o for o in of_nni(name) if (name, o) not in told and (inherited.get(name), o) not in told}
        assert missing == set(), name


DEFAULTS = {"mutation_hooks": [], "gradient_clip_val": 1.0, "temperature": (1.0, 0.33), "filter": bool, "seed": 1}


@pytest.mark.parametrize(("owner", "option", "here"), [o for o in options() if " " not in o[1]])
def test_options_of_the_same_name_are_taken_and_others_are_refused(owner, option, here):
    kind = getattr(strategy, owner)
    given = {option: DEFAULTS.get(option, 2)}
    if here.startswith("same"):
        kind(**given)
    else:
        with pytest.raises(InputError, match=rf"takes no '{option}'.*docs/nni-strategies.md"):
            kind(**given)


def test_filter_holds_for_paths_and_result():
    seen = []

    def passes(arch):
        seen.append(arch)
        return arch["width"] == 4 and arch["features"] == 6

    found = run(strategy.RandomOneShot(filter=passes, evaluations=6), Elastic(), evaluator(images(), trainer()))
    arch = found.oneshot_module.export()
    assert (arch["width"], arch["features"]) == (4, 6)
    assert len({str(a) for a in seen}) > 6, "others were drawn and left out"
    assert all(a["width"] == 4 and a["features"] == 6 for a, _ in found.rated)


def test_filter_that_nothing_passes_is_one_line():
    with pytest.raises(InputError, match="none of 1000 paths"):
        run(strategy.SPOS(filter=lambda arch: False), Elastic(), evaluator(images(), trainer()))


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of another device, by the name that nn-Meter gives it; every block takes as many ms as it has letters."""
    monkeypatch.setattr(LatencyTable, "_measure_parts", lambda self, block: {"": float(block.key.count("16"))})
    made = LatencyTable(tmp_path / "cortexA76cpu_tflite21.json")
    CostModel(Space("tests/assets/tiny_nas.yaml"), 32, made)
    made.save()
    content = json.loads(made.path.read_text())
    made.path.write_text(json.dumps({**content, "device": "Cortex-A76"}))
    monkeypatch.setattr(LatencyTable, "_measure_parts", lambda *_: pytest.fail("nothing is to be measured"))
    return tmp_path


def test_latency_filter_reads_the_table_of_a_predictors_name(table):
    yaml = "tests/assets/tiny_nas.yaml"
    space = Space(yaml)
    arch = space.upstream()
    fast = strategy.LatencyFilter(1e9, "cortexA76cpu_tflite21", yaml, imgsz=32, folder=table)
    told = fast.latency(arch)
    assert told > 0
    assert fast(arch)
    backbone = NASBACKBONE(yaml, 10)
    for threshold, reverse in ((told - 0.5, False), (told + 0.5, True)):
        refuses = strategy.LatencyFilter(threshold, "cortexA76cpu_tflite21", backbone, 32, reverse, table)
        assert not refuses(arch)
    strategy.RegularizedEvolution(feasible=fast)


def test_latency_filter_without_a_table_says_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match=r"cortexA76cpu_tflite21\.json: no such table.*nn-Meter.*latency_table") as e:
        strategy.LatencyFilter(9, "cortexA76cpu_tflite21", "tests/assets/tiny_nas.yaml", folder=tmp_path)
    line = re.search(r"latency_table (.*)$", str(e.value)).group(1)
    assert latency_table.parse(line.split()).out == "cortexA76cpu_tflite21.json"
