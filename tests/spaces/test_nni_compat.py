"""Every repair of NNI: each test fails when the repair is taken out."""

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import cloudpickle
import nni
import pytest
import requests
import torch
from nni.experiment import launcher, rest
from nni.experiment.data import TrialJob
from nni.mutable import CategoricalMultiple
from nni.nas.nn.pytorch import MutableBatchNorm2d
from nni.runtime.command_channel.websocket import connection
from nni.runtime.trial_command_channel import v3
from nni.runtime.tuner_command_channel import TunerCommandChannel

from models.grammar import MODELS
from spaces import NASBACKBONE, make_supernet, nni_compat
from spaces.nni_compat import BaseOneShotLightningModule, DartsLightningModule
from spaces.supernet import decisions
from tests.spaces.supernets import SMALL, darts

ORDER = """
import spaces
space = spaces.NASBACKBONE(cfg="yolov5nb_nas.yaml", nc=2)
from types import SimpleNamespace
from nni.nas.oneshot.pytorch.strategy import DARTS
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from spaces.nni_compat import DartsLightningModule
net = DARTS().mutate_model(space)
modules = [m for m in net.modules() if isinstance(m, BaseSuperNetModule)]
found = DartsLightningModule.arch_parameters(SimpleNamespace(supernet_modules=lambda: modules))
names = {id(p): n for n, p in net.named_parameters()}
print(*[names[id(p)] for p in found], sep="\\n")
"""


def _fresh(code, hash_seed="0"):
    """A fresh process with all warnings on; stdout, once it has printed nothing else."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(MODELS.parent)}
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", code],
        env=environment,
        cwd=MODELS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("first", ["from spaces import NASBACKBONE", "import spaces.blocks"])
def test_import_prints_nothing_leaves_no_stubs_and_parameters_have_the_order_of_the_supernet(first, in_order):
    """In two processes, whose sets have other orders than this one's."""
    stubs = "import nni.nas.strategy as s\nprint(s.DARTS.__module__, s.RandomOneShot.__module__)"
    process = _fresh(f"{first}\n{stubs}\n{ORDER}", hash_seed=str(len(first)))
    out, err = process.communicate(timeout=120)
    assert err == ""
    modules, *order = out.splitlines()
    assert modules.split() == ["nni.nas.oneshot.pytorch.strategy"] * 2
    assert order == in_order


