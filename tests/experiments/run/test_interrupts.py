"""Ctrl-C and SIGTERM, once, twice and insisting: a script ends with one line, and its workers with it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]

# The way a script goes, with work that takes as long as it is told to: also to end, and to take notice.
SCRIPT = """
import argparse, contextlib, multiprocessing, sys, threading, time
from experiments.run import interrupts
from experiments.run.cli import start_script

def sleep(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)

def worker():
    threading.Thread(target=interrupts.end_with_parent, daemon=True).start()
    sleep(60)

def main(args):
    how = sys.argv[1]
    asked = []
    with interrupts.told(lambda: "go on"), contextlib.ExitStack() as stack:
        if how == "workers":
            process = multiprocessing.get_context("spawn").Process(target=worker)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            print(process.pid, flush=True)
        if how in ("orderly", "stuck"):
            stack.enter_context(interrupts.deferred(lambda: asked.append(1)))
        try:
            print("ready", flush=True)
            while not asked or how == "stuck":
                sleep(0.01)
            raise KeyboardInterrupt("go on")
        except KeyboardInterrupt:
            sleep(0.3 if how != "slow" else 60)  # what is to be ended in order
            raise KeyboardInterrupt("go on") from None

if __name__ == "__main__":
    sys.exit(start_script(main, argparse.Namespace))
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    started = []

    def begin(how):
        command = ["env", "--default-signal=INT", f"PYTHONPATH={ROOT}", sys.executable, "script.py", how]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        lines = []
        while (line := process.stdout.readline()) not in ("ready\n", ""):
            lines.append(line)
        return process, lines

    yield begin
    for process in started:
        process.kill()


@pytest.mark.parametrize("how", ["at once", "orderly"])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGINT]],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice", "SIGTERM and Ctrl-C"],
)
def test_one_line_whatever_is_pressed(how, signals, start):
    process, _ = start(how)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate(timeout=60)[1] == "interrupted: go on\n"
    assert process.returncode == 130


@pytest.mark.parametrize("how", ["slow", "stuck"])
def test_who_insists_ends_it_at_once(how, start):
    """An end in order that takes long, or that takes no notice."""
    process, _ = start(how)
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == "interrupted: go on\n"
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(number, start):
    process, lines = start("workers")
    worker = psutil.Process(int(lines[0]))
    process.send_signal(number)
    process.wait(60)
    assert psutil.wait_procs([worker], timeout=60)[1] == []
