"""Scripts in processes of their own that start at once: forks of one that has imported what all scripts import.

That one is no test's process: it has no threads and has computed nothing, so that a fork of it is as good as new.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_IMPORTED = (
    *(f"experiments.{name}.search" for name in ("oneshot", "supernets", "multi_trial")),
    *("experiments.training.train", "experiments.inference.validate", "optimizer.exporters"),
    *("sklearn.datasets", "matplotlib.pyplot", "optuna", "torch.utils.tensorboard"),
)
_REQUEST_BYTES = 1 << 20


def _run(script, args):
    """As ``python -u script args``, to the end of the interpreter; its exit status."""
    # Anew: those of before were made for other files, which could be sought in.
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv, sys.path[0] = [script, *args], str(Path(script).parent)
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    return status


def _keep(request, out, err, told):
    """Run one script, and tell its process id and its exit status, minus the signal's number where one ended it."""
    if (pid := os.fork()) == 0:
        os.close(told)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, max(out, err, told) + 1)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        os._exit(_run(request["script"], request["args"]))
    os.close(out)
    os.close(err)
    os.write(told, f"{pid}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(told, f"{status}\n".encode())


def _serve(requests):
    """Until the tests end."""
    for name in _IMPORTED:
        importlib.import_module(name)
    keepers = []
    while True:
        message, pipes, *_ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        keepers = [pid for pid in keepers if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if not message:
            break
        if (pid := os.fork()) == 0:
            requests.close()
            _keep(json.loads(message), *pipes)
            os._exit(0)
        keepers.append(pid)
        for pipe in pipes:
            os.close(pipe)


@cache
def _requests():
    """Where to ask for a script; the process that answers is there from the first time on."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(there.fileno())]
    # As from a terminal: a shell starts jobs in its background, such as a test run, with Ctrl-C ignored.
    command = ["env", "--default-signal=INT", *command]
    process = subprocess.Popen(command, pass_fds=[there.fileno()], env=environment, start_new_session=True)
    there.close()

    def end():
        here.close()
        process.wait()

    atexit.register(end)
    return here


class PreparedProcess:
    """What the tests use of `subprocess.Popen`: its text on stdout, signals, the exit status; times are pytest's."""

    def __init__(self, script, args, cwd):
        (out, out_end), (told, told_end) = os.pipe(), os.pipe()
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        request = {"script": str(script), "args": args, "cwd": str(cwd), "environment": dict(os.environ)}
        fds = [out_end, self._err.fileno(), told_end]
        socket.send_fds(_requests(), [json.dumps(request).encode()], fds)
        os.close(out_end)
        os.close(told_end)
        self.stdout, self._told = os.fdopen(out), os.fdopen(told, "rb", buffering=0)
        self.pid, self.returncode = int(self._told.readline()), None

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def poll(self):
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = int(self._told.readline())
        return self.returncode

    def communicate(self, timeout=None):
        """What is left of stdout, and stderr, once it has ended."""
        out = self.stdout.read()
        self.returncode = self.returncode if self.returncode is not None else int(self._told.readline())
        self._err.seek(0)
        err = self._err.read()
        for file in (self.stdout, self._told, self._err):
            file.close()
        return out, err


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