@pytest.fixture(scope="module")
def in_order():
    """What `ORDER` prints, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(ORDER, {})
    names = out.getvalue().split()
    assert len(names) == len(set(names)) == 37
    return names


def test_arch_parameters_are_those_of_the_supernet_modules_once_each():
    net = darts(NASBACKBONE(cfg=SMALL))
    modules = [m for m in net.modules() if hasattr(m, "arch_parameters")]
    found = DartsLightningModule.arch_parameters(SimpleNamespace(supernet_modules=lambda: modules))
    assert len({id(p) for p in found}) == len(found) == len(net.space.decisions)
    position = {id(p): i for i, (_, p) in enumerate(net.named_parameters())}
    first = [min(position[id(p)] for p in m.arch_parameters()) for m in modules if list(m.arch_parameters())]
    expected = list(dict.fromkeys(id(p) for m in modules for p in m.arch_parameters()))
    assert [id(p) for p in found] == expected
    assert first[0] == position[expected[0]]


def test_validation_epoch_end_reaches_the_evaluators_module():
    calls = []
    module = SimpleNamespace(training_module=SimpleNamespace(on_validation_epoch_end=lambda: calls.append(1)))
    BaseOneShotLightningModule.on_validation_epoch_end(module)
    assert calls == [1]


def test_g_what_a_resumed_manager_tells_a_tuner_is_passed_over():
    commands = iter([("FD", '[{"parameter": {}}]'), ("AD", "[]"), ("GE", "2")])
    channel = TunerCommandChannel("ws://127.0.0.1:1/tuner")
    channel._channel = SimpleNamespace(receive=lambda: dict(zip(("type", "content"), next(commands), strict=True)))
    assert channel.receive().count == 2


def test_t_a_slow_manager_is_waited_for_and_a_dead_one_is_not(monkeypatch):
    answers = iter([requests.ConnectionError()] * 20 + ["INITIALIZED"])

    def get(*_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(rest, "get", get)
    monkeypatch.setattr(nni_compat.time, "sleep", lambda _: None)
    monkeypatch.setattr(nni_compat, "_manager", SimpleNamespace(poll=lambda: None))
    launcher._check_rest_server(8080)
    assert next(answers, None) is None

    answers = iter([requests.ConnectionError()] * 2)
    monkeypatch.setattr(nni_compat, "_manager", SimpleNamespace(poll=lambda: 3, returncode=3))
    with pytest.raises(RuntimeError, match="ended with status 3"):
        launcher._check_rest_server(8080)


class Answer:
    ok, content = True, b"x"

    def raise_for_status(self):
        pass

    def json(self):
        return {"status": "DONE"}


def test_what_comes_over_channels_is_read_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    encoded = {"__nni_type__": "bytes:" + base64.b64encode(cloudpickle.dumps(Evil())).decode()}
    assert encoded == json.loads(json.dumps(encoded))
    trial = v3.TrialCommandChannelV3("http://localhost:1")
    told = {"type": "parameter", "parameter": json.dumps({"parameters": {"a": encoded}})}
    trial._channel = SimpleNamespace(send=lambda command: None, receive=lambda: told)
    assert trial.receive_parameter() == {"parameters": {"a": encoded}}
    tuner = TunerCommandChannel("ws://localhost:1")
    metric = {"parameter_id": 0, "type": "FINAL", "sequence": 0, "value": json.dumps(encoded)}
    tuner._channel = SimpleNamespace(receive=lambda: {"type": "ME", "content": json.dumps(metric)})
    assert tuner.receive().value == encoded
    assert connection.nni.load(json.dumps(encoded)) == encoded
    assert not (tmp_path / "ran").exists()
    nni.load(json.dumps(encoded))
    assert (tmp_path / "ran").is_dir(), "as NNI's own reader does"


def test_trials_that_were_added_by_hand_are_read():
    by_hand = {"parameter_id": None, "parameter_source": "customized", "parameters": {"a": 1}}
    job = TrialJob(trialJobId="x", status="WAITING", hyperParameters=[json.dumps(by_hand), "[]"], finalMetricData=[{}])
    first, second = job.hyperParameters
    assert (first.parameter_id, first.parameters, first.parameter_index) == (None, {"a": 1}, 0)
    assert (second.parameter_id, second.parameters) == (None, {})
    assert (job.startTime, job.sequenceId, job.endTime) == (-1, -1, -1)


def test_our_own_side_shows_the_token_of_the_port(monkeypatch):
    monkeypatch.setitem(nni_compat.tokens, 8123, "secret")
    asked = []
    monkeypatch.setattr(requests, "request", lambda *args, **options: asked.append((args, options["auth"])) or Answer())
    assert rest.get(8123, "/check-status") == {"status": "DONE"}
    assert rest.get(8124, "/check-status") == {"status": "DONE"}
    assert [auth for _, auth in asked] == [("nas", "secret"), None]
    assert "secret" not in str([args for args, _ in asked])


def test_several_inputs_may_be_a_tuple():
    choice = CategoricalMultiple([0, 1, 2], n_chosen=2, label="inputs")
    assert choice.freeze({"inputs": (0, 2)}) == [0, 2]
    with pytest.raises(ValueError, match="must be contained"):
        choice.freeze({"inputs": (0, 3)})


def test_numbers_of_normalisations_survive_the_supernet():
    class Space(nni_compat.ModelSpace):
        def __init__(self):
            super().__init__()
            self.norm = MutableBatchNorm2d(nni.choice("width", [2, 4]))
            self.norm.eps, self.norm.momentum = 0.5, 0.25

    supernet = make_supernet(Space())
    for norm in (supernet.norm, supernet.freeze({"width": 2}).norm):
        assert (norm.eps, norm.momentum) == (0.5, 0.25)


def test_a_frozen_network_of_cells_has_the_weights_of_its_supernet():
    supernet = make_supernet(nni_compat.hub.ENAS(width=2, num_cells=3, dataset="cifar"))
    arch = {label: values[-1] for label, values in decisions(supernet).items()}
    assert torch.equal(supernet.freeze(arch).stem[0].weight, supernet.stem[0].weight)
