"""A trial of a multi-trial search, run by NNI's training service:
``python -m experiments.nni_experiment.trial space.json``."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

from spaces.nni_compat import nni

from ..run.harmless import harmless_output
from .engine import decode


def run(space_file: Path) -> None:
    """Train and report the candidate whose arch the training service hands over."""
    parameters = nni.get_next_parameter()
    space = nni.load(space_file.read_text(encoding="utf-8"))
    space.freeze(decode(space, parameters)).execute()


if __name__ == "__main__":
    faulthandler.enable()
    with harmless_output():
        run(Path(sys.argv[1]))
