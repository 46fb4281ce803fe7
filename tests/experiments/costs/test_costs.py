"""One contract for every cost provider; then what is each one's own."""

import itertools
import json
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from experiments.costs import (
    COUNTED,
    Cached,
    CommandLatency,
    Counted,
    Hardware,
    Latency,
    Remote,
    Roofline,
    TableLatency,
    latency_table,
    make_provider,
    read_costs,
    timing,
)
from experiments.costs.cache import canonical
from experiments.costs.pool import Estimator, serve, server
from experiments.testing import CFG, ProviderContract
from models import Model, Network, count_flops
from models.grammar import read_config
from spaces import CostModel, Space
from tests.experiments.costs.toys import Numbers, measure
from tests.refusal import refused

IMGSZ = 32
SPACE = Space(CFG)
SOME = ProviderContract().some
# A command that tells something of the file, which differs by arch.
BYTES = "cat {onnx} | wc -c"
PEAK = {"peak": 1e11, "bandwidth": 1e10}


def _digest(run, *_):
    """Instead of a time: what the network computes, which differs by arch and by nothing else."""
    out = run()
    while isinstance(out, (list, tuple)):
        out = out[0]
    return float(np.abs(np.asarray(out)).sum())


@pytest.fixture
def no_clock(monkeypatch):
    monkeypatch.setattr(timing, "median_ms", _digest)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(latency_table, "_WARM_UP", (1, 0))
        monkeypatch.setattr(latency_table, "_REPEATS", (1, 0))
        latency_table.main(
            latency_table.parse(["--cfg", str(_written(path)), "--imgsz", str(IMGSZ), "--out", str(path)])
        )
    return str(path)


def _written(beside):
    path = beside.with_name("space.yaml")
    path.write_text(yaml.safe_dump(CFG))
    return path


@pytest.fixture(scope="module")
def port():
    server, port = serve(Estimator(lambda space, imgsz, hw: Counted(CostModel(space, imgsz), "flops")))
    yield port
    server.stop(None)


# Name to what makes the provider of (space, side), and to the provider with another setting.
MADE = {
    **{name: (lambda s, i, f, n=name: make_provider(n, s, i), None) for name in COUNTED},
    "torch": (lambda s, i, f: Latency(s, i, threads=1), lambda s, i, f: Latency(s, i, threads=2)),
    "onnxruntime": (
        lambda s, i, f: make_provider("onnxruntime", s, i, {"threads": 1}),
        lambda s, i, f: Latency(s, i, "onnxruntime", threads=2),
    ),
    "openvino": (
        lambda s, i, f: make_provider("openvino", s, i, {"threads": 1}),
        lambda s, i, f: Latency(s, i, "openvino", threads=2),
    ),
    "command": (
        lambda s, i, f: make_provider("command", s, i, {"command": BYTES, "device": "board"}),
        lambda s, i, f: CommandLatency(s, i, command=BYTES, device="other board"),
    ),
    "table": (
        lambda s, i, f: TableLatency(s, i, f("table"), threads=1),
        lambda s, i, f: TableLatency(s, i, f("other_table"), threads=1),
    ),
    "latency": (
        lambda s, i, f: Roofline(s, i, "latency", **PEAK),
        lambda s, i, f: Roofline(s, i, "latency", **PEAK, bytes=1),
    ),
    "energy": (
        lambda s, i, f: make_provider("roofline", s, i, {"cost": "energy", "peak": "100G", "bandwidth": "10G"}),
        lambda s, i, f: Roofline(s, i, "energy", **PEAK, watts=1),
    ),
    "cached": (
        lambda s, i, f: Cached(make_provider("flops", s, i), f("cache")),
        lambda s, i, f: Cached(make_provider("params", s, i), f("cache")),
    ),
    "remote": (
        lambda s, i, f: Remote([{"host": "127.0.0.1", "ports": [f("port")]}], s, i),
        lambda s, i, f: Remote([{"host": "127.0.0.1", "ports": [f("port")]}], s, i, {"simulated": "v2"}),
    ),
}


