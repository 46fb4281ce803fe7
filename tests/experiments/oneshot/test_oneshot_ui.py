"""One-shot searches as trials of an NNI experiment: what is watched in the browser, and what is left."""

import csv
import json
import signal
from pathlib import Path

import pytest

import oneshot_nas
from experiments.nni_experiment import web
from tests.experiments.browser import CHART, Browser, address_in, needs_chromium
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "tests/assets/tiny_nas.yaml"
QUICK = ["--cfg", SPACE, "--imgsz", "32", "--epochs", "2", "--batch", "128", "--device", "cpu", "--no-baseline"]


@pytest.fixture(scope="module")
def oneshot(script):
    class Oneshot(script):
        name, fresh = "oneshot_nas.py", True

    return Oneshot


@pytest.fixture(scope="module")
def run(tmp_path_factory, oneshot):
    """Two strategies from one seed, side by side."""
    cwd = tmp_path_factory.mktemp("ui")
    args = ["--strategy", "darts,proxyless", "--concurrency", "2", "--ui", free_port()]
    code, out, err = oneshot(cwd).run(*QUICK, *args)
    assert code == 0, err + out
    return cwd, cwd / "runs/oneshot_nas/exp", out


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_search_is_a_trial_and_the_best_is_the_result(run):
    _, folder, out = run
    rows = rows_of(folder / "trials.csv")
    assert sorted(row["strategy"] for row in rows) == ["darts", "proxyless"]
    for row in rows:
        own = folder / "runs" / f"{row['strategy']}-{row['seed']}"
        results = json.loads((own / "results.json").read_text())
        assert results["strategy"] == row["strategy"]
        assert float(row["accuracy"]) == results["derived"]["inherited"]
    best = max(rows, key=lambda row: float(row["accuracy"]))
    own = folder / "runs" / f"{best['strategy']}-{best['seed']}"
    for name in ("arch.json", "detector.yaml", "detector.pt", "results.json"):
        assert (folder / name).read_bytes() == (own / name).read_bytes()
    assert f"http://{web.LOOPBACK}:" in out


def test_several_strategies_need_the_web_ui(tmp_path, call):
    code, _, err = call(oneshot_nas, *QUICK, "--strategy", "darts,spos")
    assert code == 2
    assert err.strip() == "error: --trials and several strategies need --ui PORT"
    assert not (tmp_path / "runs").exists()


@needs_chromium
def test_the_web_ui_shows_each_search_and_its_curve(run, script, tmp_path):
    cwd, folder, _ = run

    class MultiTrial(script):
        name, fresh = "multi_trial_nas.py", True

    url = f"http://{web.LOOPBACK}:{(port := free_port())}"
    viewer = MultiTrial(cwd).start("--view", folder, "--port", port)
    try:
        address = address_in(viewer.stdout.readline())
        assert address.startswith(url)
        browser = Browser(tmp_path)
        try:
            browser.open(address, "SUCCEEDED")
            page = browser.open(f"{url}/detail", "SUCCEEDED")
            for row in rows_of(folder / "trials.csv"):
                assert row["id"] in page
                of_row = (
                    f"[...document.querySelectorAll('.ms-DetailsRow')].find((r) => r.innerText.includes('{row['id']}'))"
                )
                browser.js(f"{of_row}.querySelector('i[data-icon-name=LineChart]').closest('button').click() || true")
                (series,) = browser.js(CHART)
                epochs = rows_of(folder / "runs" / f"{row['strategy']}-{row['seed']}" / "metrics.csv")
                assert series["data"] == [float(epoch["arch_acc"]) for epoch in epochs]
                browser.open(f"{url}/oview", "SUCCEEDED")
                browser.open(f"{url}/detail", "SUCCEEDED")
        finally:
            browser.close()
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.communicate(timeout=60)
