"""Several processes on one study, one of them killed: SQLite, a journal file, Optuna's proxy, and a PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from experiments.search import open_storage
from experiments.testing import run
from tests.experiments.searchers_toys import search
from tests.refusal import refused

ROOT = Path(__file__).resolve().parents[3]

WORKER = """
import sys
from experiments.search import open_storage
from experiments.testing import accuracy
from tests.experiments.searchers_toys import search
found = search("evolution", budget=20, storage=open_storage(sys.argv[1]))
number, asked = 0, found.ask()
if sys.argv[2] == "stuck":
    found.tell(asked, {"accuracy": accuracy(asked.arch)})
    found.ask()
print("asked", flush=True)
sys.stdin.readline()
while asked is not None:
    number += 1
    found.tell(asked, {"accuracy": accuracy(asked.arch)})
    asked = found.ask()
print(number, flush=True)
"""


def start_worker(url, how):
    command = [sys.executable, "-c", WORKER, url, how]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def check_workers(url):
    """Three processes on one study, one of which is killed in the middle of its second arch."""
    workers = [start_worker(url, how) for how in ("stuck", "works", "works")]
    try:
        for w in workers:  # all of them have an arch by now
            assert w.stdout.readline() == "asked\n"
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait(60)
        for w in workers[1:]:
            w.stdin.write("go\n")
            w.stdin.flush()
        told = [int(w.communicate(timeout=120)[0]) for w in workers[1:]]
    finally:
        for w in workers:
            w.kill()
            w.wait()
    results = search("evolution", budget=20, storage=open_storage(url)).results()
    assert [r.number for r in results] == list(range(20))
    assert len({tuple(r.arch.values()) for r in results}) == 20
    assert all(r.values for r in results)
    assert sum(told) == 19, "what the killed worker was at is asked again, what it had told is kept"


class TestWorkers:
    def test_sqlite(self, tmp_path):
        check_workers(f"sqlite:///{tmp_path / 'study.db'}")

    def test_journal(self, tmp_path):
        check_workers(f"journal:{tmp_path / 'study.log'}")

    def test_postgresql(self, postgresql):
        check_workers(postgresql)

    def test_grpc_proxy(self, proxy):
        check_workers(proxy)

    def test_no_proxy_answers(self, monkeypatch):
        monkeypatch.setattr("experiments.search.storage._PROXY_SECONDS", 0.2)
        url = f"grpc://127.0.0.1:{free_port()}"
        with refused(url, "no proxy", "run_grpc_proxy_server"):
            open_storage(url)
        with refused("grpc://127.0.0.1", "right would be", "grpc://host:port"):
            open_storage("grpc://127.0.0.1")

    def test_a_live_workers_arch_is_left_to_it(self, tmp_path):
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("random", budget=2, storage=open_storage(url)) for _ in "ab")
        asked = one.ask()
        assert len(run(other)) == 1
        one.tell(asked, {"accuracy": 0.0})
        assert len(one.results()) == 2


PROXY = """
import sys
from optuna.storages import run_grpc_proxy_server
from experiments.search import open_storage
run_grpc_proxy_server(open_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def proxy(tmp_path):
    """Optuna's gRPC proxy on a free port of 127.0.0.1, before a file of SQLite."""
    port = free_port()
    command = [sys.executable, "-c", PROXY, f"sqlite:///{tmp_path / 'study.db'}", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    yield f"grpc://127.0.0.1:{port}"  # who opens it waits for it
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def postgresql():
    """A server of its own on a free port of 127.0.0.1."""
    pytest.importorskip("psycopg")
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]
    if not found:
        pytest.skip("PostgreSQL is not installed")
    binaries = Path(found[0]).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="search_"))
    as_user = {}
    if os.getuid() == 0:  # as whom it refuses to run
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **as_user}
    command = [binaries / "initdb", "-D", folder / "data", "-U", "search", "-A", "trust", "--no-sync"]
    subprocess.run(command, check=True, **quiet)
    port = free_port()
    command = [binaries / "postgres", "-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
    server = subprocess.Popen(command, **quiet)
    try:
        url = f"postgresql://search@127.0.0.1:{port}/postgres"
        wait_for(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url, server):
    import psycopg

    for _ in range(300):
        assert server.poll() is None
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")