class TestContract(ProviderContract):
    @pytest.fixture(params=MADE)
    def kind(self, request):
        return request.param

    @pytest.fixture(autouse=True)
    def made(self, kind, no_clock, table, port, tmp_path):
        if kind == "openvino":
            pytest.importorskip("openvino", reason="openvino is an optional package")

        def found(what):
            if what == "other_table":
                content = json.loads(Path(table).read_text())
                for parts in content["milliseconds"].values():
                    parts.update({name: 2 * ms for name, ms in parts.items()})
                (tmp_path / "other.json").write_text(json.dumps(content))
                return str(tmp_path / "other.json")
            return {"table": table, "cache": str(tmp_path / "cache.db"), "port": port}[what]

        first, other = MADE[kind]
        self.make = lambda space=SPACE, imgsz=IMGSZ, changed=False: (other if changed else first)(space, imgsz, found)

    def test_is_of_a_known_unit_and_a_figure_of_each_arch(self):
        provider = self.make()
        assert provider.name in (*COUNTED, "latency", "energy")
        assert provider.unit == {"latency": "ms", "energy": "mJ"}.get(provider.name, "")
        json.loads(canonical(provider.settings))
        assert len(set(provider(SOME))) == 4, "a wrong order would show"

    def test_says_which_values_there_are(self):
        with refused("width", "12", "8, 16"):
            self.make()([{**SOME[0], "width": 12}])

    def test_settings_are_in_the_key_of_the_cache(self, kind):
        others = [self.make(imgsz=64)] if kind != "table" else []
        others += [self.make(Space({**CFG, "nc": 3}))] if kind != "table" else []
        others += [self.make(changed=True)] if MADE[kind][1] else []
        keys = {canonical([type(p).__name__, p.name, p.settings]) for p in (self.make(), *others)}
        assert len(keys) == 1 + len(others)

    def test_cached_costs_are_not_computed(self, tmp_path):
        asked = []
        provider = self.make()

        class Counting:
            name, unit, settings = provider.name, provider.unit, provider.settings

            def __call__(self, archs):
                asked.append(list(archs))
                return provider(archs)

        costs = Cached(Counting(), tmp_path / "own.db")(SOME[:2])
        again = Cached(Counting(), tmp_path / "own.db")
        assert again([*SOME[:2], SOME[3], SOME[3]]) == [*costs, *provider([SOME[3]] * 2)]
        assert asked == [SOME[:2], [SOME[3]]]
        Counting.settings = {**provider.settings, "changed": True}
        Cached(Counting(), tmp_path / "own.db")(SOME[:2])
        assert len(asked) == 3


