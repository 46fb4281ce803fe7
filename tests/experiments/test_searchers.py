"""One contract for every searcher, on a space of 81 archs whose front is known."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.costs import Counted
from experiments.pareto import front, hypervolume, reference_point
from experiments.searchers import Domain, Objective, Range, Search, open_storage, parse_range
from experiments.searchers.attentive import best_of_bins
from experiments.searchers.coarse_to_fine import skeletons
from experiments.searchers.grid import arch_of, coprime, number_of
from experiments.subnet_search import SEARCHERS, domain_of
from models import InputError
from spaces import CostModel, Decision, Space

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = SimpleNamespace(population=8, stride=None)
BUDGET = 30


class Flops:
    """A cost that counts how often it is asked."""

    name, unit = "flops", ""

    def __init__(self):
        self.settings, self.asked = {}, []

    def __call__(self, archs):
        self.asked += [tuple(a.values()) for a in archs]
        return [flops(a) for a in archs]


def flops(arch):
    return 10.0 + 7 * arch["depth"] + arch["width"] + (5 if arch["act"] == "silu" else 0) + arch["k"]


def accuracy(arch):
    """Between few of the archs and their cost there is a real choice to make."""
    right = 0.3 * arch["depth"] + 0.01 * arch["width"] + (0.25 if arch["act"] == "silu" else 0)
    return right - 0.02 * abs(arch["k"] - 5) - (0.2 if arch["act"] == "relu" and arch["depth"] == 3 else 0)


DECISIONS = {
    "depth": Decision("depth", (1, 2, 3)),
    "width": Decision("width", (8, 16, 24)),
    "act": Decision("act", ("relu", "silu", "none")),
    "k": Decision("k", (3, 5, 7)),
}
BOTH = (Objective("accuracy", True), Objective("flops"))
ALL = [dict(zip(DECISIONS, v, strict=True)) for v in itertools.product(*(d.values for d in DECISIONS.values()))]
ALL_LOSSES = np.array([[-accuracy(a), flops(a)] for a in ALL])


def domain(*ranges):
    return Domain(DECISIONS, [Flops()], [parse_range(r) for r in ranges])


def search(searcher, *ranges, objectives=BOTH, budget=BUDGET, **kwargs):
    return Search(domain(*ranges), objectives, SEARCHERS[searcher](OPTIONS), budget=budget, **kwargs)


def run(found, most=10**9, fails=lambda arch: False):
    """Ask and tell so many times; the archs."""
    archs = []
    while len(archs) < most and (asked := found.ask()) is not None:
        archs.append(asked.arch)
        found.tell(asked, None if fails(asked.arch) else {"accuracy": accuracy(asked.arch)})
    return archs


@pytest.mark.parametrize("name", SEARCHERS)
class TestContract:
    def test_asks_valid_archs_that_differ_and_no_more_than_the_budget(self, name):
        archs = run(search(name))
        assert len(archs) == BUDGET
        assert all(arch in ALL for arch in archs)
        assert len({tuple(a.values()) for a in archs}) == BUDGET

    def test_asks_every_arch_of_a_space_that_is_smaller_than_the_budget(self, name):
        found = search(name, "flops=:35", budget=60)
        inside = [a for a in ALL if flops(a) <= 35]
        assert 0 < len(inside) < 60
        archs = run(found)
        assert sorted(map(str, archs)) == sorted(map(str, inside))

    def test_evaluates_nothing_outside_of_the_ranges(self, name):
        low, high = 38.0, 42.0
        assert {low, high} <= {flops(a) for a in ALL}, "both ends are costs of archs"
        archs = run(search(name, "flops=38:42", budget=9))
        assert len(archs) == 9
        assert all(low <= flops(a) <= high for a in archs)

    def test_takes_one_objective(self, name):
        archs = run(search(name, objectives=BOTH[:1]))
        assert len(archs) == BUDGET

    def test_takes_three_objectives(self, name):
        objectives = (*BOTH, Objective("k", True))
        found = search(name, objectives=objectives, budget=15)
        while (asked := found.ask()) is not None:
            found.tell(asked, {"accuracy": accuracy(asked.arch), "k": asked.arch["k"]})
        assert len(found.results()) == 15
        assert found.losses(found.results()).shape == (15, 3)

    def test_goes_on_after_failures(self, name):
        found = search(name)
        archs = run(found, fails=lambda arch: arch["act"] == "none")
        assert len(archs) == BUDGET
        assert len({tuple(a.values()) for a in archs}) == BUDGET, "a failed arch is not asked again"
        results = found.results()
        assert len(results) == BUDGET
        assert {r.arch["act"] == "none" for r in results if r.values is None} <= {True}
        assert not any(r.arch["act"] == "none" for r in results if r.values is not None)

    def test_same_seed_same_archs(self, name):
        first, again = run(search(name, seed=3)), run(search(name, seed=3))
        assert first == again
        if name not in ("grid", "coarse-to-fine"):  # whose first archs are those of a grid
            assert run(search(name, seed=4), 20) != first[:20]

    def test_interrupted_and_resumed_is_uninterrupted(self, name, tmp_path):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        archs = run(search(name, budget=24, storage=open_storage(url)), 9)
        interrupted = search(name, budget=24, storage=open_storage(url))
        interrupted.abandon(interrupted.ask())  # what is under way when Ctrl-C comes
        archs += run(search(name, budget=24, storage=open_storage(url)), 6)
        resumed = search(name, budget=24, storage=open_storage(url))
        archs += run(resumed)
        whole = search(name, budget=24)
        assert archs == run(whole)
        assert [(r.number, r.arch, r.values) for r in resumed.results()] == [
            (r.number, r.arch, r.values) for r in whole.results()
        ]

    def test_finds_the_front_better_than_random(self, name):
        if name in ("random", "grid"):
            pytest.skip("is what the others are compared with")
        seeds = range(2 if name == "gp" else 4)
        assert np.mean([found_share(name, seed) for seed in seeds]) > RANDOM_SHARE + 0.02


# A space of 729 archs, to be searched with 60.
LARGER = {f"d{i}": Decision(f"d{i}", (0, 1, 2)) for i in range(6)}


class LargerFlops(Flops):
    def __call__(self, archs):
        return [larger_losses(a)[1] for a in archs]


def larger_losses(arch):
    """What each value of a decision brings differs, and so does what it costs."""
    values = list(arch.values())
    right = sum((0.05 + 0.03 * i) * v for i, v in enumerate(values)) + 0.1 * (values[0] == values[5])
    return -right, 1.0 + sum((1 + (i * 5) % 7) * v for i, v in enumerate(values))


ALL_LARGER = np.array([larger_losses(dict(zip(LARGER, v, strict=True))) for v in itertools.product(range(3), repeat=6)])


def found_share(name, seed):
    """Of the hypervolume of the whole space."""
    found = Search(Domain(LARGER, [LargerFlops()]), BOTH, SEARCHERS[name](OPTIONS), budget=60, seed=seed)
    while (asked := found.ask()) is not None:
        found.tell(asked, {"accuracy": -larger_losses(asked.arch)[0]})
    reference = reference_point(ALL_LARGER)
    return hypervolume(found.losses(found.results()), reference) / hypervolume(ALL_LARGER, reference)


RANDOM_SHARE = np.mean([found_share("random", seed) for seed in range(8)])


def test_the_front_of_the_larger_space_is_worth_a_search():
    assert 8 < front(ALL_LARGER).sum() < 60
    assert RANDOM_SHARE < 0.95


def test_a_minimized_objective_is_minimized():
    found = search("tpe", objectives=(Objective("accuracy", True), Objective("flops", True)), budget=40)
    run(found)
    reversed_ = search("tpe", budget=40)
    run(reversed_)
    assert np.mean([r.costs["flops"] for r in found.results()]) > np.mean([r.costs["flops"] for r in reversed_.results()])


class TestStudy:
    @pytest.mark.parametrize(
        ("other", "arguments", "settings"),
        [
            ("seed", ["tpe"], {"seed": 1}),
            ("searcher", ["random"], {}),
            ("population", ["evolution"], {}),
            ("ranges", ["tpe", "flops=:40"], {}),
            ("objectives", ["tpe"], {"objectives": BOTH[:1]}),
            ("supernet", ["tpe"], {"settings": {"supernet": "b"}}),
        ],
    )
    def test_one_of_other_settings_is_refused(self, tmp_path, monkeypatch, other, arguments, settings):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        first = "evolution" if other == "population" else "tpe"
        search(first, storage=open_storage(url), settings={"supernet": "a"})
        search(first, storage=open_storage(url), settings={"supernet": "a"})
        monkeypatch.setattr(OPTIONS, "population", 9)
        # With one objective Optuna itself refuses the other directions.
        with pytest.raises((InputError, ValueError), match=rf"another setting: {other}|directions"):
            search(*arguments, storage=open_storage(url), **{"settings": {"supernet": "a"}, **settings})

    def test_a_larger_budget_goes_on(self, tmp_path):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        run(search("random", budget=5, storage=open_storage(url)))
        assert len(run(search("random", budget=8, storage=open_storage(url)))) == 3

    def test_optuna_reads_the_study(self, tmp_path):
        import optuna

        url = f"sqlite:///{tmp_path / 'study.db'}"
        found = search("nsga3", storage=open_storage(url), name="subnets", budget=6)
        archs = run(found)
        study = optuna.load_study(study_name="subnets", storage=url)
        assert [t.params for t in study.trials] == archs
        assert [t.values for t in study.trials] == [[accuracy(a), flops(a)] for a in archs]
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]

    def test_tell_keeps_costs_and_record(self):
        found = search("random")
        asked = found.ask()
        assert asked.costs == {"flops": flops(asked.arch)}
        found.tell(asked, {"accuracy": 0.5}, {"bn": "calibrated"})
        (result,) = found.results()
        assert (result.number, result.arch, result.costs) == (0, asked.arch, asked.costs)
        assert result.values == {"accuracy": 0.5, "flops": flops(asked.arch)}
        assert result.record == {"bn": "calibrated"}

    def test_a_value_that_is_no_number_is_a_failure(self):
        found = search("random")
        asked = found.ask()
        found.tell(asked, {"accuracy": float("nan")})
        assert found.results()[0].values is None

    def test_two_that_ask_in_turn_never_ask_the_same(self, tmp_path):
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("evolution", "flops=:35", budget=99, storage=open_storage(url)) for _ in "ab")
        archs = []
        while True:
            pair = [one.ask(), other.ask()]
            archs += [a.arch for a in pair if a]
            for s, a in zip((one, other), pair, strict=True):
                if a:
                    s.tell(a, {"accuracy": accuracy(a.arch)})
            if None in pair:
                break
        assert len({tuple(a.values()) for a in archs}) == len(archs) == sum(flops(a) <= 35 for a in ALL)

    def test_a_race_for_one_arch_has_one_winner(self, tmp_path, monkeypatch):
        """Both look at the study before either has written what it takes."""
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("grid", storage=open_storage(url)) for _ in "ab")
        rival = []
        answer = one._answer

        def overtaken(trial):
            arch = answer(trial)
            if not rival:
                rival.append(None)
                rival[0] = other.ask()
            return arch

        monkeypatch.setattr(one, "_answer", overtaken)
        asked = one.ask()
        assert asked.arch != rival[0].arch
        assert len(run(one, 3)) == 3


WORKER = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import test_searchers as t
found = t.search("evolution", budget=40, storage=t.open_storage(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
number = 0
while (asked := found.ask()) is not None:
    number += 1
    if len(sys.argv) > 2 and number == int(sys.argv[2]):
        print("stuck", asked.number, flush=True)
        time.sleep(600)
    found.tell(asked, {{"accuracy": t.accuracy(asked.arch)}})
print("asked", number, flush=True)
"""


