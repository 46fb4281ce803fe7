"""Searching a space without a supernet, and screening by a proxy beside one."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch

import search_subnets
from experiments.proxies.counted import blocks
from experiments.run.cli import run_script
from experiments.search import Domain
from experiments.search.base import Evaluated, History
from experiments.supernets.screen import ProxyScreen
from experiments.testing import CFG, Flops
from models import Classifier, Model
from models.files import load_classifier, save_model_yaml
from models.grammar import read_config
from spaces import Decision, Space


@pytest.fixture
def searched(tmp_path):
    """Runs `search_subnets.py --cfg` on 36 archs; the run's folder and the rows of its subnets.csv."""
    save_model_yaml(CFG, tmp_path / "space.yaml")

    def run(*options, name="run"):
        few = ["--imgsz", "32", "--batch", "4", "--cost-imgsz", "32", "--no-baseline", "--device", "cpu"]
        command = ["--cfg", str(tmp_path / "space.yaml"), *few, "--project", str(tmp_path), "--name", name, *options]
        assert run_script(search_subnets.main, search_subnets.parse(command)) == 0
        with (tmp_path / name / "subnets.csv").open(newline="") as file:
            return tmp_path / name, list(csv.DictReader(file))

    return run


class TestZeroShot:
    def test_finds_the_best_within_the_ranges(self, searched):
        """Of all archs within, by a proxy that is counted here by hand."""
        path, rows = searched("--objectives", "blocks,flops", "--searcher", "grid", "--trials", "36")
        limit = sorted(int(r["flops"]) for r in rows)[20]
        path, rows = searched("--objectives", "blocks", "--range", f"flops=:{limit}", "--trials", "36", name="in")
        assert all(int(r["flops"]) <= limit for r in rows)
        assert len(rows) == 21
        arch = json.loads((path / "arch.json").read_text())
        space = Space(CFG)
        of = [
            (blocks(Model(space.freeze(a)), torch.rand(1, 3, 32, 32), None), int(r["flops"]))
            for r in rows
            for a in [json.loads(r["arch"])]
        ]
        assert blocks(Model(space.freeze(arch)), torch.rand(1, 3, 32, 32), None) == max(of)[0]

    def test_a_detector_is_left_as_a_plain_yaml(self, searched):
        path, rows = searched("--objectives", "mae-det,flops", "--trials", "5")
        best = max(rows, key=lambda r: float(r["mae-det"]))
        assert json.loads((path / "arch.json").read_text()) == json.loads(best["arch"])
        config = read_config(path / "detector.yaml").require_plain()
        assert Model(config).head.nc == 10, "those of digits-detect"
        assert [r.args for r in config.rows[:2]] == [
            r.args for r in read_config(Space(CFG).freeze(json.loads(best["arch"]))).rows[:2]
        ]

    def test_a_classifier_is_left_with_fresh_weights(self, searched, tmp_path):
        save_model_yaml({"nc": 10, "backbone": CFG["backbone"]}, tmp_path / "space.yaml")
        path, rows = searched("--objectives", "naswot", "--searcher", "genetic", "--trials", "4")
        network, content = load_classifier(path / "classifier.pt")
        assert isinstance(network, Classifier)
        assert not content["is_slice"]
        assert content["arch"] == json.loads(max(rows, key=lambda r: float(r["naswot"]))["arch"])

    def test_same_seed_same_scores_also_when_resumed(self, searched, tmp_path):
        first = searched("--objectives", "grad-norm,flops", "--trials", "4", "--task", "classify", name="one")[1]
        searched("--objectives", "grad-norm,flops", "--trials", "2", "--task", "classify", name="two")
        args = search_subnets.parse(["--resume", str(tmp_path / "two"), "--trials", "4"])
        assert run_script(search_subnets.main, args) == 0
        with (tmp_path / "two/subnets.csv").open(newline="") as file:
            again = list(csv.DictReader(file))
        assert [(r["arch"], r["grad-norm"]) for r in again] == [(r["arch"], r["grad-norm"]) for r in first]

    @pytest.mark.parametrize(
        ("options", "right"),
        [
            (["--objectives", "metric,flops"], "without a supernet right would be one proxy (naswot,"),
            (["--objectives", "flops"], "right would be one proxy"),
            (["--objectives", "naswot,zen"], "right would be one proxy"),
            (["--objectives", "naswot,beauty"], "no cost is called 'beauty'"),
            (["--objectives", "naswot", "--screen", "zen:4"], "--screen: is of --supernet"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, capsys, options, right):
        save_model_yaml(CFG, tmp_path / "space.yaml")
        command = [
            "--cfg",
            str(tmp_path / "space.yaml"),
            "--project",
            str(tmp_path / "runs"),
            "--imgsz",
            "32",
            *options,
        ]
        assert run_script(search_subnets.main, search_subnets.parse(command)) == 2
        error = capsys.readouterr().err
        assert right in error
        assert error.count("\n") == 1
        assert not (tmp_path / "runs").exists()

    def test_proxies_are_of_a_space_and_metrics_of_a_supernet(self, tmp_path, capsys):
        for wrong in (["--cfg", "a.yaml", "--supernet", "b"], []):
            with pytest.raises(SystemExit):
                search_subnets.parse(wrong)
            assert "--supernet" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            search_subnets.parse(["--supernet", "b", "--screen", "naswot:1"])
        assert "right would be such as naswot:4" in capsys.readouterr().err


WIDTHS = Decision("width", tuple(range(8))), Decision("k", tuple(range(8)))


class ByHand(ProxyScreen):
    """Scores by functions of the arch, in place of networks."""

    of: dict

    def score(self, name, arch):
        return float(self.of[name](arch))


class TestScreen:
    """64 archs of a cost that the first decision gives; the second is what is good."""

    @pytest.fixture
    def screen(self):
        class Width(Flops):
            def __call__(self, archs):
                return [1.0 + a["width"] for a in archs]

        domain = Domain({"width": WIDTHS[0], "k": WIDTHS[1]}, [Width()])

        def make(proxy, for_its_cost=False):
            screen = ByHand(domain, None, None, "naswot", 0, "cpu", for_its_cost)
            screen.of = {"naswot": proxy, "flops": lambda a: a[0], "blocks": lambda a: a[0]}
            return screen

        return make

    @staticmethod
    def history(metric, num=50):
        archs = list(itertools.product(range(8), range(8)))[:num]
        archs = [archs[i] for i in np.random.default_rng(0).permutation(len(archs))]
        return History([Evaluated(a, (-metric(a), 1.0 + a[0])) for a in archs], set(archs), num, 100)

    def test_takes_the_best_where_the_proxy_knows_more_than_cost_and_depth(self, screen, capsys):
        proxy = screen(lambda a: a[1])
        metric = self.history(lambda a: a[0] + 0.5 * a[1] + (a[0] * a[1]) % 3)
        assert proxy(metric, [(7, 1), (2, 6), (3, 3)]) == (2, 6)
        said = capsys.readouterr().out
        assert "screen  after 50 archs: naswot" in said
        assert "naswot is used" in said

    @pytest.mark.parametrize("proxy", [lambda a: a[0], lambda a: -a[1], lambda a: 0])
    def test_else_takes_the_first(self, screen, capsys, proxy):
        metric = self.history(lambda a: 10 * a[0] + a[1])
        assert screen(proxy)(metric, [(3, 1), (7, 7), (0, 0)]) == (3, 1)
        assert "naswot is not used" in capsys.readouterr().out

    def test_too_few_archs_are_no_reason(self, screen, capsys):
        assert screen(lambda a: a[1])(self.history(lambda a: a[1], 49), [(3, 1), (7, 7)]) == (3, 1)
        assert not capsys.readouterr().out

    def test_beside_costs_a_score_counts_for_its_cost(self, screen):
        """The dearer arch has the larger score, and is poor for what it costs."""
        metric = self.history(lambda a: 10 * a[0] + 2 * a[1] + (a[0] + a[1]) % 2)
        proxy, archs = (lambda a: 10 * a[0] + a[1]), [(1, 6), (5, 0)]
        assert screen(proxy)(metric, archs) == (5, 0)
        assert screen(proxy, for_its_cost=True)(metric, archs) == (1, 6)
