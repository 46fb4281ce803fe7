"""Estimator servers and their pool: spread, order, failures, limits, TLS."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from experiments.costs import Remote, Trust
from experiments.costs.pool import Estimator, protocol, serve
from experiments.costs.pool.client import addresses
from experiments.costs.pool.server import _told, parse
from experiments.costs.pool.service import Identity
from models import InputError
from spaces import Space
from tests.ports import free_port
from tests.refusal import refused

ROOT = Path(__file__).resolve().parents[3]
CFG = {"backbone": [[-1, 1, "Conv", [{"range": [8, 8000, 8], "label": "width"}, 3, 2]]]}
SPACE = Space(CFG)
ARCHS = [{"width": 8 * i} for i in random.Random(0).sample(range(1, 1001), 300)]
COSTS = [float(a["width"]) for a in ARCHS]


class Widths:
    """The width of an arch; `hook` is called before every answer."""

    name, unit = "latency", "ms"

    def __init__(self, hook=lambda archs: None, **settings):
        self.settings, self.hook, self.asked = settings, hook, []

    def __call__(self, archs):
        self.asked += archs
        self.hook(archs)
        return [float(a["width"]) for a in archs]


class Pool:
    """Servers in this process."""

    def __init__(self):
        self.servers, self.ports = [], []

    def add(self, make, **options):
        server, port = serve(Estimator((lambda *_: make) if isinstance(make, Widths) else make), **options)
        self.servers.append(server)
        self.ports.append(port)
        return port

    def remote(self, *ports, hw_config=None, timeout=30, connect_timeout=30, **options):
        servers = [{"host": "127.0.0.1", "ports": [*(ports or self.ports)]}]
        return Remote(servers, SPACE, 32, hw_config, timeout=timeout, connect_timeout=connect_timeout, **options)


@pytest.fixture
def pool():
    found = Pool()
    yield found
    for server in found.servers:
        server.stop(None)


def test_requests_are_spread_and_come_back_in_order(pool):
    # No server answers its first request before every other one has its own.
    together = threading.Barrier(4)
    first = [True] * 4

    def hook(i):
        def wait(archs):
            if first[i]:
                first[i] = False
                together.wait(30)

        return wait

    providers = [Widths(hook(i)) for i in range(4)]
    for provider in providers:
        pool.add(provider)
    assert pool.remote()(ARCHS) == COSTS
    assert all(p.asked for p in providers)
    assert sum(len(p.asked) for p in providers) == len(ARCHS)


def test_order_under_random_delays(pool):
    rng = random.Random(0)
    for _ in range(3):
        pool.add(Widths(lambda archs: time.sleep(rng.random() / 500)))
    remote = pool.remote(batch=3)
    assert remote(ARCHS) == COSTS
    assert remote(ARCHS[::-1]) == COSTS[::-1]


def test_the_first_part_may_come_last(pool):
    last = threading.Event()

    def hook(archs):
        if ARCHS[0] in archs:
            assert last.wait(30)
        if ARCHS[-1] in archs:
            last.set()

    pool.add(Widths(hook))
    pool.add(Widths(hook))
    assert pool.remote(batch=50)(ARCHS) == COSTS


def test_a_server_that_dies_in_the_middle_is_survived(pool):
    def die(archs):
        if len(dies.asked) > 60:
            threading.Thread(target=pool.servers[0].stop, args=(None,)).start()
            gone.wait(30)

    gone = threading.Event()
    dies, lives = Widths(die), Widths()
    pool.add(dies)
    pool.add(lives)
    remote = pool.remote(batch=20, connect_timeout=0.5)
    # While the one has not come so far, the other waits.
    lives.hook = lambda archs: [time.sleep(0.001) for _ in range(10_000) if len(dies.asked) <= 60][:0]
    try:
        assert remote(ARCHS) == COSTS
    finally:
        gone.set()
    assert 60 < len(dies.asked) <= 80
    assert remote(ARCHS[:5]) == COSTS[:5]


def test_a_server_that_hangs_is_survived(pool):
    freed = threading.Event()
    hangs = Widths()
    pool.add(hangs)
    pool.add(Widths())
    remote = pool.remote(timeout=0.5, batch=20)
    hangs.hook = lambda archs: freed.wait(30)
    try:
        assert remote(ARCHS) == COSTS
    finally:
        freed.set()
    assert len(hangs.asked) == 20


def test_a_provider_that_fails_at_times_is_survived(pool):
    def fails(archs):
        if len(sometimes.asked) % 3 == 1:
            raise OSError("device is busy\nand more")

    sometimes = Widths(fails)
    pool.add(sometimes)
    assert pool.remote(batch=1)(ARCHS[:20]) == COSTS[:20]


def test_a_server_comes_back(pool):
    port = free_port()
    pool.add(Widths())
    remote = pool.remote(pool.ports[0], port, connect_timeout=0.2)
    late = Widths()
    pool.add(late, port=port)
    pool.servers[0].stop(None)
    remote._servers[1].connect_timeout = 30
    assert remote(ARCHS) == COSTS
    assert len(late.asked) == len(ARCHS)


def test_a_dead_pool_is_one_line(pool):
    port = free_port()
    with refused("no estimator server is left", f"127.0.0.1:{port} (cannot be reached)"):
        pool.remote(port, connect_timeout=0.1)

    def fails(archs):
        raise OSError("device is gone\nand more")

    freed = threading.Event()
    pool.add(Widths(fails))
    pool.add(Widths(lambda archs: freed.wait(30)))
    remote = pool.remote(timeout=0.5)
    a, b = pool.ports
    try:
        with refused(
            "no estimator server is left", f":{a} (OSError: device is gone)", f":{b} (no answer within 0.5 s)"
        ):
            remote(ARCHS)
    finally:
        freed.set()


def test_unknown_archs_are_refused_at_once(pool):
    pool.add(Widths())
    pool.add(Widths())
    with refused("estimator 127.0.0.1:", "width", "'wide'"):
        pool.remote()([*ARCHS, {"width": "wide"}])


def test_servers_of_a_pool_must_be_alike(pool):
    pool.add(Widths(threads=1))
    pool.add(Widths(threads=2))
    with refused("threads", "1", "2", "must be alike", *(f":{p}" for p in pool.ports)):
        pool.remote()


def test_hw_config_passes_through(pool):
    told = []

    def make(space, imgsz, hw):
        told.append((space.config.raw["backbone"], imgsz, hw))
        return Widths(**hw)

    pool.add(make)
    one, two = pool.remote(hw_config={"chip": "a", "cores": [1, 2]}), pool.remote(hw_config={"chip": "b"})
    assert one(ARCHS[:2]) == two(ARCHS[:2]) == COSTS[:2]
    assert told == [(CFG["backbone"], 32, {"chip": "a", "cores": [1, 2]}), (CFG["backbone"], 32, {"chip": "b"})]
    assert one.settings != two.settings
    assert one.settings["cores"] == [1, 2]
    assert (one.name, one.unit) == ("latency", "ms")


def test_defaults_of_the_server_give_way():
    told = []
    estimator = Estimator(lambda space, imgsz, hw: told.append(hw) or Widths(), {"threads": 1, "device": "cpu"})
    estimator.describe({"space": "backbone: [[-1, 1, Conv, [8]]]", "imgsz": 32, "hw_config": {"threads": 2}})
    assert told == [{"threads": 2, "device": "cpu"}]


def test_keys_that_are_numbers_survive_the_way(pool):
    cfg = {
        "backbone": [
            [-1, {"choice": [1, 2], "label": "n"}, "Conv", [3, 3]],
            [-1, 1, "Conv", [{"table": {1: 8, 2: 16}, "by": "n"}, 3]],
        ]
    }
    seen = []

    def make(space, imgsz, hw):
        seen.append(space.freeze({"n": 2})["backbone"][1][3])
        return Widths()

    pool.add(make)
    Remote([{"host": "127.0.0.1", "ports": pool.ports}], Space(cfg), 32)
    assert seen == [[16, 3]]


@pytest.mark.parametrize("figure", [[1.0, 2.0], [float("nan")], ["a"]])
def test_wrong_figures_are_failures(pool, figure):
    provider = Widths()
    pool.add(provider)
    remote = pool.remote()
    provider.__class__ = type("Wrong", (Widths,), {"__call__": lambda self, archs: figure})
    with refused("no estimator server is left", "ValueError"):
        remote(ARCHS[:1])


def test_large_messages_are_refused(pool):
    pool.add(Widths(), max_message_mb=0.001)
    with refused("127.0.0.1:", "larger than max", "smaller batch"):
        pool.remote(batch=300)(ARCHS)
    assert pool.remote(batch=4)(ARCHS) == COSTS


def test_another_service_is_no_estimator(pool):
    server = grpc.server(ThreadPoolExecutor(1))
    pool.servers.append(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with refused("is no estimator server", str(port)):
        pool.remote(port)


@pytest.mark.parametrize(
    "body", [b"\xff", b"[1]", b"{", b"{}", b'{"imgsz": 32, "space": "a: ["}', b'{"imgsz": 32, "space": "x"}']
)
def test_garbage_is_refused(pool, body):
    port = pool.add(Widths())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.ESTIMATE}")
        with pytest.raises(grpc.RpcError) as caught:
            call(body, timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
ROW = "backbone: [[-1, {}, C3, [{}]]]"
BEYOND = {
    "an alias bomb": ({"space": BOMB}, "aliases are counted"),
    "a space in itself": ({"space": "&a [*a]"}, "stands within what it names"),
    "nesting": ({"space": "[" * 300 + "]" * 300}, "levels deep"),
    "a number of 5,000 digits": ({"space": ROW.format(1, "9" * 5000)}, "a number of"),
    "repeats": ({"space": ROW.format(3000, 8)}, "3,000 repeats"),
    "repeats of a choice": ({"space": ROW.format("{choice: [1, 3000]}", 8)}, "repeats in all rows"),
    "repeats that follow": (
        {"space": "backbone: [[-1, 1, Conv, [{choice: [8], label: w}]], [-1, {table: {8: 3000}, by: w}, C3, [8]]]"},
        "repeats in all rows",
    ),
    "repeats of many rows": ({"space": f"backbone: [{', '.join(['[-1, 30, C3, [8]]'] * 90)}]"}, "2,700 repeats"),
    "a range of a billion": ({"space": ROW.format(1, "{range: [1, 1000000000, 1]}")}, "more than 1,000 values"),
    "no text": ({"space": ["a"]}, "the text of a YAML"),
    "a file of the server": ({"space": "yolov5n.yaml"}, "the text of a YAML"),
    "a huge side": ({"imgsz": 10**9}, "8192 at most"),
    "a side that is none": ({"imgsz": float("inf")}, "positive integer"),
    "threads": ({"hw_config": {"threads": 100_000}}, "256 are the most"),
    "much to tell": ({"hw_config": {"a": "x" * 20_000}}, "10,000 characters"),
    "a list to tell": ({"hw_config": [1]}, "a mapping"),
    "many archs": ({"archs": [{}] * 20_000}, "10,000 are the most"),
}  # fmt: skip


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_bounds_is_refused_before_a_provider_is_made(case):
    more, message = BEYOND[case]
    made = []
    estimator = Estimator(lambda *_: made.append(1) or Widths())
    request = {"space": "backbone: [[-1, 1, Conv, [8]]]", "imgsz": 32, "archs": [{}], **more}
    begun = time.monotonic()
    with refused(message):
        estimator.estimate(request)
    assert made == []
    assert time.monotonic() - begun < 10


def test_a_message_nested_without_end_is_refused(pool):
    port = pool.add(Widths())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.DESCRIBE}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"[" * 1_000_000, timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert pool.remote()(ARCHS[:2]) == COSTS[:2]


def test_tables_are_those_that_the_server_was_started_with():
    told, fixed = _told(["path=[a.json, b.json]", "threads=1"], "table")
    assert (told, fixed) == ({"threads": 1}, {"path": ["a.json", "b.json"], "make": [False]})
    given = []
    estimator = Estimator(lambda space, imgsz, hw: given.append(hw) or Widths(), told, fixed)
    request = {"space": "backbone: [[-1, 1, Conv, [8]]]", "imgsz": 32}
    for hw in (None, {"path": "b.json"}, {"path": "a.json", "make": False}):
        estimator.describe({**request, "hw_config": hw})
    assert [hw["path"] for hw in given] == ["a.json", "b.json"]
    for hw in ({"path": "/etc/passwd"}, {"path": "./a.json"}, {"make": True}, {"path": ["a.json"]}):
        with refused("this server was started with"):
            estimator.describe({**request, "hw_config": hw})
    with refused("path=TABLE.json"):
        _told([], "table")
    assert _told(["path=a.json"], "own.py:make") == ({"path": "a.json"}, {})


def test_what_is_computed_too_long_or_for_nobody_is_overdue():
    class Context:
        active = True

        def is_active(self):
            return self.active

    freed, entered, context = threading.Event(), threading.Event(), Context()
    estimator = Estimator(lambda *_: Widths(lambda archs: entered.set() or freed.wait(30)))
    body = protocol.encode(
        {"space": "backbone: [[-1, 1, Conv, [{choice: [8], label: width}]]]", "imgsz": 32, "archs": [{"width": 8}]}
    )
    thread = threading.Thread(target=estimator.answer, args=(estimator.estimate, body, context))
    assert estimator.overdue(0, 0) is None
    thread.start()
    assert entered.wait(30)
    try:
        assert estimator.overdue(0, 60) is None
        assert estimator.overdue(60, 0) == "it took more than 0 s"
        context.active = False
        assert estimator.overdue(60, 0) is None
        time.sleep(0.01)
        assert estimator.overdue(0.001, 60) == "nobody has waited for it for 0.001 s"
    finally:
        freed.set()
        thread.join()
    assert estimator.overdue(0, 0) is None


def test_nobody_waits_so_nothing_is_computed(pool, monkeypatch):
    freed, entered, arrived, gone = (threading.Event() for _ in range(4))
    provider = Widths(lambda archs: entered.set() or freed.wait(30))
    answer = Estimator.answer

    def watched(self, method, body, context):
        if entered.is_set():
            context.add_callback(gone.set)
            arrived.set()
        return answer(self, method, body, context)

    monkeypatch.setattr(Estimator, "answer", watched)
    pool.add(provider)
    slow = pool.remote()
    thread = threading.Thread(target=lambda: slow(ARCHS[:1]))
    thread.start()
    assert entered.wait(30)
    with grpc.insecure_channel(f"127.0.0.1:{pool.ports[0]}") as channel:
        call = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.ESTIMATE}")
        given_up = call.future(protocol.encode({**slow._servers[0].asked, "archs": ARCHS[1:3]}))
        assert arrived.wait(30)
        given_up.cancel()
        assert gone.wait(30)
    freed.set()
    thread.join()
    assert slow(ARCHS[3:4]) == COSTS[3:4]
    assert provider.asked == [ARCHS[0], ARCHS[3]]


def test_a_taken_port_is_refused(pool):
    port = pool.add(Widths())
    with refused(f"127.0.0.1:{port}", "taken"):
        serve(Estimator(lambda *_: Widths()), port)


def test_listens_on_this_machine_only_unless_told():
    assert parse([]).host == "127.0.0.1"
    assert parse(["--port", "50051", "50052"]).port == [50051, 50052]
    with pytest.raises(SystemExit):
        parse(["--tls-cert", "a.pem"])
    with pytest.raises(SystemExit):
        parse(["--port", "70000"])


@pytest.mark.parametrize(
    "servers",
    [
        [],
        {},
        "a",
        [{"host": "a"}],
        [{"host": "a", "ports": 1}],
        [{"host": "a", "ports": [0]}],
        [{"host": "a", "ports": ["1"]}],
    ],
)
def test_lists_of_servers(servers):
    with refused("servers"):
        addresses(servers)


def test_addresses():
    servers = [{"host": "a", "ports": [1, 2]}, {"host": "::1", "ports": [3, 3]}]
    assert addresses(servers) == ["a:1", "a:2", "[::1]:3"]


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """An authority, a certificate of 127.0.0.1 by it and its key; another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("pem")

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    for name in ("ca", "other"):
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(
        "req", "-x509", *key, "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem",
    )  # fmt: skip
    return {p.name: str(p) for p in folder.iterdir()}


