"""Searching a supernet of a tiny space: what a run leaves, how it goes on, and what is picked."""

import argparse
import csv
import itertools
import json
import os
import re
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import search_subnets
from data import EpochSampler, classification
from experiments.costs import PROVIDERS, providers_of, timing
from experiments.run import registry
from experiments.run.cli import run_script
from experiments.run.folder import RunFolder
from experiments.search import Objective, Search, evaluate, make_searcher, open_storage
from experiments.search.pareto import hypervolume, reference_point
from experiments.supernets import search as subnet_search
from experiments.supernets import studies
from experiments.supernets.options import Options
from experiments.supernets.report import Pick, verdict
from experiments.supernets.studies import SubnetSearch
from experiments.supernets.subnets import SUPERNET, save_supernet
from experiments.testing import BOTH, accuracy, domain
from models import Classifier, InputError, Model
from models.files import load_detector
from optimizer import calibrate_bn
from spaces import NASBACKBONE, CostModel, Space, freeze, make_supernet, slice_weights

ROOT = Path(__file__).resolve().parents[3]
CFG = str(ROOT / "tests/assets/tiny_nas.yaml")
OPTIONS = Options(
    supernet="",
    objectives=["metric", "flops"],
    searcher="evolution",
    trials=5,
    range=[],
    costs=None,
    population=3,
    stride=None,
    predictor="none",
    baseline=True,
    pick=None,
    storage=None,
    study="subnets",
    workers=1,
    seed=0,
    device="cpu",
    cost_imgsz=64,
)


SMALL = {
    "nc": 10,
    "anchors": 2,
    "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}, {"choice": [3, 5]}, 8]]],
    "head": [[[0], 1, "Detect", ["nc", "anchors"]]],
}


# 48 archs.
WIDER = {**SMALL, "backbone": [[-1, 1, "Conv", [{"choice": [*range(8, 104, 8)]}, {"choice": [1, 3, 5, 7]}, 8]]]}


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """Makes runs of oneshot_nas.py without training: task, space -> folder."""
    made = {}

    def make(task, cfg=CFG):
        if (key := (task, str(cfg))) not in made:
            data = {"classify": {"data": "digits", "imgsz": 32}, "detect": {"data": "digits-detect", "imgsz": 64}}[task]
            options = {"strategy": "spos", "task": task, "cfg": cfg, "detector": None, "batch": 64, "lr": 0.001}
            options |= {"seed": 0, "device": "cpu", "data_root": None, "plugin": [], "cost_imgsz": 64, **data}
            run = RunFolder(tmp_path_factory.mktemp("oneshot"), task)
            task_ = registry.load("task", task)(argparse.Namespace(**options), Space(cfg), "cpu")
            torch.manual_seed(0)
            net = make_supernet(task_.space())
            run.write_config(options)
            save_supernet(net, run.path / "supernet.pt")
            made[key] = str(run.path)
        return made[key]

    return make


@pytest.fixture
def small(supernet):
    """A supernet of four archs."""
    return supernet("classify", SMALL)


@pytest.fixture
def rated(monkeypatch):
    """Ratings in place of evaluations: a function of the arch that takes no time."""
    asked = []

    class Rating(studies.Rating):
        def __call__(self, arch):
            asked.append(arch)
            return 0.5 + 0.01 * sum(map(float, arch.values())) % 0.4

    monkeypatch.setattr(studies, "Rating", Rating)
    return asked


@pytest.fixture
def accuracy_of(supernet):
    """An arch's accuracy on the architecture's half, as a search should find it, by no task's methods."""
    data = classification("digits", 32)
    content = torch.load(Path(supernet("classify")) / SUPERNET, weights_only=True)
    net = make_supernet(NASBACKBONE(content["yaml"], 10))
    net.load_state_dict(content["state_dict"])

    @torch.no_grad()
    def of(arch):
        raw, state = slice_weights(net, arch)
        network = Classifier(raw, 10)
        network.load_state_dict(state)
        batches = DataLoader(data.train, 64, sampler=EpochSampler(data.train, 0), drop_last=True)
        network = calibrate_bn(network, (x for x, _ in itertools.islice(batches, 8)))
        images, labels = zip(*data.arch, strict=True)
        return float((network(torch.stack(images)).argmax(1) == torch.tensor(labels)).double().mean())

    return of


