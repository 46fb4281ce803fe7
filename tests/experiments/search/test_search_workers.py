"""Several processes on one study, one of them killed: SQLite, a journal file, and a PostgreSQL of the test's own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from experiments.search import open_storage
from experiments.testing import run
from tests.experiments.prepared import PreparedProcess
from tests.experiments.searchers_toys import search

ROOT = Path(__file__).resolve().parents[3]

WORKER = """
import sys, time
from pathlib import Path
from experiments.search import open_storage
from experiments.testing import accuracy
from tests.experiments.searchers_toys import search
found = search("evolution", budget=40, storage=open_storage(sys.argv[1]))
number, asked = 0, found.ask()
if sys.argv[2] == "stuck":
    found.tell(asked, {"accuracy": accuracy(asked.arch)})
    found.ask()
print("asked", flush=True)
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
while asked is not None:
    number += 1
    found.tell(asked, {"accuracy": accuracy(asked.arch)})
    asked = found.ask()
print(number, flush=True)
"""


def check_workers(url, folder):
    """Three processes on one study, one of which is killed in the middle of its second arch."""
    (folder / "worker.py").write_text(WORKER)
    args = [[url, how, str(folder / "go")] for how in ("stuck", "works", "works")]
    stuck, *others = workers = [PreparedProcess(folder / "worker.py", given, ROOT) for given in args]
    for w in workers:  # all of them have an arch by now
        assert w.stdout.readline() == "asked\n"
    stuck.kill()
    stuck.communicate()
    (folder / "go").touch()
    told = [int(w.communicate()[0]) for w in others]
    results = search("evolution", budget=40, storage=open_storage(url)).results()
    assert [r.number for r in results] == list(range(40))
    assert len({tuple(r.arch.values()) for r in results}) == 40
    assert all(r.values for r in results)
    assert sum(told) == 39, "what the killed worker was at is asked again, what it had told is kept"


class TestWorkers:
    def test_sqlite(self, tmp_path):
        check_workers(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)

    def test_journal(self, tmp_path):
        check_workers(f"journal:{tmp_path / 'study.log'}", tmp_path)

    def test_postgresql(self, postgresql, tmp_path):
        check_workers(postgresql, tmp_path)

    def test_a_live_workers_arch_is_left_to_it(self, tmp_path):
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("random", budget=2, storage=open_storage(url)) for _ in "ab")
        asked = one.ask()
        assert len(run(other)) == 1
        one.tell(asked, {"accuracy": 0.0})
        assert len(one.results()) == 2


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
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
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
