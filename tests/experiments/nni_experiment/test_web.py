"""NNI's web manager: where it listens, when it ends, what of it is repaired, and what is said if it cannot start."""

import base64
import hmac
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nni_node
import psutil
import pytest
import torch

from experiments import RetiariiExeConfig, RetiariiExperiment, strategy
from experiments.nni_experiment import web
from models import InputError
from spaces import NASBACKBONE
from spaces.nni_compat import tokens
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
NODE = Path(next(iter(nni_node.__path__)))
# A manager without trials, as an experiment starts it, until the process is told to end.
MANAGER = """
import sys, time
from experiments import RetiariiExeConfig, RetiariiExperiment, strategy
from nni.nas.evaluator import FunctionalEvaluator
from spaces import NASBACKBONE
from spaces.nni_compat import tokens
port, host, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
experiment = RetiariiExperiment(NASBACKBONE("tests/assets/tiny_nas.yaml"), FunctionalEvaluator(abs), [],
                                strategy.Random())
experiment.config.experiment_working_directory = directory
experiment._use_training_service()
with __import__("experiments.nni_experiment.web", fromlist=["_"]).sigterm_as_interrupt():
    try:
        experiment._start_manager(port, host, False)
        print("manager", experiment._proc.pid, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    finally:
        experiment.stop()
"""
# NNI's own module for its unit tests stands in for the rest of the manager.
REQUIRE = """
global.nniUnitTest = true;
const load = require("module").createRequire(process.cwd() + "/main.js");
load("app-module-path").addPath(process.cwd());
load("common/globals/unittest");
"""


def own_address():
    addresses = [a.address for i in psutil.net_if_addrs().values() for a in i if a.family == socket.AF_INET]
    return next((a for a in addresses if not a.startswith("127.")), None)


def reachable(address, port):
    with socket.socket() as s:
        s.settimeout(5)
        return s.connect_ex((address, port)) == 0


@pytest.fixture
def manager(tmp_path):
    """Starts a manager: (host) -> port, process that started it, Node's process."""
    started, nodes = [], []

    def start(host):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", MANAGER, str(port), host, str(tmp_path / "a b")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        for line in process.stdout:
            if line.startswith("manager"):
                nodes.append(psutil.Process(int(line.split()[1])))
                return port, process, nodes[-1]
        raise AssertionError(process.stderr.read())

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for node in nodes:
        if node.is_running():
            node.kill()


def ends(process, seconds=30):
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    except psutil.NoSuchProcess:
        pass
    return True


def test_listens_on_the_loopback_only_and_ends_when_its_parent_is_killed(manager):
    port, process, node = manager(web.LOOPBACK)
    assert reachable(web.LOOPBACK, port)
    if own_address() is not None:
        assert not reachable(own_address(), port)
    assert {c.laddr.ip for c in node.net_connections("inet") if c.status == psutil.CONN_LISTEN} == {web.LOOPBACK}
    process.kill()
    assert ends(node), "the manager outlived the process that started it"


def test_sigterm_ends_the_manager_and_another_host_is_heard_beside_the_loopback(manager):
    if own_address() is None:
        pytest.skip("this machine has the loopback interface only")
    port, process, node = manager(own_address())
    assert reachable(web.LOOPBACK, port)
    assert reachable(own_address(), port)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert ends(node)
    assert process.returncode == 0
    assert "warning: the web UI listens on" in err
    assert "can run programs here" in err


def test_a_taken_port_names_who_holds_it():
    with socket.socket() as s:
        s.bind((web.LOOPBACK, 0))
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"--port {port} is taken by .* \(process {os.getpid()}\); choose another"
        ):
            web.check(port)


