"""Costs and errors of a space, as reports."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import search_subnets as script
from experiments.costs import Range
from experiments.supernets.space_costs import report_costs, sample_costs
from experiments.supernets.space_report import Subset, edf, good_values, read_rows, report_edf
from models import InputError
from spaces import CostModel, Space

ROOT = Path(__file__).resolve().parents[3]
CFG = str(ROOT / "tests/assets/tiny_nas.yaml")


@pytest.fixture(scope="module")
def model():
    return CostModel(Space(CFG), 64)


def args(tmp_path, *given):
    return script.parse([*map(str, given), "--project", str(tmp_path), "--name", "run"])


class TestCosts:
    def test_are_those_of_archs_of_the_space(self, model):
        sampled = sample_costs(model, 500, 0)
        assert {name: len(v) for name, v in sampled.items()} == dict.fromkeys(model.names, 500)
        assert sampled["flops"].min() >= model.of(model.least({"flops": 1}))["flops"]
        assert len(np.unique(sampled["flops"])) > 50

    def test_same_seed_same_archs(self, model):
        first, again, other = (sample_costs(model, 50, seed)["flops"].tolist() for seed in (0, 0, 1))
        assert first == again != other

    def test_ranges_hold(self, model):
        low, high = np.quantile(sample_costs(model, 500, 0)["flops"], [0.4, 0.6]).tolist()
        flops = sample_costs(model, 300, 1, [Range("flops", low, high)])["flops"]
        assert len(flops) == 300
        assert low <= flops.min() <= flops.max() <= high

    def test_what_no_arch_costs_is_said(self, model):
        with pytest.raises(InputError, match="gave only 0 within"):
            sample_costs(model, 10, 0, [Range("flops", 0, 1)])

    def test_report(self, tmp_path, model, capsys):
        upstream = model.of(Space(CFG).upstream())
        given = ["--cfg", CFG, "--sample-cost", 400, "--cost-imgsz", 64, "--baseline-flops", upstream["flops"]]
        results = report_costs(args(tmp_path, *given))
        flops = np.loadtxt(tmp_path / "run/costs.csv", delimiter=",", skiprows=1)[:, 1]
        assert len(flops) == 400
        near = (np.abs(flops / upstream["flops"] - 1) <= 0.05).mean()
        assert results["near_baseline"]["share"] == pytest.approx(near)
        assert results["upstream"] == upstream
        assert results["archs"] == Space(CFG).size()
        assert json.loads((tmp_path / "run/costs.json").read_text())["sampled"] == 400
        assert (tmp_path / "run/costs.png").read_bytes().startswith(b"\x89PNG")
        assert f"{near:.1%} of the archs lie within 5%" in capsys.readouterr().out


def write_csv(path, number=200, seed=0):
    """Archs whose error is 0.1 with depth 3, and 0.5 otherwise, a little noise apart; depth costs."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["trial", "searcher", "seed", "accuracy", "flops", "front", "error", "arch"])
        writer.writeheader()
        for i in range(number):
            depth, act = int(rng.integers(1, 4)), str(rng.choice(["relu", "silu"]))
            accuracy = (0.9 if depth == 3 else 0.5) + 0.01 * rng.random()
            row = {"trial": i, "accuracy": accuracy, "flops": 1e6 * depth, "arch": json.dumps({"d": depth, "act": act})}
            writer.writerow(row)
        writer.writerow(
            {"trial": number, "error": "RuntimeError", "flops": 1e6, "arch": json.dumps({"d": 1, "act": "relu"})}
        )
    return path


