"""Latency as a user's own command tells it, on whatever device that reaches."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError
from optimizer.exporters import export_onnx
from spaces.space import Arch, Space

from .latency import built, whole

_FILE = "{onnx}"
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class CommandLatency:
    """Milliseconds that a command prints for the ONNX file of an arch, written as `export.py` does, for one image.

    Parameters
    ----------
    imgsz
        Side of the images; where the YAML has a `resolution`, that is meant.
    command
        Run by the shell, with ``{onnx}`` replaced by the file's path. Of what it prints, ``{"latency": …}`` as the
        last line, or else the last number, is milliseconds.
    device
        Name of what it measures: settings, and so the cache, tell devices apart by it.
    timeout
        Most seconds of a run.

    Raises
    ------
    InputError
        Of an option that does not fit; of a run that fails, takes too long or prints no positive number.
    """

    name, unit = "latency", "ms"

    def __init__(self, space: Space, imgsz: int, *, command: str, device: str, timeout: float = 600) -> None:
        if not isinstance(command, str) or _FILE not in command:
            raise InputError(f"command: {command!r}: right would be a command line that holds {_FILE}")
        if not isinstance(device, str) or not device:
            raise InputError(f"device: {device!r}: right would be a name of the device that is measured")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise InputError(f"timeout: {timeout!r}: right would be a positive number of seconds")
        self.space, self.imgsz, self.command, self.timeout = space, imgsz, command, timeout
        self.settings: dict[str, Any] = {
            "space": space.config.raw,
            "imgsz": imgsz,
            "command": command,
            "device": device,
        }

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """Milliseconds of each arch; all of them are checked before the first is measured."""
        return [self._measure(arch) for arch in [self.space.complete(a) for a in archs]]

    def _measure(self, arch: Arch) -> float:
        side = self.space.freeze_resolution(arch) or self.imgsz
        network = whole(built(self.space.freeze(arch)), "command")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "detector.onnx"
            export_onnx(network, path, side, batch=1)
            return self.of_file(path, side)

    def of_file(self, path: Path, side: int) -> float:
        """Milliseconds of an ONNX file."""
        return self._milliseconds(self._printed(path))

    def _printed(self, path: Path) -> str:
        line = self.command.replace(_FILE, shlex.quote(str(path)))
        pipe = subprocess.PIPE
        # In a session of its own, so that what the shell has started ends with it.
        with subprocess.Popen(
            line, shell=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        ) as process:
            try:
                out, err = (b.decode(errors="replace") for b in process.communicate(timeout=self.timeout))
            except subprocess.TimeoutExpired:
                raise self._error(f"took more than {self.timeout:g} s") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            said = (err.strip() or out.strip()).splitlines()
            raise self._error(f"ended with {process.returncode}{f': {said[-1]}' if said else ', and said nothing'}")
        return out

    def _milliseconds(self, out: str) -> float:
        last = (out.strip().splitlines() or [""])[-1]
        try:
            told: Any = json.loads(last)
        except ValueError:
            told = None
        told = told.get("latency") if isinstance(told, dict) else (_NUMBER.findall(out) or [None])[-1]
        try:
            ms = float(told)
        except (TypeError, ValueError):
            said = f"its last line is '{last[:80]}'" if last else "it printed nothing"
            raise self._error(f'no milliseconds: {said}; right would be a number or {{"latency": 1.5}}') from None
        if not 0 < ms < math.inf:
            raise self._error(f"{ms:g} ms; right would be a positive number")
        return ms

    def _error(self, what: str) -> InputError:
        return InputError(f"command '{self.command}': {what}")
