"""Who may talk to NNI's web manager: its own address, its own page, the token of the run; and what it hands out."""

import base64
import hashlib
import hmac
import http.server
import json
import socket
import sqlite3
import threading
from contextlib import closing
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from nni.nas.evaluator import FunctionalEvaluator
from nni.runtime.tuner_command_channel import TunerCommandChannel
from nni.runtime.tuner_command_channel.command_type import Initialize

from experiments import RetiariiExperiment, strategy
from experiments.nni_experiment import web
from spaces import NASBACKBONE
from spaces.nni_compat import tokens
from tests.experiments.browser import Browser, needs_chromium
from tests.ports import free_port

STATUS, JOBS = "/api/v1/nni/check-status", "/api/v1/nni/trial-jobs"


class Manager:
    """A manager of this process, without a search."""

    def __init__(self, folder, host=web.LOOPBACK):
        space = NASBACKBONE("tests/assets/tiny_nas.yaml", nc=10)
        self.experiment = RetiariiExperiment(space, FunctionalEvaluator(abs), [], strategy.Random())
        self.experiment.config.experiment_working_directory = str(folder)
        self.port, self.host = free_port(), host
        self.experiment._use_training_service()
        self.experiment._start_manager(self.port, host, False)
        self.token = tokens[self.port]
        self.at = f"http://{web.LOOPBACK}:{self.port}"

    def ask(self, path=STATUS, method="GET", address=web.LOOPBACK, cookie=True, **headers):
        """Status and text of the answer to what a browser with the cookie sends, to the last character of the path."""
        if cookie:
            headers["Cookie"] = f"a=b; nas_token_{self.port}={self.token}"
        headers = {"Host": f"{address}:{self.port}", "Connection": "close", **headers}
        body = headers.pop("body", "")
        head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items() if v is not None)
        request = f"{method} {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
        with socket.create_connection((address, self.port), 10) as s:
            s.sendall(request.encode())
            answer = b""
            while b"\r\n\r\n" not in answer or b" 101 " not in answer[:14]:
                if not (part := s.recv(1 << 16)):
                    break
                answer += part
        return int(answer.split()[1]), answer.decode(errors="replace")

    def customized(self):
        """How many trials were added by hand."""
        with closing(sqlite3.connect(self.experiment.folder / "db/nni.sqlite")) as database:
            return database.execute("select count(*) from TrialJobEvent where event = 'ADD_CUSTOMIZED'").fetchone()[0]


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    found = Manager(tmp_path_factory.mktemp("guard"))
    channel = TunerCommandChannel(found.experiment.tuner_command_channel)
    channel.connect()
    assert isinstance(channel.receive(), Initialize), "our own side is let in"
    yield found
    found.experiment.stop()


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "a" * 22 + "==",
}
POST = {"path": JOBS, "method": "POST", "body": '{"a": 1}'}
REFUSED = {
    "no token": ({"cookie": False}, "open the address"),
    "a wrong token": ({"cookie": False, "path": f"{STATUS}?token=x"}, "open the address"),
    "a wrong cookie": ({"cookie": False, "Cookie": "nas_token_PORT=x"}, "open the address"),
    "a wrong password": ({"Authorization": "Basic " + base64.b64encode(b"nas:x").decode()}, "open the address"),
    "the page itself, without a token": ({"cookie": False, "path": "/"}, "open the address"),
    "another Host": ({"Host": "evil.example:PORT"}, "Host"),
    "another port": ({"Host": "127.0.0.1:1"}, "Host"),
    "a Host without a port": ({"Host": "127.0.0.1"}, "Host"),
    "an address that is not listened on": ({"Host": "192.0.2.7:PORT"}, "Host"),
    "another Origin": ({"Origin": "http://evil.example"}, "origin"),
    "the Origin of another port": ({"Origin": "http://127.0.0.1:1"}, "origin"),
    "a sandboxed page": ({"Origin": "null"}, "origin"),
    "a form of another page": ({**POST, "Origin": "http://evil.example", "Content_Type": "text/plain"}, "origin"),
    "a rebound name": ({**POST, "Host": "evil.example:PORT", "Content_Type": "application/json"}, "Host"),
    "an image in a page of another port": ({"Sec_Fetch_Site": "same-site"}, "open the address"),
    "a link in a foreign page": ({"path": "/", "Sec_Fetch_Site": "cross-site"}, "open the address"),
    "a preflight": ({"method": "OPTIONS", "Origin": "http://evil.example"}, "origin"),
    "dots": ({"path": "/../../etc/passwd"}, "path"),
    "encoded dots": ({"path": "/api/v1/nni/trial-file/ID/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd"}, "path"),
    "dots half encoded": ({"path": "/api/v1/nni/trial-file/%2e./stdout"}, "path"),
    "backslashes": ({"path": "/api/v1/nni/trial-file/ID/..%5cstdout"}, "path"),
    "a NUL": ({"path": "/logs/a%00"}, "path"),
    "a broken code": ({"path": "/logs/%ff%"}, "path"),
    "another server's address": ({"path": "http://evil.example/"}, "path"),
    "no scheme": ({"path": "//evil.example/"}, "path"),
    "a websocket of another origin": ({**WEBSOCKET, "path": "/tuner/x", "Origin": "http://evil.example"}, ""),
    "a websocket of another Host": ({**WEBSOCKET, "path": "/tuner/x", "Host": "evil.example:PORT"}, ""),
    "a websocket with the cookie alone": ({**WEBSOCKET, "path": "/tuner/x"}, ""),
    "a websocket without a token": ({**WEBSOCKET, "path": "/tuner", "cookie": False}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_strangers_are_refused(case, manager):
    request, why = REFUSED[case]
    status, text = manager.ask(
        **{k: v.replace("PORT", str(manager.port)) if isinstance(v, str) else v for k, v in request.items()}
    )
    assert status == 403
    assert why in text.split("\r\n\r\n")[1]
    assert manager.token not in text
    assert manager.customized() == 0


def test_the_printed_address_gives_a_cookie_that_opens_everything(manager, capsys):
    with requests.Session() as session:
        page = session.get(f"{manager.at}/?token={manager.token}")
        assert (page.status_code, "<!doctype html" in page.text[:20].lower()) == (200, True)
        (cookie,) = session.cookies
        assert (cookie.name, cookie.path, cookie.has_nonstandard_attr("HttpOnly")) == (
            f"nas_token_{manager.port}",
            "/",
            True,
        )
        assert "SameSite=Strict" in page.headers["Set-Cookie"]
        assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert session.get(manager.at + STATUS).json()["status"] == "RUNNING"
        assert session.get(manager.at + "/oview").status_code == 200
        for name in ("localhost", "127.0.0.1"):
            assert manager.ask(Host=f"{name}:{manager.port}", Origin=f"http://{name}:{manager.port}")[0] == 200
    assert requests.get(manager.at + STATUS, auth=("nas", manager.token)).status_code == 200


def test_the_token_stands_in_no_command_line_and_no_file(manager):
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]  # of one that ended, none
    assert any("nni_node" in " ".join(line) for line in lines)
    assert not [line for line in lines if manager.token in " ".join(line)]
    for path in manager.experiment.folder.rglob("*"):
        assert not path.is_file() or manager.token.encode() not in path.read_bytes(), path


def test_netron_is_off(manager):
    for path in ("/netron/index.html", "/NETRON/x", "/%6eetron/"):
        status, text = manager.ask(path)
        assert status == 404 or "<!doctype html" in text.lower(), "at most the page of the UI itself"
        assert "netron.app" not in text


def test_files_are_those_of_the_trial(manager):
    for path in ("a.b/stdout", "ID/.hidden", "ID/a%2fb"):
        status, text = manager.ask(f"/api/v1/nni/trial-file/{path}")
        assert (status, "no such file" in text) == (500, True)
    trial = manager.experiment.folder / "environments/local-env/trials/abc"
    trial.mkdir(parents=True)
    (trial / "trial.stderr").write_text("what it said")
    assert manager.experiment.stderr_of("abc") == "what it said"


def test_a_trial_gets_the_key_of_its_own_channel_only(manager):
    """What `web_guard.js` gives it is in the test of the addresses of channels."""
    path = "/env/local-env/abc"
    key = (
        base64.urlsafe_b64encode(hmac.digest(manager.token.encode(), path.encode(), hashlib.sha256))
        .decode()
        .rstrip("=")
    )
    request = {"json": {"type": "x"}, "auth": ("nas", key)}
    assert requests.put(manager.at + path, **request).status_code != 403
    for other in ("/env/local-env/abd", "/env/local-env/abc/", JOBS, "/"):
        assert requests.put(manager.at + other, **request).status_code == 403


def test_tensorboard_of_what_is_no_trial_makes_no_folder(manager):
    form = {"Content_Type": "application/json", "body": '{"trials": "../../x"}'}
    status, text = manager.ask("/api/v1/nni/tensorboard", "POST", **form)
    assert (status, "no such trial" in text) == (400, True)
    assert not list(manager.experiment.folder.parent.rglob("x"))


def test_other_addresses_take_the_token_too(tmp_path, capsys):
    found = Manager(tmp_path, "0.0.0.0")
    try:
        out, err = capsys.readouterr()
        assert "every interface of this machine" in err
        assert f"/?token={found.token}" in out
        own = [a.address for i in psutil.net_if_addrs().values() for a in i if a.family == socket.AF_INET]
        for address in own:
            assert found.ask(address=address)[0] == 200
            assert found.ask(address=address, cookie=False)[0] == 403
            assert found.ask(address=address, Host=f"192.0.2.7:{found.port}")[0] == 403
            assert found.ask(address=address, Host=f"evil.example:{found.port}")[0] == 403
    finally:
        found.experiment.stop()


FOREIGN = """<script>
const at = "http://" + location.search.slice(1);
const ask = (...args) => fetch(...args).then((r) => r.type + r.status, () => "refused");
const socket = () => new Promise((resolve) => {
  const found = new WebSocket(at.replace("http", "ws") + "/tuner/x");
  found.onopen = () => resolve("open");
  found.onerror = () => resolve("refused");
});
const plain = { method: "POST", mode: "no-cors", credentials: "include", body: '{"a": 1}' };
const json = { ...plain, mode: "cors", headers: { "Content-Type": "application/json" } };
Promise.all([
  socket(), ask(at + "/api/v1/nni/trial-jobs", plain), ask(at + "/api/v1/nni/trial-jobs", json),
  ask(at + "/api/v1/nni/check-status", { credentials: "include" }),
]).then((all) => { document.title = JSON.stringify(all); });
</script>"""


@pytest.fixture(scope="module")
def foreign():
    """Port of a server whose page attacks the address behind its question mark."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(FOREIGN.encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer((web.LOOPBACK, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@needs_chromium
def test_pages_of_other_origins_do_nothing_in_a_browser_that_has_the_cookie(manager, foreign, tmp_path):
    browser = Browser(tmp_path, "--host-resolver-rules=MAP evil.example 127.0.0.1")
    try:
        browser.open(f"{manager.at}/?token={manager.token}", "RUNNING")
        assert "token" not in browser.js("location.href")
        # The last page lists this machine's experiments, of which there may be more than are shown at once.
        for page, sign in (("oview", "Overview"), ("detail", "Trial jobs"), ("experiment", "Platform")):
            browser.open(f"{manager.at}/{page}", sign)
            names = "performance.getEntriesByType('resource').map((r) => [r.name, r.responseStatus])"
            loaded = dict(json.loads(browser.js(f"JSON.stringify({names})")))
            loaded.pop(
                f"{manager.at}/manifest.json", None
            )  # browsers ask for it without cookies; nobody installs the UI
            bad = [name for name, status in loaded.items() if name.startswith(manager.at) and status >= 400]
            assert loaded
            assert bad == []
        for host in (web.LOOPBACK, "localhost", "evil.example"):
            browser.call("Page.navigate", url=f"http://{host}:{foreign}/?{urlsplit(manager.at).netloc}")
            first, plain, as_json, read = json.loads(browser.js(f"location.hostname == '{host}' && document.title"))
            assert (first, as_json, read) == ("refused", "refused", "refused")
            assert plain in ("refused", "opaque0")
            assert manager.customized() == 0
        assert "refused" in browser.open(f"http://evil.example:{manager.port}/", "refused")
        browser.call("Page.navigate", url="about:blank")  # which closes the foreign page
        assert manager.ask()[1].endswith('{"status":"RUNNING","errors":[]}')
    finally:
        browser.close()