def table(run):
    with (run.path / "subnets.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestRun:
    def test_leaves_what_it_says(self, supernet, accuracy_of, tmp_path, capsys):
        run = RunFolder(tmp_path, "run")
        options = replace(OPTIONS, supernet=supernet("classify"), pick="knee")
        results = subnet_search.search_subnets(options, run)
        rows = table(run)
        assert [r["searcher"] for r in rows] == ["evolution"] * 5 + ["random"] * 5
        costs = CostModel(Space(CFG), 64)
        for row in rows:
            arch = json.loads(row["arch"])
            assert {k: int(row[k]) for k in PROVIDERS if k in costs.names} == costs.of(arch)
            assert (row["seed"], row["bn"], row["error"]) == ("0", "calibrated", "")
        assert float(rows[0]["seconds"]) > 0
        assert len({row["accuracy"] for row in rows}) > 1
        for row in (rows[0], rows[-1]):
            assert float(row["accuracy"]) == pytest.approx(accuracy_of(json.loads(row["arch"])))
        front = [r for r in rows[:5] if r["front"] == "True"]
        files = {p.name: yaml.safe_load(p.read_text()) for p in (run.path / "fix_subnets").iterdir()}
        assert files == {f"trial_{r['trial']}.yaml": freeze(CFG, json.loads(r["arch"])) for r in front}
        page = (run.path / "pareto_front.html").read_text()
        assert "plotly" in page.lower()
        assert "<script src" not in page.replace(" ", " ").lower(), "self-contained"
        assert "nasconv_0 = " in page
        assert (run.path / "pareto_front.png").read_bytes().startswith(b"\x89PNG")
        assert (run.path / "study.db").is_file()
        picked = json.loads((run.path / "arch.json").read_text())
        assert picked == results["picked"]["arch"]
        model, content = load_detector(run.path / "detector.pt")
        assert isinstance(model, Model)
        assert content["arch"] == picked
        assert yaml.safe_load((run.path / "detector.yaml").read_text()) == model.config.raw
        out = capsys.readouterr().out
        assert f"python train.py --weights {run.path}/detector.pt" in out
        assert f"export.py --weights {run.path}/detector.pt" in out
        assert "random search at equal evaluations" in out

    def test_ratings_of_one_study_are_those_of_the_other(self, small, tmp_path, rated):
        """All four archs of a space, by both searches, in one run and in one that goes on."""
        options = replace(OPTIONS, supernet=small, searcher="grid", trials=4)
        run, later = RunFolder(tmp_path, "run"), RunFolder(tmp_path, "later")
        subnet_search.search_subnets(options, run)
        assert len(rated) == 4
        subnet_search.search_subnets(replace(options, baseline=False), later)
        assert len(rated) == 8
        subnet_search.search_subnets(options, later)
        assert len(rated) == 8, "what another process rated is known"
        for folder in (run, later):
            rows = table(folder)
            found = [{r["arch"]: r["accuracy"] for r in rows if r["searcher"] == name} for name in ("grid", "random")]
            assert found[0] == found[1]
            assert len(found[0]) == 4

    def test_hypervolumes_are_of_equal_evaluations(self, supernet, tmp_path, rated, monkeypatch):
        """Of a run that is stopped in the random search, after six archs of its own."""

        def better_and_better(self, arch):
            if len(rated) == 8:
                raise KeyboardInterrupt
            rated.append(arch)
            return len(rated) / 10

        monkeypatch.setattr(studies.Rating, "__call__", better_and_better)
        run = RunFolder(tmp_path, "run")
        with pytest.raises(KeyboardInterrupt):
            subnet_search.search_subnets(replace(OPTIONS, supernet=supernet("classify"), trials=6), run)
        losses = np.array([[-float(r["accuracy"]), float(r["flops"])] for r in table(run)])
        num_random, reference = len(losses) - 6, reference_point(losses)
        assert 2 <= num_random < 6
        parts = (losses[:num_random], losses[:6], losses[6:])
        own, whole, random = (hypervolume(rows, reference) for rows in parts)
        assert own < whole
        found = json.loads((run.path / "results.json").read_text())["hypervolume"]
        assert found["evolution"] / found["random"] == pytest.approx(own / random)
        assert max(found.values()) == 1

    def test_detection(self, supernet, tmp_path):
        run = RunFolder(tmp_path, "run")
        options = replace(OPTIONS, supernet=supernet("detect"), trials=2, baseline=False, pick="knee")
        subnet_search.search_subnets(replace(options, objectives=["map", "params"]), run)
        assert {"mAP50-95", "params"} <= set(table(run)[0])
        model, content = load_detector(run.path / "detector.pt")
        assert content["is_slice"]
        assert all(torch.isfinite(p).all() for p in model.state_dict().values())

    def test_resumed_is_uninterrupted(self, supernet, tmp_path, rated, monkeypatch):
        whole, part = RunFolder(tmp_path, "whole"), RunFolder(tmp_path, "part")
        options = replace(OPTIONS, supernet=supernet("classify"), trials=6)
        subnet_search.search_subnets(options, whole)
        before = len(rated)
        call = studies.Rating.__call__

        def interrupted(self, arch):
            if len(rated) == before + 4:
                raise KeyboardInterrupt
            return call(self, arch)

        monkeypatch.setattr(studies.Rating, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            subnet_search.search_subnets(options, part)
        assert len(table(part)) == 4, "what it had is there"
        monkeypatch.setattr(studies.Rating, "__call__", call)
        subnet_search.search_subnets(options, part)
        strip = [{k: v for k, v in row.items() if k != "seconds"} for row in table(part)]
        assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in table(whole)]

    def test_a_study_that_was_emptied_is_not_begun_anew(self, small, tmp_path, rated):
        run, options = RunFolder(tmp_path, "run"), replace(OPTIONS, supernet=small, searcher="grid", trials=3)
        options = replace(options, baseline=False)
        subnet_search.search_subnets(options, run)
        subnet_search.search_subnets(options, run, resume=True)
        told = (run.path / "subnets.csv").read_text()
        with sqlite3.connect(run.path / "study.db") as database:
            database.execute("DELETE FROM trials")
        with pytest.raises(InputError, match=r"subnets.csv: has 3 evaluations, but its studies have 0: .* emptied"):
            subnet_search.search_subnets(options, run, resume=True)
        (run.path / "study.db").unlink()
        with pytest.raises(InputError, match=r"the study 'subnets' is not there any more, or was emptied"):
            subnet_search.search_subnets(options, run, resume=True)
        assert (run.path / "subnets.csv").read_text() == told
        assert len(rated) == 3

    def test_no_arch_is_rated_twice(self, supernet, tmp_path, rated):
        options = replace(OPTIONS, supernet=supernet("classify"), searcher="grid", range=["flops=:4M"], trials=9)
        subnet_search.search_subnets(options, RunFolder(tmp_path, "run"))
        assert len({str(a) for a in rated}) == len(rated) >= 9

    @pytest.mark.parametrize("searcher", ["grid", "evolution"])
    def test_a_range_without_archs_says_so(self, supernet, tmp_path, rated, searcher):
        options = replace(OPTIONS, supernet=supernet("classify"), searcher=searcher, range=["flops=:700k"])
        with pytest.raises(InputError, match=r"--range flops=:700k: no arch was found within"):
            subnet_search.search_subnets(options, RunFolder(tmp_path, "run"))
        assert not rated

    def test_ranges_hold(self, supernet, tmp_path, rated):
        run = RunFolder(tmp_path, "run")
        options = replace(OPTIONS, supernet=supernet("classify"), range=["flops=3M:6M", "params=:30k"])
        subnet_search.search_subnets(options, run)
        rows = table(run)
        assert len(rows) == 10
        assert all(3e6 <= int(r["flops"]) <= 6e6 and int(r["params"]) <= 30_000 for r in rows)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"objectives": ["flops"]}, "the metric is missing"),
            ({"objectives": ["metric", "beauty"]}, "no cost is called 'beauty'"),
            ({"range": ["beauty=1:2"]}, "no cost is called 'beauty'"),
            ({"pick": "flops<4G"}, "right would be knee"),
            ({"pick": "beauty<=4G"}, "no such cost"),
            ({"storage": "redis://x"}, "--storage"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_evaluated(self, supernet, tmp_path, rated, change, message):
        run = RunFolder(tmp_path, "run")
        with pytest.raises(InputError, match=message):
            subnet_search.search_subnets(replace(OPTIONS, supernet=supernet("classify"), **change), run)
        assert not rated
        assert not (run.path / "config.yaml").exists()

    def test_two_workers(self, supernet, tmp_path):
        run = RunFolder(tmp_path, "run")
        options = replace(OPTIONS, supernet=supernet("classify"), trials=4, workers=2, baseline=False)
        subnet_search.search_subnets(options, run)
        rows = table(run)
        assert [r["trial"] for r in rows] == ["0", "1", "2", "3"]
        assert len({r["arch"] for r in rows}) == 4
        assert all(r["accuracy"] for r in rows)
        study = open_storage(f"sqlite:///{run.path / 'study.db'}").get_all_studies()[0]
        trials = open_storage(f"sqlite:///{run.path / 'study.db'}").get_all_trials(study._study_id)
        workers = {t.user_attrs["worker"][1] for t in trials if "record" in t.user_attrs}
        assert workers, "and it was others that evaluated"
        assert os.getpid() not in workers

    def test_a_worker_sees_its_own_device(self, tmp_path, monkeypatch):
        """And the process that starts them none the less."""
        seen = []
        job = type("Job", (), {"work": lambda self: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))})
        monkeypatch.setattr(subnet_search, "_open", lambda options, run, resume: job())
        monkeypatch.setattr(subnet_search, "end_with_parent", lambda: None)  # this process has another one
        process = type("Process", (), {"is_alive": lambda self: False, "join": lambda self: None, "exitcode": 0})
        process.__init__ = lambda self, target, args: setattr(self, "start", lambda: target(*args))
        context = type("Context", (), {"Process": process})
        monkeypatch.setattr(subnet_search.multiprocessing, "get_context", lambda how: context)
        monkeypatch.setattr(subnet_search, "visible_to_workers", lambda device, number: ["3", "5"][:number])
        monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        subnet_search._by_workers(replace(OPTIONS, workers=2), RunFolder(tmp_path, "run"))
        assert seen == ["3", "5"]

    def test_workers_do_not_measure_beside_each_other(self, supernet, tmp_path, rated, monkeypatch):
        costs = tmp_path / "costs.yaml"
        costs.write_text("costs: {latency: {provider: torch}}")
        options = replace(OPTIONS, supernet=supernet("classify"), costs=str(costs), objectives=["metric", "latency"])
        with pytest.raises(InputError, match="--workers 2: latency is measured on this machine"):
            subnet_search.search_subnets(replace(options, workers=2), RunFolder(tmp_path, "run"))
        times = iter([3.5, 2.25])
        monkeypatch.setattr(timing, "median_ms", lambda run: next(times))
        subnet_search.search_subnets(replace(options, trials=2, baseline=False), RunFolder(tmp_path, "run"))
        assert [float(r["latency"]) for r in table(RunFolder(tmp_path, "run", exist_ok=True))] == [3.5, 2.25]
        costs.write_text("costs: {latency: {provider: torch, hw_config: {threads: 2}}}")
        again = RunFolder(tmp_path, "run", exist_ok=True)
        with pytest.raises(InputError, match="another setting: costs"):
            subnet_search.search_subnets(replace(options, trials=3, baseline=False), again)

    def test_a_predictor_is_told_of_and_used(self, supernet, tmp_path, rated, capsys):
        options = replace(OPTIONS, supernet=supernet("classify"), searcher="random", predictor="mlp", trials=60)
        subnet_search.search_subnets(replace(options, baseline=False), RunFolder(tmp_path, "run"))
        assert "predictor  after 50 archs: rank correlation" in capsys.readouterr().out
        with pytest.raises(InputError, match="--predictor mlp: grid proposes one arch at a time"):
            subnet_search.search_subnets(replace(options, searcher="grid"), RunFolder(tmp_path, "other"))

    def test_a_proxy_screens_and_says_whether_it_is_used(self, supernet, tmp_path, rated, capsys):
        options = replace(OPTIONS, supernet=supernet("classify"), searcher="random", screen=("naswot", 2), trials=53)
        subnet_search.search_subnets(replace(options, baseline=False), RunFolder(tmp_path, "run"))
        said = re.search(r"screen  after 50 archs: naswot \S+, flops \S+, blocks .*used", capsys.readouterr().out)
        assert said
        assert len(rated) == 53
        with pytest.raises(InputError, match="--screen naswot beside grid"):
            subnet_search.search_subnets(replace(options, searcher="grid"), RunFolder(tmp_path, "other"))

    def test_where_nothing_succeeds_it_says_so(self, supernet, tmp_path, monkeypatch):
        class Rating(studies.Rating):
            def __call__(self, arch):
                return float("nan")

        monkeypatch.setattr(studies, "Rating", Rating)
        run = RunFolder(tmp_path, "run")
        options = replace(OPTIONS, supernet=supernet("classify"), trials=3, baseline=False, pick="knee")
        with pytest.raises(InputError, match="none of the evaluations succeeded"):
            subnet_search.search_subnets(options, run)
        assert {r["error"] for r in table(run)} == {"ValueError: accuracy is nan"}