class TestErrors:
    def test_edf_by_hand(self):
        errors, shares = edf(np.array([0.3, 0.1, 0.2, 0.2]))
        assert errors.tolist() == [0.1, 0.2, 0.2, 0.3]
        assert shares.tolist() == [0.25, 0.5, 0.75, 1.0]

    def test_a_failed_evaluation_is_left_out(self, tmp_path):
        metric, rows = read_rows(write_csv(tmp_path / "subnets.csv"))
        assert (metric, len(rows)) == ("accuracy", 200)
        assert set(rows[0]) == {"arch", "error_rate", "searcher", "flops"}

    def test_good_values_are_found(self, tmp_path):
        _, rows = read_rows(write_csv(tmp_path / "subnets.csv"))
        good = good_values(rows, 2000)
        assert (good["d"]["low"], good["d"]["median"], good["d"]["high"]) == (3, 3, 3)
        assert good["d"]["shares"] == {"3": 1.0}
        assert good["flops"] == {"low": 3e6, "median": 3e6, "high": 3e6}
        assert set(good["act"]) == {"shares"}
        assert sum(good["act"]["shares"].values()) == pytest.approx(1)

    def test_two_spaces_are_compared_by_what_they_share(self, tmp_path):
        one = write_csv(tmp_path / "exp" / "subnets.csv", 60)
        other = tmp_path / "lr=0.1" / "exp" / "subnets.csv"
        other.parent.mkdir(parents=True)
        other.write_text(one.read_text().replace('""act""', '""norm""').replace("flops", "params"))
        with pytest.raises(InputError, match="another file is called 'exp' as well"):
            report_edf(args(tmp_path, "--edf", one, other))
        results = report_edf(args(tmp_path, "--edf", f"a={one}", other, "--subset", "deep:d=3", "--samples", 20))
        assert {"a", "exp", "deep"} == results["subsets"].keys()
        assert results["subsets"]["a"]["archs"] == results["subsets"]["exp"]["archs"] == 60
        assert results["good_values"].keys() == {"d"}

    def test_searchers_stand_apart(self, tmp_path):
        file = write_csv(tmp_path / "mine" / "subnets.csv", 50)
        lines = file.read_text().splitlines()
        lines = [line.replace(",,", f",{'random' if i % 2 else 'nsga3'},", 1) for i, line in enumerate(lines)]
        file.write_text("\n".join(lines))
        results = report_edf(args(tmp_path, "--edf", file, "--samples", 20))
        assert {k: v["archs"] for k, v in results["subsets"].items()} == {"mine random": 25, "mine nsga3": 25}

    def test_report_by_subset_and_complexity(self, tmp_path, capsys):
        file = write_csv(tmp_path / "mine" / "subnets.csv")
        subset = ["--subset", "deep:d=3", "--subset", "shallow:d=1|2,act=relu"]
        results = report_edf(args(tmp_path, "--edf", file, *subset, "--samples", 200))
        _, rows = read_rows(file)
        counts = {"mine": 200, "deep": sum(r["arch"]["d"] == 3 for r in rows)}
        counts["shallow"] = sum(r["arch"]["d"] < 3 and r["arch"]["act"] == "relu" for r in rows)
        assert {name: r["archs"] for name, r in results["subsets"].items()} == counts
        assert results["subsets"]["deep"]["median"] < 0.11 < 0.48 < results["subsets"]["shallow"]["least"]
        with (tmp_path / "run/edf.csv").open(newline="") as f:
            table = list(csv.DictReader(f))
        assert len(table) == sum(counts.values())
        assert [r["share"] for r in table if r["subset"] == "deep"][-1] == "1"
        page = (tmp_path / "run/edf.html").read_text()
        assert "deep (" in page
        assert "<script src" not in page
        assert (tmp_path / "run/edf.png").read_bytes().startswith(b"\x89PNG")
        assert "values of good archs" in capsys.readouterr().out
        (tmp_path / "run").rename(tmp_path / "first")
        cheap = report_edf(args(tmp_path, "--edf", f"all={file}", "--range", "flops=:2M", "--samples", 50))
        assert cheap["subsets"]["all"]["archs"] == sum(r["arch"]["d"] < 3 for r in rows)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["--subset", "deep"], "right would be small:"),
            (["--subset", "deep:d"], "right would be small:"),
            (["--subset", "deep:d=9"], "none of the 20 archs is in it"),
            (["--subset", "deep:e=3"], "no decision is called 'e'"),
            (["--range", "beauty=1:2"], "no such cost"),
            (["--range", "flops=:1k"], "no archs to report on"),
        ],
    )
    def test_refuses(self, tmp_path, given, message):
        file = write_csv(tmp_path / "subnets.csv", 20)
        with pytest.raises(InputError, match=message):
            report_edf(args(tmp_path, "--edf", file, *given))

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        for name in ("x.csv", "missing.csv"):
            with pytest.raises(InputError, match="--edf"):
                read_rows(tmp_path / name)

    @pytest.mark.parametrize("row", ["nan,1", "0.5,inf"])
    def test_numbers_that_are_not_finite(self, tmp_path, row):
        (tmp_path / "x.csv").write_text(f'accuracy,flops,arch\n0.5,1,"{{}}"\n{row},"{{}}"\n')
        with pytest.raises(InputError, match=r"--edf .*x\.csv: row 2 holds a number that is not finite"):
            read_rows(tmp_path / "x.csv")

    def test_subset(self):
        subset = Subset.read("small:a=1|2,b=x")
        assert [subset.holds(a) for a in ({"a": 1, "b": "x"}, {"a": 3, "b": "x"}, {"a": 2, "b": "y"})] == [
            True,
            False,
            False,
        ]