def test_tls(pool, pem):
    pool.add(Widths(), tls=Identity(pem["server.pem"], pem["server.key"]))
    assert pool.remote(tls=Trust(pem["ca.pem"]))(ARCHS) == COSTS
    with refused("cannot be reached"):
        pool.remote(tls=Trust(pem["other.pem"]), connect_timeout=0.5)
    with pytest.raises(InputError):
        pool.remote(connect_timeout=0.5, timeout=0.5)


def test_tls_of_clients(pool, pem):
    pool.add(Widths(), tls=Identity(pem["server.pem"], pem["server.key"], pem["ca.pem"]))
    assert pool.remote(tls=Trust(pem["ca.pem"], pem["server.pem"], pem["server.key"]))(ARCHS) == COSTS
    with pytest.raises(InputError):
        pool.remote(tls=Trust(pem["ca.pem"]), connect_timeout=0.5, timeout=0.5)


def test_missing_pem(tmp_path):
    with refused("no.pem", "cannot be read"):
        Trust("no.pem").credentials()
    (tmp_path / "a.pem").write_text("x")
    with refused("a.pem", "not a PEM file"):
        Trust(str(tmp_path / "a.pem")).credentials()


OWN = """
class Widths:
    name, unit = "latency", "ms"
    def __init__(self, chip):
        self.settings = {"chip": chip}
    def __call__(self, archs):
        if archs == [{"width": 16}]:  # whatever it does, it does not look at anything else
            while True:
                pass
        return [float(a["width"]) for a in archs]

def make(space, imgsz, *, chip):
    return Widths(chip)
"""


