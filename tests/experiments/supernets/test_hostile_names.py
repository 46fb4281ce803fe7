"""Reports of names that somebody chose to run something: in HTML, where none does, and in pictures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.supernets.fidelity import _pictures
from experiments.supernets.plots import Shown, plot_front
from experiments.supernets.space_report import _html_edf, _plot_edf
from tests.experiments.browser import Browser, needs_chromium

# One name, of all that such names try.
NAME = " ".join([
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "\"><svg onload='window.ran = 1'>",
    "<a href='javascript:window.ran = 1'>click</a>",
    "&lt;script&gt;window.ran = 1&lt;/script&gt;",
    "<!-- <script>",
    "$\\frac{$ $x_{$",
])  # fmt: skip


def front(path, name):
    row = {"trial": 0, name + "m": 0.5, name + "c": 2.0, "front": True, "arch": {name: name}, "seconds": 1.0}
    searches = {name: [row, {**row, "trial": 1, "front": False}]}
    plot_front(path, Shown(name + "m", name + "c", searches, {name: np.array([0.5, 1.0])}, 0))


def edf(path, name):
    subset = {"archs": 1, "least": 0.1, "median": 0.1, "mean": 0.1}
    results = {"metric": name, "subsets": {name: subset}, "good_values": {name: {"shares": {name: 1.0}}}}
    _html_edf({name: np.array([0.1, 0.2])}, results, path)
    _plot_edf({name: np.array([0.1, 0.2])}, name, path.with_suffix(".png"))


def fidelity(path, name):
    _pictures(path, name, np.array([0.1, 0.2]), {name: np.array([1.0, 2.0])}, {name: SimpleNamespace(tau=0.5)})


REPORTS = {"pareto_front": front, "edf": edf, "fidelity": fidelity}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for report, write in REPORTS.items():
        write(folder / f"{report}.html", NAME)
    return [folder / f"{report}.html" for report in REPORTS]


def test_names_are_no_tags_and_no_formulas(pages):
    for path in pages:
        page = path.read_text(encoding="utf-8")
        for tag in ("<script>window.ran", "<img src=x", "<svg onload", "<a href='javascript", "<!-- <script>"):
            assert tag not in page
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@needs_chromium
@pytest.mark.slow
def test_no_page_runs_what_a_name_says(pages, tmp_path):
    browser = Browser(tmp_path)
    try:
        for path in pages:
            browser.call("Page.navigate", url=f"file://{path}")
            # Once it is drawn, whatever a name could do has been done.
            browser.js(f"location.pathname == {json.dumps(str(path))} && document.querySelectorAll('.trace').length")
            browser.js("document.readyState == 'complete'")
            links = "[...document.querySelectorAll('a')].map((a) => String(a.getAttribute('xlink:href') || a.href))"
            found = browser.js(f"String(window.ran) + {links}.filter((to) => to.startsWith('java')).length")
            assert found == "undefined0"
            assert "window.ran = 1" in browser.js("document.body.textContent"), "it is shown as it is written"
    finally:
        browser.close()
