"""Trials on other machines, over SSH: against a server of the test's own on the loopback."""

import csv
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from experiments.nni_experiment import web
from experiments.nni_experiment.machines import check_host, read_config_file, stage
from models import InputError, load_detector
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SSHD = shutil.which("sshd") or next((p for p in ["/usr/sbin/sshd"] if Path(p).exists()), None)
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="no sshd here: apt-get install openssh-server"
)


@pytest.fixture
def server(tmp_path):
    """An SSH server with keys, port and home folder of its own; gives the machine as a config file has it."""
    folder = tmp_path / "ssh"
    home = tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress {web.LOOPBACK}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        f"Subsystem sftp internal-sftp\nSetEnv HOME={home} OMP_NUM_THREADS=1\n"
    )
    made = None
    if os.geteuid() == 0 and not Path("/run/sshd").exists():  # what a system service would have made for sshd
        made = Path("/run/sshd")
        made.mkdir(mode=0o755)
    log = (folder / "log").open("w")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex((web.LOOPBACK, port)) == 0:
                break
    else:
        raise AssertionError((folder / "log").read_text())
    yield {
        "host": web.LOOPBACK,
        "port": port,
        "user": getpass.getuser(),
        "sshKeyFile": str(folder / "user"),
        "pythonPath": str(Path(sys.executable).parent),
    }
    process.terminate()
    process.wait()
    log.close()
    if made is not None:
        made.rmdir()


def config(path, machine, **more):
    service = {"platform": "remote", "machineList": [machine]}
    path.write_text(yaml.safe_dump({"nniManagerIp": web.LOOPBACK, "trainingService": service, **more}))
    return path


@needs_sshd
@pytest.mark.slow
def test_a_search_over_ssh_leaves_what_one_on_this_machine_does(tmp_path, server, script):
    machines = config(tmp_path / "machines.yaml", server)

    class MultiTrial(script):
        name, fresh = "multi_trial_nas.py", True

    args = ["--cfg", ROOT / "tests/assets/tiny_nas.yaml", "--epochs", 1, "--max-trials", 2, "--device", "cpu"]
    code, out, err = MultiTrial(tmp_path).run(*args, "--port", free_port(), "--config", machines)
    assert code == 0, err + out
    folder = tmp_path / "runs/multi_trial_nas/exp"
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done"]
    results = json.loads((folder / "results.json").read_text())
    best = max(rows, key=lambda row: float(row["default"]))
    assert results["best"]["id"] == best["id"]
    model, content = load_detector(folder / "detector.pt")
    assert content["arch"] == results["arch"]
    # What came back is what the other side trained, and no fresh weights.
    there = next((tmp_path / "home/nni-experiments").glob(f"*/environments/*/trials/{best['id']}/weights.pt"))
    trained = torch.load(there, weights_only=True)["state_dict"]
    assert torch.equal(model.state_dict()["model.0.conv.weight"], trained["model.0.conv.weight"])
    assert {p.name for p in folder.iterdir()} >= {"arch.json", "detector.yaml", "config.yaml", "trials.png", "trials"}


BAD = {
    "no file": (None, "no such file"),
    "no machines": ({"trainingService": {"platform": "local"}}, "platform: remote"),
    "a misspelt field": ({"trainingServise": {}}, "does not have field"),
    "no mapping": ([1], "not a dict"),
    "a list of names": ({"trainingService": {"platform": "remote", "machineList": ["h"]}}, "a list of {host: …"),
    "no machine": ({"trainingService": {"platform": "remote"}}, "a list of {host: …"),
    "a number for a key": (
        {"trainingService": {"platform": "remote", "machineList": [{"host": "h", "user": "u", "sshKeyFile": 3}]}},
        "a list of {host: …",
    ),
    "a password": (
        {"trainingService": {"platform": "remote", "machineList": [{"host": "h", "user": "u", "password": "p"}]}},
        "h: give an sshKeyFile",
    ),
    "no key": (
        {"trainingService": {"platform": "remote", "machineList": [{"host": "h", "user": "u", "sshKeyFile": "/no"}]}},
        "sshKeyFile /no: no such file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_files(case, tmp_path):
    content, message = BAD[case]
    path = tmp_path / "machines.yaml"
    if content is not None:
        path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message) as error:
        read_config_file(str(path))
    assert "\n" not in str(error.value)


def test_machines_are_told_an_address_that_something_listens_on(tmp_path):
    key = tmp_path / "key"
    key.touch()
    machine = {"host": "h", "user": "u", "sshKeyFile": str(key)}
    there = read_config_file(str(config(tmp_path / "a.yaml", machine, nniManagerIp="192.0.2.7")))
    with pytest.raises(InputError, match=r"right would be --host 192\.0\.2\.7"):
        check_host(there, web.LOOPBACK)
    check_host(there, "0.0.0.0")
    check_host(read_config_file(str(config(tmp_path / "b.yaml", machine))), web.LOOPBACK)
    path = config(tmp_path / "c.yaml", machine)
    path.write_text(path.read_text().replace("nniManagerIp: 127.0.0.1\n", ""))
    with pytest.raises(InputError, match="nniManagerIp is missing"):
        read_config_file(str(path))


def test_sources_are_sent_and_nothing_else(tmp_path, monkeypatch):
    here = tmp_path / "mine"
    for name in ("mine.py", "cfg/a.yaml", "big.bin", "runs/x.py", ".git/y.py", "venv/pyvenv.cfg", "venv/z.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    (tmp_path / "space.json").write_text("{}")
    monkeypatch.chdir(here)
    sent = stage(tmp_path / "code", ROOT, tmp_path / "space.json")
    names = {str(p.relative_to(sent)) for p in sent.rglob("*") if p.is_file()}
    own = {"mine.py", "cfg/a.yaml", "space.json"}
    assert own | {"experiments/nni_experiment/trial.py", "models/yolov5n_nas.yaml"} <= names
    assert not {"big.bin", "runs/x.py", ".git/y.py", "venv/z.py", "multi_trial_nas.py"} & names