BAD = {
    "a port out of range": (70000, web.LOOPBACK, "--port 70000: right would be 1 to 65535"),
    "a name for a host": (8080, "myhost", "--host myhost: right would be an IP address"),
    "another machine's address": (8080, "192.0.2.7", "--host 192.0.2.7: not an address of this machine"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_addresses(case):
    port, host, message = BAD[case]
    with pytest.raises(InputError, match=message):
        web.check(free_port() if port == 8080 else port, host)


def test_a_missing_node_binary_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(nni_node, "__path__", [str(tmp_path)])
    with pytest.raises(InputError, match=r"web manager is missing .* pip install"):
        web.check(free_port())


def test_the_loopback_gives_no_warning(capsys):
    web.warn(web.LOOPBACK)
    assert capsys.readouterr().err == ""
    web.warn("0.0.0.0")
    assert "every interface" in capsys.readouterr().err


def node(script):
    """What a script prints as JSON, with the manager's repairs loaded."""
    with web.manager_environment(8080):
        done = subprocess.run(
            [str(NODE / "node"), "-e", REQUIRE + script], cwd=NODE, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_trials_do_not_inherit_what_the_manager_is_started_with():
    names = '["NODE_OPTIONS", "NAS_WEB_HOST", "NAS_WEB_TOKEN"]'
    assert node(f"console.log(JSON.stringify({names}.filter((n) => n in process.env)))") == []
    assert not {"NAS_WEB_HOST", "NAS_WEB_TOKEN"} & os.environ.keys()


def test_a_resumed_experiment_goes_on_counting():
    found = node("""
const { NNIManager } = load("core/nnimanager");
const manager = Object.create(NNIManager.prototype);
Object.assign(manager, { experimentProfile: { nextSequenceId: 9 }, waitingTrials: [], log: { warning() {} } });
const jobs = [0, 1, 2].map((n) => ({ sequenceId: n, status: "SUCCEEDED" }));
manager.addRecoveredTrialJob(jobs);
console.log(manager.experimentProfile.nextSequenceId);
""")
    assert found == 3


def test_other_workers_on_resume_are_booked_once():
    found = node("""
const { NNIManager } = load("core/nnimanager");
const asked = [];
const manager = Object.create(NNIManager.prototype);
Object.assign(manager, {
  experimentProfile: { params: { trialConcurrency: 4 } }, trialConcurrencyChange: 0,
  trialDataForTuner: "", trialDataForResume: "", log: { info() {} },
  requestTrialJobs: (n) => asked.push(n),
});
(async () => {
  manager.updateTrialConcurrency(1);
  asked.push(manager.trialConcurrencyChange);
  await manager.onTunerCommand("ID", "");
  manager.updateTrialConcurrency(3);
  asked.push(manager.trialConcurrencyChange);
  console.log(JSON.stringify(asked));
})();
""")
    assert found == [0, 1, 2], "asked for by the change, once ready, and by a change after that"


def test_what_fails_while_the_manager_stops_is_no_error():
    found = node("""
const { NNIManager } = load("core/nnimanager");
const manager = Object.create(NNIManager.prototype);
const told = [];
Object.assign(manager, {
  status: { status: "STOPPING", errors: [] }, logError(error) { told.push(error.message); },
});
manager.criticalError(new Error("late"));
manager.status.status = "RUNNING";
console.error = () => {};
manager.criticalError(new Error("real"));
console.log(JSON.stringify(told));
""")
    assert found == ["real"]


def test_a_trial_that_a_signal_ended_has_failed_and_one_that_was_cancelled_has_not():
    found = node("""
const { V3asV1 } = load("training_service/v3/compat");
const service = new V3asV1({ platform: "local" });
let start, end, count = 0;
service.v3 = {
  init: async () => {}, start: async () => [{ id: "env" }], uploadDirectory: async () => {},
  createTrial: async () => `trial${count++}`, stopTrial: async () => {},
  onRequestParameter() {}, onMetric() {}, onEnvironmentUpdate() {},
  onTrialStart: (f) => { start = f; }, onTrialEnd: (f) => { end = f; },
};
(async () => {
  await service.start();
  const found = [];
  for (const [id, code] of [["trial0", null], ["trial1", null], ["trial2", 0]]) {
    await service.submitTrialJob({ sequenceId: 0, hyperParameters: { value: id, index: 0 } });
    await start(id, 1);
    if (id === "trial1") await service.cancelTrialJob(id, false);
    await end(id, 2, code);
    found.push((await service.getTrialJob(id)).status);
  }
  console.log(JSON.stringify(found));
})();
""")
    assert found == ["FAILED", "USER_CANCELED", "SUCCEEDED"]


def test_a_trial_gets_its_own_parameters_whoever_asks_first():
    sent = node("""
const { V3asV1 } = load("training_service/v3/compat");
const service = new V3asV1({ platform: "local" });
const sent = {};
let ask, count = 0;
service.v3 = {
  init: async () => {}, start: async () => [{ id: "env" }], uploadDirectory: async () => {},
  createTrial: async () => `trial${count++}`,
  sendParameter: async (id, parameter) => { sent[id] = parameter; },
  onRequestParameter: (f) => { ask = f; },
  onMetric() {}, onTrialStart() {}, onTrialEnd() {}, onEnvironmentUpdate() {},
};
const form = (value) => ({ sequenceId: 0, hyperParameters: { value, index: 0 } });
(async () => {
  await service.start();
  await service.submitTrialJob(form("first"));
  await service.submitTrialJob(form("second"));
  await ask("trial1");
  await ask("trial0");
  console.log(JSON.stringify(sent));
})();
""")
    assert sent == {"trial0": "first", "trial1": "second"}


def test_the_address_of_a_channel_has_the_key_of_that_channel_only():
    port, found = (
        8080,
        node("""
const { RestManager } = load("common/globals/rest");
Object.assign(global.nni, { args: { port: 8080, urlPrefix: "" } });
const rest = new RestManager();
console.log(JSON.stringify([rest.getFullUrl("http", "localhost", "env/local-env", "abc"),
                            rest.getFullUrl("ws", "192.0.2.7", "/platform/remote", "1")]));
"""),
    )
    for url, address in zip(
        found, ["http://localhost:8080/env/local-env/abc", "ws://192.0.2.7:8080/platform/remote/1"], strict=True
    ):
        parts = urlsplit(url)
        digest = hmac.digest(tokens[port].encode(), parts.path.encode(), "sha256")
        assert (parts.username, parts.password) == ("nas", base64.urlsafe_b64encode(digest).decode().rstrip("="))
        assert url.replace(f"nas:{parts.password}@", "") == address


def test_tensorboard_listens_on_the_loopback_only(tmp_path):
    folder = tmp_path / "it's; here"
    folder.mkdir()
    command = node(
        """
const { NNITensorboardManager } = load("extensions/nniTensorboardManager");
Object.assign(global.nni, { args: { pythonInterpreter: "/usr/bin/python" } });
const manager = Object.create(NNITensorboardManager.prototype);
manager.nniManager = { getTrialJob: async () => ({ sequenceId: 3 }) };
(async () => {
  console.log(JSON.stringify(await manager.getTensorboardStartCommand(["abc"], [FOLDER], 6007)));
})();
""".replace("FOLDER", json.dumps(str(folder)))
    )
    assert shlex.split(" ".join(command)) == [
        "/usr/bin/python", "-m", "tensorboard.main", "--host=127.0.0.1", "--port=6007", f"--logdir_spec=3-abc:{folder}",
    ]  # fmt: skip


def test_the_keeper_on_another_machine_is_guarded_too():
    found = node("""
const { Ssh } = load("training_service/remote_v3/ssh");
const said = [], written = [];
const ssh = new Ssh("x", {});
ssh.exec = async (command) => { said.push(command); return { code: 0, stdout: "/there/keeper\\n" }; };
ssh.writeFile = async (path, data) => { written.push([path, String(data)]); };
(async () => {
  await ssh.run("python -m nni.tools.nni_manager_scripts.create_trial_keeper_dir exp env");
  await ssh.run("python -m nni.tools.nni_manager_scripts.launch_trial_keeper /there/keeper");
  console.log(JSON.stringify([said, written]));
})();
""")
    said, ((path, content),) = found
    script = "/there/keeper/web_guard.js"
    assert said == [
        "python -m nni.tools.nni_manager_scripts.create_trial_keeper_dir exp env",
        "chmod 700 '/there/keeper'",
        f"NODE_OPTIONS='--require \"{script}\"' "
        "python -m nni.tools.nni_manager_scripts.launch_trial_keeper /there/keeper",
    ]
    assert (path, content) == (script, (ROOT / "experiments/nni_experiment/web_guard.js").read_text())


def test_a_trial_may_have_all_gpus_of_a_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = RetiariiExeConfig("local")
    config.trial_gpu_number, config.training_service.use_active_gpu = 1, True
    experiment = RetiariiExperiment(NASBACKBONE("tests/assets/tiny_nas.yaml"), None, [], strategy.Random(), config)
    asked = experiment.config.json()["trainingService"]["trialGpuNumber"]
    script = """
const { TaskScheduler, UnitTestHelpers } = load("common/trial_keeper/task_scheduler/scheduler");
const gpus = (n) => Array.from({ length: n }, (_, index) => ({ index }));
const info = (n) => ({ gpuNumber: n, gpus: gpus(n), processes: [] });
const granted = async (present, wanted) => {
  UnitTestHelpers.mockGpuInfo(info(present));
  const scheduler = new TaskScheduler();
  await scheduler.init();
  const first = await scheduler.schedule("e", "t1", wanted, {});
  return [first, await scheduler.schedule("e", "t2", wanted, {})];
};
"""
    calls = f"console.log(JSON.stringify([await granted(1, {asked}), await granted(2, {asked}), await granted(1, 1)]));"
    one, two, unrepaired = node(f"{script}(async () => {{ {calls} }})();")
    assert one == [{"CUDA_VISIBLE_DEVICES": "0"}, None]
    assert [x["CUDA_VISIBLE_DEVICES"] for x in two] == ["0", "1"]
    assert unrepaired == [None, None]