def start_worker(url, *args):
    code = WORKER.format(root=str(ROOT), tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, url, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def check_workers(url):
    """Three processes on one study, one of which is killed in the middle of its second arch."""
    workers = [start_worker(url, 2), start_worker(url), start_worker(url)]
    try:
        for w in workers:
            assert w.stdout.readline() == "ready\n"
        workers[0].stdin.write("go\n")
        workers[0].stdin.flush()
        stuck = workers[0].stdout.readline()
        assert stuck.startswith("stuck")
        for w in workers[1:]:
            w.stdin.write("go\n")
            w.stdin.flush()
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait(60)
        asked = [int(w.communicate(timeout=120)[0].split()[1]) for w in workers[1:]]
    finally:
        for w in workers:
            w.kill()
            w.wait()
    assert all(asked), "both of the others worked"
    results = search("evolution", budget=40, storage=open_storage(url)).results()
    assert [r.number for r in results] == list(range(40))
    assert len({tuple(r.arch.values()) for r in results}) == 40
    assert all(r.values for r in results)
    assert sum(asked) == 39, "the arch of the killed worker is asked again, its earlier one is not"


class TestWorkers:
    def test_sqlite(self, tmp_path):
        check_workers(f"sqlite:///{tmp_path / 'study.db'}")

    def test_journal(self, tmp_path):
        check_workers(f"journal:{tmp_path / 'study.log'}")

    def test_postgresql(self, postgresql):
        check_workers(postgresql)

    def test_a_live_workers_arch_is_left_to_it(self, tmp_path):
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("random", budget=2, storage=open_storage(url)) for _ in "ab")
        asked = one.ask()
        assert len(run(other)) == 1
        one.tell(asked, {"accuracy": 0.0})
        assert len(one.results()) == 2


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """A server of its own, on a Unix socket and a free port of 127.0.0.1."""
    pytest.importorskip("psycopg")
    binaries = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    found = next((Path(b).resolve().parent for b in reversed(binaries) if b), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("pg")
    user = {}
    if os.getuid() == 0:  # it refuses to run as root
        import pwd

        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        for parent in folder.parents:
            if not os.access(parent, os.X_OK) or parent.stat().st_mode & 0o001 == 0:
                folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pgtest.XXXXXX"], text=True).strip())
                os.chown(folder, account.pw_uid, account.pw_gid)
                break
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **user}
    subprocess.run([found / "initdb", "-D", data, "-U", "search", "-A", "trust"], check=True, **quiet)
    port = free_port()
    command = [found / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
    server = subprocess.Popen(command, **quiet)
    try:
        wait_for(port, server)
        yield f"postgresql://search@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, server):
    import psycopg

    for _ in range(300):
        assert server.poll() is None
        try:
            psycopg.connect(f"postgresql://search@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")


class TestStorage:
    def test_what_it_cannot_be_is_refused_without_the_password(self):
        with pytest.raises(InputError, match="right would be sqlite") as e:
            open_storage("redis://me:secret@host")
        assert "secret" not in str(e.value)

    def test_a_server_that_does_not_answer(self):
        pytest.importorskip("psycopg")
        with pytest.raises(InputError, match="--storage postgresql") as e:
            open_storage(f"postgresql://me:secret@127.0.0.1:{free_port()}/x")
        assert "secret" not in str(e.value)


class TestDomain:
    def test_costs_are_asked_once(self):
        provider = Flops()
        d = Domain(DECISIONS, [provider], [Range("flops", 0, 30)])
        for _ in range(3):
            d.feasible((0, 0, 0, 0))
            d.costs((0, 0, 0, 0))
        assert len(provider.asked) == 1

    def test_a_range_of_no_cost_is_refused(self):
        with pytest.raises(InputError, match="latency"):
            Domain(DECISIONS, [Flops()], [Range("latency", 0, 1)])

    def test_no_arch_within(self):
        assert domain("flops=:1").draw(random.Random(0)) is None
        assert search("random", "flops=:1").ask() is None

    def test_a_mutation_takes_another_value(self):
        d, rng = domain(), random.Random(0)
        for probability in (None, 0.0, 0.5, 1.0):
            for _ in range(50):
                changed = sum(a != b for a, b in zip((0, 1, 2, 0), d.mutate((0, 1, 2, 0), rng, probability), strict=True))
                assert changed == {None: 1, 0.0: 1, 1.0: 4}.get(probability, changed)
                assert changed >= 1

    def test_draws_are_uniform_within_the_ranges(self):
        d, rng = domain("flops=:35"), random.Random(0)
        inside = [a for a in ALL if flops(a) <= 35]
        counts = dict.fromkeys((tuple(a.values()) for a in inside), 0)
        for _ in range(100 * len(inside)):
            counts[tuple(d.arch(d.draw(rng)).values())] += 1
        assert min(counts.values()) > 50
        assert max(counts.values()) < 160

    def test_settles_in_a_range_that_no_draw_hits(self):
        """60 decisions: of the uniform draws none has fewer than 10 values of 1."""
        decisions = {f"d{i}": Decision(f"d{i}", (0, 1)) for i in range(60)}
        ones = SimpleNamespace(name="ones", unit="", settings={})
        provider = type("P", (), {"name": "ones", "unit": "", "settings": {}, "__call__": lambda s, a: [float(sum(x.values())) for x in a]})()
        assert ones.name == provider.name
        d, rng = Domain(decisions, [provider], [Range("ones", 3, 4)]), random.Random(0)
        found = {d.draw(rng) for _ in range(5)}
        assert len(found) == 5
        assert all(3 <= sum(a) <= 4 for a in found)

    def test_of_a_space_knows_what_is_cheap_and_what_is_of_a_kind(self):
        model = CostModel(Space(ROOT / "tests/assets/tiny_nas.yaml"), 64)
        d = domain_of(model, ["flops"], ["params=:20k"])
        rng = random.Random(0)
        archs = [d.draw(rng) for _ in range(20)]
        for arch in archs:
            costs = model.of(d.arch(arch))
            assert d.costs(arch) == {name: float(costs[name]) for name in ("params", "flops", "activations")}
            assert costs["params"] <= 20_000
            assert d.indices(d.arch(arch)) == arch
        least = model.of(d.arch((0,) * len(d.sizes)))["flops"]
        most = model.of(d.arch(tuple(n - 1 for n in d.sizes)))["flops"]
        assert all(least <= d.costs(a)["flops"] <= most for a in archs)
        assert len(set(d.groups.values())) < len(d.labels)

    def test_counted_is_the_cost_models(self):
        model = CostModel(Space(ROOT / "tests/assets/tiny_nas.yaml"), 64)
        archs = [model.space.sample(random.Random(i)) for i in range(5)]
        for name in ("params", "flops", "activations"):
            assert Counted(model, name)(archs) == [model.of(a)[name] for a in archs]


class TestRanges:
    @pytest.mark.parametrize(
        ("text", "low", "high"),
        [("flops=200M:400M", 2e8, 4e8), ("flops=:4G", 0, 4e9), ("latency=5ms:", 5, float("inf"))],
    )
    def test_reads(self, text, low, high):
        assert parse_range(text) == Range(text.partition("=")[0], low, high)

    @pytest.mark.parametrize("text", ["flops", "flops=", "flops=:", "flops=4G", "=1:2", "flops=3:2", "flops=a:b"])
    def test_refuses(self, text):
        with pytest.raises(InputError):
            parse_range(text)

    def test_both_ends_are_within(self):
        r = Range("flops", 2.0, 4.0)
        assert [r.distance(x) for x in (1, 2, 3, 4, 6)] == [0.5, 0, 0, 0, 0.5]


class TestGrid:
    def test_numbers_and_archs(self):
        sizes = (2, 3, 4)
        archs = [arch_of(n, sizes) for n in range(24)]
        assert archs == list(itertools.product(*map(range, sizes)))
        assert [number_of(a, sizes) for a in archs] == list(range(24))

    def test_a_stride_of_one_is_the_order(self):
        options = SimpleNamespace(population=None, stride=1)
        found = Search(domain(), BOTH, SEARCHERS["grid"](options), budget=10)
        assert run(found) == ALL[:10]

    def test_by_default_it_covers_the_space(self):
        numbers = [ALL.index(a) for a in run(search("grid", budget=9))]
        assert sorted(n // 9 for n in numbers) == list(range(9))

    def test_coprime(self):
        assert [coprime(s, 12) for s in (0, 1, 2, 5, 6)] == [1, 1, 5, 5, 7]


def test_best_of_bins():
    losses = np.array([[3.0, 0.0], [1.0, 0.1], [2.0, 5.0], [0.0, 10.0], [5.0, 9.9]])
    assert sorted(best_of_bins(losses, 2)) == [1, 3]
    assert sorted(best_of_bins(losses, 10)) == [1, 2, 3]
    assert best_of_bins(losses[:, :1], 2) == [3, 1]


def test_skeletons_have_one_level_in_a_group():
    d = Domain(DECISIONS, groups={"depth": "a", "width": "a", "act": "b", "k": "b"})
    found = list(skeletons(d, 99))
    assert len(found) == len(set(found)) == 9
    assert all(a == b and c == e for a, b, c, e in found)