class TestEvaluate:
    def search(self, budget=8):
        return Search(domain(), BOTH, make_searcher("random"), budget=budget)

    def test_a_failure_is_one_failed_evaluation(self, capsys):
        found = self.search()

        def rate(arch):
            if arch["act"] == "relu":
                raise RuntimeError("out of memory")
            return accuracy(arch)

        evaluate(found, "accuracy", rate)
        results = found.results()
        assert len(results) == 8
        for r in results:
            assert (r.values is None) == (r.arch["act"] == "relu") == ("error" in r.record)
        assert "RuntimeError: out of memory" in capsys.readouterr().out

    def test_it_gives_up_where_nothing_works(self):
        found = self.search()

        def rate(arch):
            raise RuntimeError("broken")

        with pytest.raises(InputError, match="first 5 evaluations all failed, the last one by RuntimeError: broken"):
            evaluate(found, "accuracy", rate)
        assert len(found.results()) == 5

    def test_five_failures_after_a_success_end_nothing(self):
        found, count = self.search(), []

        def rate(arch):
            count.append(arch)
            if len(count) > 1:
                raise RuntimeError
            return 0.5

        evaluate(found, "accuracy", rate)
        assert len(found.results()) == 8

    def test_an_interrupted_evaluation_is_given_back(self):
        found = self.search()

        def rate(arch):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(found, "accuracy", rate)
        assert found.results() == []
        assert found.ask().number == 0


