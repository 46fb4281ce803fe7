"""`oneshot_nas.py --space nni:…`, in this process: what it leaves, keeps and refuses."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import oneshot_nas
from experiments.oneshot.options import Options
from experiments.run.folder import RunFolder
from experiments.run.options import made
from experiments.tasks.network import NetworkTask
from models import InputError, count_flops, count_params
from models.plugins import before, plugin_of
from spaces import fixed_arch
from spaces.hub import NetworkSpace, is_reference, load_file, read_reference, repair_first

MINE = Path(__file__).parents[2] / "assets" / "nni_space.py"
QUICK = ["--epochs", "1", "--imgsz", "16", "--batch", "512", "--device", "cpu"]


def search(*words):
    oneshot_nas.main(oneshot_nas.parse([*QUICK, *words]))
    return Path("runs/oneshot_nas/exp")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search of a user's own space, within limits; whoever looks at it stands in its folder."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copy(MINE, folder / "mine.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--space", "nni:mine.py:MySpace(width=2)", "--strategy", "spos", "--max-params", "105"]
        words += ["--population", "3", "--generations", "1"]
        path = search(*words, "--finetune", "1", "--random-archs", "1").resolve()
    return folder, path


def test_leaves_a_class_an_arch_and_weights(run):
    folder, path = run
    names = ("arch.json", "results.json", "network.pt", "metrics.csv", "alphas.png", "config.yaml", "last.ckpt")
    assert [name for name in names if not (path / name).is_file()] == []
    content = torch.load(path / "network.pt", weights_only=True)
    arch = json.loads((path / "arch.json").read_text())
    assert content["arch"] == arch
    assert content["space"] == "nni:mine.py:MySpace(width=2)"
    assert content["names"] == {i: str(i) for i in range(10)}
    module = load_module(folder)
    with fixed_arch(path / "arch.json"):
        network = module.MySpace(width=2)
    network.load_state_dict(content["state_dict"])
    results = json.loads((path / "results.json").read_text())
    assert results["derived"]["params"] == count_params(network) <= 105
    assert results["derived"]["flops"] == count_flops(network, 16)
    assert [len(n["from_scratch"]) for n in (results["derived"], *results["random"])] == [1, 1]
    assert all(n["params"] <= 105 for n in results["random"])


def load_module(folder):
    load_file(f"nni:{folder / 'mine.py'}:MySpace")
    return plugin_of(folder / "mine.py")


def test_goes_on_with_a_run_and_finds_it_done(run, monkeypatch, capsys):
    folder, path = run
    before = (path / "results.json").read_text()
    monkeypatch.chdir(folder)
    oneshot_nas.main(oneshot_nas.parse(["--resume", str(path)]))
    assert (path / "results.json").read_text() == before
    assert "mine.py" in str(RunFolder.resume(path)[1]["plugin"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "nni:Nothing"], "no space of NNI's hub, nor of a --plugin, is called so; there are MobileNetV3"),
        (["--space", "nni:DARTS(4)"], "arguments are written name=value; right would be such as"),
        (["--space", "nni:DARTS(width=4"], "right would be such as nni:MobileNetV3"),
        (["--space", "nni:DARTS(widths=4)"], "DARTS takes no 'widths'; there are width, num_cells, dataset"),
        (["--space", f"nni:{MINE}:Absent"], "has no class Absent"),
        (["--space", "nni:absent.py:MySpace"], "absent.py: no such plug-in file"),
        (["--space", f"nni:{MINE}:nn"], "nn is no ModelSpace of NNI"),
        (["--space", f"nni:{MINE}:Fixed"], "there is nothing to search"),
        (["--space", "nni:AutoFormer(patch_size=32)"], "take no images of 16 pixels"),
        (["--space", "nni:AutoFormer(num_labels=3)"], r"put out \(2, 3\) for 2 images of 10 classes"),
        (["--space", "nni:NasBench201(stem_out_channels='a')"], "cannot be built: "),
        (["--space", "nni:NasBench101"], "one-shot strategies"),
        (
            ["--space", f"nni:{MINE}:MySpace", "--strategy", "ofa"],
            "right would be one of darts, darts-2nd, gumbel, prox",
        ),
        (["--space", f"nni:{MINE}:MySpace", "--task", "detect"], "right would be --task classify"),
        (["--space", f"nni:{MINE}:MySpace", "--target-flops", "1M"], "--target-flops: is of a YAML's space"),
        (["--space", f"nni:{MINE}:MySpace", "--max-flops", "plain"], "right would be a number"),
        (["--space", f"nni:{MINE}:MySpace", "--max-params", "9"], "no arch was found that keeps all limits.*9"),
    ],
)
def test_refuses_in_one_line_and_leaves_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as e:
        search(*words)
    assert "\n" not in str(e.value)
    assert list(tmp_path.rglob("*")) == []


def test_references():
    assert is_reference("nni:DARTS")
    assert not is_reference("elastic")
    found = read_reference("nni:a/b.py:Mine(width=(4, 8), dataset='cifar')")
    assert (found.file, found.name, found.arguments) == ("a/b.py", "Mine", {"width": (4, 8), "dataset": "cifar"})


def test_space_is_made_for_the_data(tmp_path):
    args = oneshot_nas.parse([*QUICK, "--space", "nni:AutoFormer(patch_size=8)"])
    task = NetworkTask(made(Options, args), "cpu")
    assert task.searched.build().head.out_features == 10
    assert asdict(made(Options, args))["space"] == "nni:AutoFormer(patch_size=8)"


def test_archs_of_another_space_are_refused():
    space = NetworkSpace("nni:NasBench201(stem_out_channels=2, num_modules_per_stack=1)", 10, 16)
    with pytest.raises(InputError, match="the arch is none of nni:NasBench201"):
        space.complete({"cell/0_1": "none"})


@pytest.mark.parametrize(("line", "repaired"), [("from nni.nas.hub.pytorch import DARTS", 1), ("import nnicer", 0)])
def test_a_plugin_that_imports_nni_does_so_after_its_repairs(line, repaired, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(f"x = 1\n{line}\n")
    monkeypatch.delitem(sys.modules, "spaces.nni_compat")
    stand_in = ModuleType("spaces.nni_compat")
    monkeypatch.setattr("builtins.__import__", seen := Importer(stand_in))
    repair_first(tmp_path / "mine.py")
    monkeypatch.undo()
    assert seen.count == repaired
    assert repair_first in before


class Importer:
    """In place of `import`: counts imports of the door to NNI."""

    def __init__(self, module):
        self.module, self.count, self.own = module, 0, __import__

    def __call__(self, name, globals=None, locals=None, fromlist=(), level=0):
        if "nni_compat" in (fromlist or ()):
            self.count += 1
            return SimpleNamespace(nni_compat=self.module)
        return self.own(name, globals, locals, fromlist, level)
