"""A plug-in file adds a strategy, a searcher, a task, a sampler and a cost provider, each usable from its script."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from experiments.run import registry
from experiments.run.cli import start_script
from models import InputError
from models.plugins import load_plugin, load_plugins_of_run
from tests.refusal import refused

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "tests/assets/tiny_nas.yaml"
PLUGIN = """
from experiments.oneshot.darts import DARTS
from experiments.oneshot.samplers import Uniform
from experiments.run.registry import register
from experiments.search.random import Random
from experiments.tasks.classify import ClassifyTask


class Mine(DARTS):
    @classmethod
    def from_options(cls, options, context):
        print("my strategy", options.arch_lr, context.folder.name)
        return super().from_options(options, context)


class MyTask(ClassifyTask):
    metric = "my accuracy"


class Last(Random):
    def __init__(self, population=None):
        print("my searcher", population)


class Parts:
    name, unit = "parts", ""

    def __init__(self, space, imgsz, each=1):
        self.settings, self.each = {"each": each}, each

    def __call__(self, archs):
        return [self.each * (1.0 + sum(v for v in a.values() if isinstance(v, int))) for a in archs]


register("oneshot", "mine", Mine, options=("arch_lr",))
register("task", "my-task", MyTask, options=("data_root",), defaults={"data": "digits", "imgsz": 32, "batch": 128})
register("searcher", "last", Last, options=("population",))
register("sampler", "my-uniform", Uniform)
register("provider", "parts", Parts)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins")
    (path / "mine.py").write_text(PLUGIN)
    (path / "costs.yaml").write_text("costs: {parts: {provider: parts, hw_config: {each: 2}}}")
    return path


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Runs a script in this process, as its command line does: exit status, stdout, stderr."""
    monkeypatch.chdir(folder)

    def run(script, *args):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, args), "--plugin", "mine.py"])
        module = importlib.import_module(script)
        capsys.readouterr()
        try:
            status = start_script(module.main, module.parse)
        except SystemExit as e:  # of argparse
            status = e.code
        return status, *capsys.readouterr()

    return run


QUICK = ["--cfg", SPACE, "--epochs", "1", "--batch", "300", "--device", "cpu", "--no-baseline"]


@pytest.fixture(scope="module")
def searched(folder, script):
    """A run of the strategy on the task, in a process of its own."""
    args = [*QUICK, "--strategy", "mine", "--task", "my-task", "--arch-lr", "0.02", "--plugin", "mine.py"]
    oneshot = script(folder)
    oneshot.name = "oneshot_nas.py"
    code, out, err = oneshot.run(*args)
    assert code == 0, err
    return out


def test_a_strategy_and_a_task(searched, folder):
    assert "my strategy 0.02 exp" in searched
    assert json.loads((folder / "runs/oneshot_nas/exp/results.json").read_text())["metric"] == "my accuracy"


def test_a_sampler(call):
    code, _, err = call("oneshot_nas", *QUICK, "--imgsz", "32", "--strategy", "bignas", "--sampler", "my-uniform")
    assert code == 0, err


def test_a_searcher_and_a_provider(searched, folder, call):
    given = ["--supernet", "runs/oneshot_nas/exp", "--searcher", "last", "--population", "3", "--trials", "3"]
    costs = ["--costs", "costs.yaml", "--objectives", "metric,parts", "--no-baseline", "--device", "cpu"]
    code, out, err = call("search_subnets", *given, *costs)
    assert code == 0, err
    assert "my searcher 3" in out
    first, *rows = (folder / "runs/search_subnets/exp/subnets.csv").read_text().splitlines()
    assert len(rows) == 3
    assert {"my accuracy", "parts"} <= set(first.split(","))


def test_help_has_the_names_and_other_names_are_refused(call):
    assert "rl,last" in "".join(call("search_subnets", "--help")[1].split())
    code, _, err = call("oneshot_nas", "--strategy", "nobodys")
    assert code == 2
    assert "'nobodys' is none of darts" in err
    assert "ofa, mine" in err
    _, _, err = call("oneshot_nas", "--strategy", "mine", "--population", "3")
    assert "--population: is of --strategy spos, fairnas, bignas, ofa" in err


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_name_leads_somewhere(kind):
    for name in registry.names(kind):
        assert callable(registry.load(kind, name))


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setitem(registry.KINDS, "searcher", dict(registry.KINDS["searcher"]))
    for _ in range(2):  # a file that is read once more registers the same
        registry.register("searcher", "one", "a:B", options=["population"])
    with pytest.raises(InputError, match="another searcher is called so"):
        registry.register("searcher", "one", "a:C")
    with pytest.raises(InputError, match="right would be defaults of data, imgsz and batch"):
        registry.register("task", "three", "a:B")
    with pytest.raises(InputError, match="right would be one of oneshot"):
        registry.register("search", "two", "a:B")
    with pytest.raises(InputError, match="no searcher is called 'two'; there are nsga3"):
        registry.load("searcher", "two")


def test_files_of_one_name_are_told_apart(tmp_path):
    modules = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_stem.py").write_text(f"NAME = {name!r}")
        modules.append(load_plugin(tmp_path / name / "same_stem.py"))
    assert [m.NAME for m in modules] == ["a", "b"]
    assert load_plugin(tmp_path / "a/../a/same_stem.py") is modules[0]
    load_plugins_of_run([str(tmp_path / "moved/same_stem.py")])  # one of its name is loaded, from where it is now
    with pytest.raises(InputError, match="no such plug-in file"):
        load_plugins_of_run([str(tmp_path / "moved/other_stem.py")])


def test_a_file_that_ends_the_program_is_refused(tmp_path, call):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    code, out, err = call("detect", "--weights", "a.pt", "--source", "a", "--plugin", tmp_path / "mine.py")
    assert (code, out) == (2, "")
    assert "mine.py: the plug-in file ends the program (sys.exit(0)); right would be" in err
    assert len(err.splitlines()) == 1
    with refused("mine.py: the plug-in file ends"):
        load_plugin(tmp_path / "mine.py")