class TestPick:
    rows = [  # noqa: RUF012
        {"accuracy": 0.5, "flops": 1e9, "latency": 2.0},
        {"accuracy": 0.8, "flops": 2e9, "latency": 9.0},
        {"accuracy": 0.85, "flops": 9e9, "latency": 7.0},
    ]
    losses = np.array([[-r["accuracy"], r["flops"]] for r in rows])

    @pytest.mark.parametrize(
        ("text", "index"),
        [("knee", 1), ("flops<=2G", 1), ("flops <= 1.5G", 0), ("latency<=8ms", 2), ("latency<=8ms,flops<=3G", 0)],
    )
    def test_chooses(self, text, index):
        assert Pick.read(text).choose(self.rows, self.losses, "accuracy") is self.rows[index]

    def test_of_two_as_good_the_cheaper_one(self):
        rows = [{"accuracy": 0.8, "flops": 3e9}, {"accuracy": 0.8, "flops": 1e9}]
        assert Pick.read("flops<=4G").choose(rows, np.array([[-0.8, 3e9], [-0.8, 1e9]]), "accuracy") is rows[1]

    def test_nothing_within_says_what_the_least_is(self):
        with pytest.raises(InputError, match="least flops is 1G"):
            Pick.read("flops<=500M").choose(self.rows, self.losses, "accuracy")

    @pytest.mark.parametrize("text", ["", "best", "flops<4G", "flops<=", "flops<=x", "flops>=4G"])
    def test_refuses(self, text):
        with pytest.raises(InputError):
            Pick.read(text)