class Script:
    """``python -m experiments.costs.pool.server`` on two ports of its choice."""

    def __init__(self, folder, *options, ports=2):
        (folder / "own.py").write_text(OWN)
        command = [sys.executable, "-m", "experiments.costs.pool.server", "--port", *["0"] * ports]
        command += ["--provider", f"{folder}/own.py:make", "--hw-config", "chip=v1", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [self.process.stdout.readline() for _ in range(ports)]
        self.ports = [int(line.split(":")[-1]) for line in lines]
        self.workers = [p for p in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.fixture
def script(tmp_path):
    found = Script(tmp_path)
    yield found
    found.process.kill()
    found.process.communicate()


class TestScript:
    def test_processes_are_survived_and_ended(self, script, pool):
        remote = pool.remote(*script.ports, connect_timeout=1)
        assert remote.settings["chip"] == "v1"
        assert remote(ARCHS) == COSTS
        assert len(script.workers) == 2
        script.workers[0].kill()
        assert remote(ARCHS) == COSTS
        script.process.send_signal(signal.SIGTERM)
        assert script.process.wait(60) == 130
        assert not any(w.is_running() for w in script.workers)
        with refused("no estimator server is left", *(f":{p} (" for p in script.ports)):
            remote(ARCHS)

    def test_no_process_outlives_a_killed_parent(self, script):
        script.process.kill()
        script.process.wait()
        assert not psutil.wait_procs(script.workers, timeout=30)[1]

    def test_a_request_that_computes_for_nobody_is_given_up_and_none_keeps_the_server_alive(self, tmp_path, pool):
        script = Script(tmp_path, "--patience", "0.5", ports=1)
        try:
            remote = pool.remote(*script.ports, connect_timeout=60)
            remote._servers[0].timeout = 0.5
            with refused("no answer within 0.5 s"):
                remote([{"width": 16}])
            remote._servers[0].timeout = 60
            assert remote(ARCHS[:3]) == COSTS[:3], "by the process that came after"
            endless = (
                remote._servers[0]
                ._methods[protocol.ESTIMATE]
                .future(protocol.encode({**remote._servers[0].asked, "archs": [{"width": 16}]}))
            )
            time.sleep(1)  # it is computed by now; were it not, the end would only be easier
            assert not endless.done()
            begun = time.monotonic()
            script.process.send_signal(signal.SIGTERM)
            _, err = script.process.communicate(timeout=30)
            assert time.monotonic() - begun < 3
            assert script.process.returncode == 130
            assert "a request is given up: nobody has waited for it for 0.5 s" in err
            assert not any(w.is_running() for w in script.workers)
        finally:
            script.process.kill()


def test_help_loads_no_torch():
    code = (
        "import sys; from experiments.costs.pool.server import _told, parse\n"
        "try: parse(['--help'])\nexcept SystemExit: assert not {'torch', 'grpc'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1" in done.stdout
