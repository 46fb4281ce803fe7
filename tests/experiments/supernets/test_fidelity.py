"""How a supernet ranks archs: what a report leaves, and what searches say of it."""

import csv
import json

import numpy as np
import pytest

from experiments.run.folder import RunFolder
from experiments.supernets import fidelity as module
from experiments.supernets.fidelity import KNOWN, read_truths, report, report_fidelity, spread, warning, what_is_known
from experiments.supernets.options import FidelityOptions
from models import InputError
from spaces import CostModel, Space
from tests.experiments.supernets.test_search import CFG, supernet  # noqa: F401

SPACE = Space("nasbench_macro.yaml")


def test_archs_are_spread_over_flops_and_no_network_comes_twice():
    model = CostModel(SPACE, 32, classifier=True)
    archs = spread(SPACE, model, 20, 0)
    flops = [model.of(a)["flops"] for a in archs]
    assert flops == sorted(flops)
    assert len({str(SPACE.freeze(a)) for a in archs}) == 20
    assert all(SPACE.canonical(a) == a for a in archs)
    assert archs != spread(SPACE, model, 20, 1)


def test_it_says_where_size_ranks_better(tmp_path, capsys):
    rng = np.random.default_rng(0)
    size = np.arange(1.0, 31)
    truth = np.stack([size + rng.standard_normal(30) for _ in range(2)])
    assert what_is_known(tmp_path) == ""
    scores = {"supernet": size + 8 * rng.standard_normal(30), "flops": size, "blocks": -size}
    results = report(RunFolder(tmp_path, "run"), tmp_path, "accuracy", truth, scores)
    assert 0.8 < results["ceiling"] < 1
    assert "size ranks better than the supernet" in (said := warning(results))
    assert "flops" in said
    assert "blocks" not in said
    assert said in what_is_known(tmp_path)
    assert json.loads((tmp_path / KNOWN).read_text()) == json.loads((tmp_path / "run/results.json").read_text())
    assert (tmp_path / "run/fidelity.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run/fidelity.html").is_file()
    assert "two trainings rank alike" in capsys.readouterr().out
    scores["supernet"] = truth.mean(0)
    assert warning(report(RunFolder(tmp_path, "other"), tmp_path, "accuracy", truth, scores)) == ""


def test_truths_are_of_the_labels(tmp_path):
    file = tmp_path / "truth.csv"
    labels = list(SPACE.decisions)
    rows = [[*"03000003", "0.5"], [*"36666666", "0.9"]]
    file.write_text("\n".join(",".join(r) for r in [[*labels, "accuracy"], *rows]))
    found = read_truths(file, SPACE, "accuracy")
    assert list(found.values()) == [0.5, 0.9]
    assert (
        dict(next(iter(found)))["layer7"]
        == SPACE.canonical(dict(zip(labels, (0, 3, 0, 0, 0, 0, 0, 3), strict=True)))["layer7"]
    )
    file.write_text("\n".join(",".join(r) for r in [[*labels, "accuracy"], [*"93000003", "0.5"]]))
    with pytest.raises(InputError, match=r"truth.csv, line 2: .*layer0"):
        read_truths(file, SPACE, "accuracy")
    file.write_text("\n".join(",".join(r) for r in [[*labels, "accuracy"], [*"03000003", "nan"]]))
    with pytest.raises(InputError, match=r"truth.csv, line 2: accuracy is nan"):
        read_truths(file, SPACE, "accuracy")
    file.write_text("layer0,top1\n3,0.5")
    with pytest.raises(InputError, match="right would be a column for each label of the space, and 'accuracy'"):
        read_truths(file, SPACE, "accuracy")


def test_a_run_that_was_stopped_goes_on_and_trains_nothing_twice(supernet, tmp_path, monkeypatch):  # noqa: F811
    trained, opened = [], module.open_supernet

    def open_supernet(*args):
        found = opened(*args)
        found.options.epochs = 1

        monkeypatch.setattr(found.task, "measure", lambda network: 0.1 * len(trained))
        return found

    def train_alone(task, network, *_, seed, **__):
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append(seed)

    monkeypatch.setattr(module, "open_supernet", open_supernet)
    monkeypatch.setattr(module, "train_alone", train_alone)
    folder = supernet("classify")
    options, run = FidelityOptions(supernet=folder, fidelity=3, seeds=2, device="cpu"), RunFolder(tmp_path, "run")
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        report_fidelity(options, run)
    stop = None
    results = report_fidelity(options, run)
    assert trained == [0, 0, 0, 1, 1, 1]
    with (run.path / "fidelity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r[f"truth.{s}"]) for s in (0, 1) for r in rows] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    costs = CostModel(Space(CFG), 64)
    assert [float(r["flops"]) for r in rows] == [costs.of(json.loads(r["arch"]))["flops"] for r in rows]
    assert {"supernet", "params", "flops", "blocks", "naswot"} <= set(results["predictors"])
    assert results["seeds"] == 2