def test_latency_is_measured_in_milliseconds(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP", (1, 0))
    seen = []
    monkeypatch.setattr(
        Network, "run_rows", lambda self, x: seen.append((torch.get_num_threads(), x.shape, self.training))
    )
    clock = itertools.count(0, 0.002)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    threads = torch.get_num_threads()
    provider = Latency(SPACE, IMGSZ, threads=threads + 1)
    monkeypatch.setattr(Model, "reductions", lambda self: [2.0, 2.0, 4.0, 4.0])
    assert provider(SOME[:1]) == [pytest.approx(2.0)]
    assert set(seen) == {(threads + 1, (1, 3, IMGSZ, IMGSZ), False)}
    assert torch.get_num_threads() == threads


def test_resolution_of_the_arch_is_measured(no_clock, monkeypatch):
    cfg = {"resolution": {"choice": [16, 32]}, "backbone": [[-1, 1, "Conv", [8, 3, 2]]]}
    sides = []
    monkeypatch.setattr(Network, "run_rows", lambda self, x: sides.append(x.shape[-1]) or x)
    Latency(Space(cfg), 64)([{"resolution": 32}, {"resolution": 16}])
    assert sides == [32, 16]


def test_compile_measures_what_was_compiled(no_clock, monkeypatch):
    compiled = []

    def eager(network, dynamic):
        compiled.append(dynamic)
        return network

    monkeypatch.setattr(torch, "compile", eager)
    assert Latency(SPACE, IMGSZ, "compile")(SOME[:2]) == Latency(SPACE, IMGSZ)(SOME[:2])
    assert compiled == [False, False]

    def breaks(network, dynamic):
        def run(x):
            raise RuntimeError("no C++ compiler\nlong story")

        return run

    monkeypatch.setattr(torch, "compile", breaks)
    with refused("torch.compile", "no C++ compiler"):
        Latency(SPACE, IMGSZ, "compile")(SOME[:1])


@pytest.mark.slow
def test_compile_for_real(no_clock):
    assert Latency(SPACE, IMGSZ, "compile")(SOME[:2]) == pytest.approx(Latency(SPACE, IMGSZ)(SOME[:2]), rel=1e-4)


def test_bad_options_of_a_measurement():
    with refused("backend 'tpu'", "openvino"):
        Latency(SPACE, IMGSZ, "tpu")
    with refused("threads: 0"):
        Latency(SPACE, IMGSZ, threads=0)
    with refused("onnxruntime", "CPU only"), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("experiments.costs.latency.device_of", lambda device: device)
        Latency(SPACE, IMGSZ, "onnxruntime", device="cuda")
    with refused("onnxruntime", "needs a detector"):
        Latency(Space({"backbone": CFG["backbone"]}), IMGSZ, "onnxruntime")(SOME[:1])


class TestCommand:
    def _told(self, command, tmp_path, **more):
        return CommandLatency(SPACE, IMGSZ, command=command, device="board", **more).of_file(tmp_path / "a b", IMGSZ)

    def test_what_it_prints(self, tmp_path):
        (tmp_path / "a b").write_text("2.5")
        for command, ms in (
            ("cat {onnx}", 2.5),
            ("echo 'median 1.25 ms (of model7 runs), p90: 1.5ms'; true {onnx}", 1.5),
            ('echo 9; echo \'{"fps": 12, "latency": 3e-1}\'; true {onnx}', 0.3),
        ):
            assert self._told(command, tmp_path) == ms

    def test_what_fails(self, tmp_path):
        for command, parts in (
            ("echo well >&2; echo no board >&2; exit 3; {onnx}", ["ended with 3: no board"]),
            ("false {onnx}", ["ended with 1", "nothing"]),
            ("true {onnx}", ["no milliseconds", "printed nothing"]),
            ("echo ready; true {onnx}", ["no milliseconds", "'ready'", '{"latency": 1.5}']),
            ("echo '{\"fps\": 12}'; true {onnx}", ["no milliseconds"]),
            ("echo 0; true {onnx}", ["0 ms", "positive"]),
            ("sleep 60; echo {onnx}", ["more than 0.2 s"]),
        ):
            with refused(f"command '{command}': ", *parts):
                self._told(command, tmp_path, timeout=0.2 if "sleep" in command else 60)

    def test_bad_options(self):
        for told, parts in (
            ({"command": "benchmark_app", "device": "x"}, ["'benchmark_app'", "{onnx}"]),
            ({"command": BYTES, "device": ""}, ["device", "name"]),
            ({"command": BYTES, "device": "x", "timeout": 0}, ["timeout: 0"]),
            ({"command": BYTES}, ["hw_config", "device"]),
        ):
            with refused(*parts):
                make_provider("command", SPACE, IMGSZ, told)

    def test_a_server_runs_no_commands_of_clients(self):
        with refused("--provider command", "FILE.py:NAME"):
            server.main(server.parse(["--provider", "command"]))


def test_table_is_the_cost_models(table):
    by_model = CostModel(SPACE, IMGSZ, latency_table.LatencyTable(table))
    assert TableLatency(SPACE, IMGSZ, table)(SOME) == [by_model.of(a)["latency"] for a in SOME]
    with refused("nowhere.json", "experiments.costs.latency_table"):
        TableLatency(SPACE, IMGSZ, "nowhere.json")


class TestRoofline:
    def test_an_operation(self):
        hardware = Hardware(peak=1e9, bandwidth=1e8, bytes=2, pj_per_flop=3, pj_per_byte=5, watts=2)
        assert hardware.latency(4e6, 1000) == pytest.approx(4)  # bound by computing
        assert hardware.latency(1000, 4e5) == pytest.approx(8)  # bound by the memory
        assert hardware.energy(4e6, 1000) == pytest.approx(1e-9 * (3 * 4e6 + 5 * 2 * 1000) + 2 * 4)

    def test_a_convolution_by_hand(self):
        space = Space({"backbone": [[-1, 1, "Conv", [{"choice": [8, 16], "label": "c"}, 3, 2]]]})
        flops, moved = 2 * 16 * 16 * 27 * 8, 3 * 32 * 32 + 27 * 8 + 8 * 16 * 16
        (ms,) = Roofline(space, 32, "latency", peak=1e9, bandwidth=1e30)([{"c": 8}])
        assert ms == pytest.approx(1e3 * flops / 1e9)
        (ms,) = Roofline(space, 32, "latency", peak=1e30, bandwidth=1e9)([{"c": 8}])
        assert ms == pytest.approx(1e3 * 4 * moved / 1e9)
        (mj,) = Roofline(space, 32, "energy", peak=1e9, bandwidth=1e9)([{"c": 16}])
        assert mj == pytest.approx(1e-9 * (2.3 * 2 * flops + 162.5 * 4 * (3 * 32 * 32 + 2 * 27 * 8 + 2 * 8 * 16 * 16)))

    def test_bound_by_computing_it_is_the_flops(self):
        provider = Roofline(SPACE, IMGSZ, "latency", peak=1e6, bandwidth=1e30)
        for arch, ms in zip(SOME, provider(SOME), strict=True):
            flops = count_flops(Model(read_config(SPACE.freeze(arch))), IMGSZ)
            assert ms == pytest.approx(1e-3 * flops)

    @pytest.mark.parametrize(
        ("key", "value"), [("peak", 0), ("bandwidth", -1), ("watts", float("nan")), ("bytes", "4")]
    )
    def test_bad_hardware(self, key, value):
        with refused(key, repr(value)):
            Roofline(SPACE, IMGSZ, "latency", **{**PEAK, key: value})

    def test_bad_cost(self):
        with refused("latency and energy", "'area'"):
            Roofline(SPACE, IMGSZ, "area", **PEAK)


class TestCache:
    def test_processes_share_a_file_and_agree(self, tmp_path):
        context = multiprocessing.get_context("spawn")  # to fork is not safe beside the threads of other tests
        queue, barrier = context.Queue(), context.Barrier(3)
        path = tmp_path / "new" / "costs.db"
        others = [
            context.Process(target=measure, args=(path, own, barrier, queue), daemon=True) for own in (1.0, 2.0, 3.0)
        ]
        for other in others:
            other.start()
        first, *rest = [queue.get(timeout=60) for _ in others]
        for other in others:
            other.join()
        assert rest == [first, first]
        assert Cached(Numbers(9.0), path)([{"i": i} for i in range(600)]) == first

    def test_what_was_told_before_a_failure_is_kept(self, tmp_path):
        class Fails(Numbers):
            calls = 0

            def __call__(self, archs):
                self.calls += 1
                if self.calls == 2:
                    raise KeyboardInterrupt
                return super().__call__(archs)

        archs = [{"i": i} for i in range(300)]
        provider = Fails()
        cached = Cached(provider, tmp_path / "c.db")
        with pytest.raises(KeyboardInterrupt):
            cached(archs)
        cached(archs)
        assert provider.calls == 3
        with sqlite3.connect(tmp_path / "c.db") as database:
            assert database.execute("SELECT count(*) FROM costs").fetchone() == (300,)

    def test_a_file_that_is_no_cache(self, tmp_path):
        (tmp_path / "c.db").write_text("not a database " * 100)
        with refused("c.db", "cache of costs"):
            Cached(Numbers(), tmp_path / "c.db")

    def test_no_figure_is_not_kept(self, tmp_path):
        with refused("c.db"):
            Cached(Numbers(float("nan")), tmp_path / "c.db")([{"i": 1}])

    def test_keys(self):
        assert canonical({"a": 1, "b": [{2: "x", "1": None}]}) == canonical({"b": [{"1": None, 2: "x"}], "a": 1})
        different = [
            {"a": 1},
            {"a": "1"},
            {1: "a"},
            {"1": "a"},
            {"a": True},
            {"a": [1]},
            {"a": None},
            {"a": {}},
            {"a": []},
        ]
        assert len({canonical(d) for d in different}) == len(different)


class TestMake:
    def test_own_function(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "def latency(space, imgsz, *, chip):\n    return [space.size(), imgsz, chip]\n"
        )
        assert make_provider(f"{tmp_path}/mine.py:latency", SPACE, 32, {"chip": "v2"}) == [36, 32, "v2"]
        with refused("mine.py", "hw_config", "chip"):
            make_provider(f"{tmp_path}/mine.py:latency", SPACE, 32)
        with refused("mine.py", "'energy'"):
            make_provider(f"{tmp_path}/mine.py:energy", SPACE, 32)

    def test_refusals(self):
        with refused("'watts'", "roofline", "FILE.py:NAME"):
            make_provider("watts", SPACE, 32)
        with refused("'torch'", "hw_config", "thread"):
            make_provider("torch", SPACE, 32, {"thread": 2})
        with refused("'roofline'", "peak"):
            make_provider("roofline", SPACE, 32)


class TestConfig:
    def _read(self, tmp_path, content):
        (tmp_path / "costs.yaml").write_text(yaml.safe_dump(content))
        return read_costs(tmp_path / "costs.yaml")

    def test_costs(self, tmp_path, port):
        model = CostModel(SPACE, IMGSZ)
        roofline = {"provider": "roofline", "hw_config": {"peak": "100G", "bandwidth": "10G"}}
        remote = {"servers": [{"host": "127.0.0.1", "ports": [port]}], "hw_config": {"chip": 1}, "timeout": 30}
        content = {"cache": f"{tmp_path}/c.db", "costs": {"edge_latency": roofline, "flops": remote}}
        made = {name: make(model) for name, make in self._read(tmp_path, content).items()}
        assert {name: p.name for name, p in made.items()} == {"edge_latency": "edge_latency", "flops": "flops"}
        assert made["edge_latency"](SOME) == Roofline(SPACE, IMGSZ, "latency", **PEAK)(SOME)
        assert made["flops"](SOME) == Counted(model, "flops")(SOME)
        assert made["flops"].settings["hw_config"] == {"chip": 1}
        assert (tmp_path / "c.db").is_file()

    @pytest.mark.parametrize(
        ("content", "parts"),
        [
            ([], ["costs"]),
            ({"costs": {}, "cahce": "x"}, ["cache"]),
            ({"costs": {"a": {}}}, ["a: ", "provider or servers"]),
            ({"costs": {"a": {"provider": "torch", "servers": []}}}, ["a: ", "provider or servers"]),
            ({"costs": {"a": {"provider": "torch", "timeout": 1}}}, ["a: ", "'timeout'", "hw_config"]),
            ({"costs": {"a": {"servers": [], "tls": {"cert": "x"}}}}, ["a: tls", "ca"]),
        ],
    )
    def test_refusals(self, tmp_path, content, parts):
        with refused("costs.yaml", *parts):
            self._read(tmp_path, content)

    def test_what_fails_later_names_the_file(self, tmp_path):
        made = self._read(tmp_path, {"costs": {"latency": {"provider": "table", "hw_config": {"path": "no.json"}}}})
        with refused("costs.yaml: latency: no.json"):
            made["latency"](CostModel(SPACE, IMGSZ))