def test_verdict():
    assert verdict({"tpe": 1.0}) == ""
    assert "tpe beats random" in verdict({"tpe": 1.0, "random": 0.9})
    assert "does not beat" in verdict({"tpe": 0.9, "random": 1.0})


def test_a_cost_of_no_name_is_refused():
    with pytest.raises(InputError, match="there are params"):
        providers_of(["beauty"], CostModel(Space(CFG), 64))


class TestScript:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_stopped_and_resumed(self, supernet, tmp_path, script, how):
        """A process of its own, stopped in the middle: nothing that it told is lost."""

        class SearchSubnets(script):
            name = "search_subnets.py"

        searching = SearchSubnets(tmp_path)
        searching.fresh = how == signal.SIGINT
        run = supernet("classify", WIDER)
        new = ["--supernet", run, "--trials", "48", "--searcher", "random", "--cost-imgsz", "64"]
        process = searching.start(*new)
        line = process.stdout.readline()
        process.send_signal(how)
        err = process.communicate(timeout=120)[1]
        assert line.startswith("search  25 archs rated")
        if how == signal.SIGINT:
            assert process.returncode == 130
            again = f"python {ROOT / 'search_subnets.py'} --resume runs/search_subnets/exp"
            assert err.strip() == f"interrupted: go on with {again}"
        searching.fresh = False
        resume = ["--resume", "runs/search_subnets/exp", "--trials", "32", "--pick", "knee"]
        code, out, err = searching.run(*resume)
        assert code == 0, err
        rows = table(RunFolder(tmp_path / "runs/search_subnets", "exp", exist_ok=True))
        assert [r["trial"] for r in rows] == [str(i) for i in range(32)]
        assert len({r["arch"] for r in rows}) == 32
        assert "picked trial" in out

    def test_sample_accuracy(self, supernet, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        new = ["--supernet", supernet("classify"), "--seed", "3", "--sample-accuracy", "3", "--samples", "10"]
        assert run_script(search_subnets.main, search_subnets.parse(new)) == 0
        run = tmp_path / "runs/search_subnets/exp"
        assert json.loads((run / "edf.json").read_text())["subsets"]["exp"]["archs"] == 3
        again = ["--resume", str(run), "--sample-accuracy", "5", "--samples", "10"]
        assert run_script(search_subnets.main, search_subnets.parse(again)) == 0, capsys.readouterr().err
        rows = table(RunFolder(run.parent, run.name, exist_ok=True))
        assert [(r["searcher"], r["seed"]) for r in rows] == [("random", "3")] * 5

    def test_sample_cost_of_a_supernet_is_that_of_its_search(self, supernet, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        folder = supernet("detect")
        assert run_script(search_subnets.main, search_subnets.parse(["--supernet", folder, "--sample-cost", "50"])) == 0
        job = SubnetSearch(replace(OPTIONS, supernet=folder, baseline=False), RunFolder(tmp_path, "run"))
        costs = json.loads((tmp_path / "runs/search_subnets/exp/costs.json").read_text())
        assert costs["upstream"]["params"] == job.domain.providers["params"]([job.space.upstream()])[0]
        plain = ["--cfg", str(ROOT / "models/yolov5n.yaml"), "--sample-cost", "5"]
        assert run_script(search_subnets.main, search_subnets.parse(plain)) == 2
        assert "has no choices" in capsys.readouterr().err

    @pytest.mark.parametrize("args", [[], ["--sample-cost", "5"], ["--sample-cost", "5", "--edf", "x", "--cfg", CFG]])
    def test_what_is_missing(self, args, capsys):
        with pytest.raises(SystemExit):
            search_subnets.parse(args)
        assert "error:" in capsys.readouterr().err


def test_objectives_are_the_metric_first(supernet, tmp_path):
    options = replace(
        OPTIONS, supernet=supernet("classify"), objectives=["params", "accuracy", "flops"], baseline=False
    )
    job = SubnetSearch(options, RunFolder(tmp_path, "run"))
    assert job.objectives == [Objective("accuracy", True), Objective("params"), Objective("flops")]
