"""Small detection sets and a small detector, to be trained in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml

from data.digits_detect import CLASS_NAMES, DigitImages
from experiments.run.cli import run_script
from tests.experiments.prepared import PreparedProcess

ROOT = Path(__file__).resolve().parents[2]

# Strides 8 and 16.
TINY = """\
nc: 80
anchors:
  - [8, 10, 12, 16]
  - [20, 24, 28, 36]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C3, [16]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 1, C3, [24]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[4, 5], 1, Detect, [nc, anchors]]
"""


@pytest.fixture(scope="session")
def tiny_cfg(tmp_path_factory):
    path = tmp_path_factory.mktemp("cfg") / "tiny.yaml"
    path.write_text(TINY)
    return path


def write_digits(folder, num_images, canvas, copies=1):
    """A YOLO set whose training images are its validation images, each there `copies` times."""
    digits = DigitImages("train", num_images, canvas)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(num_images):
        for k in range(copies):
            cv2.imwrite(str(folder / f"images/{i:03}_{k}.png"), digits.read(i)[..., ::-1])
            rows = "\n".join(f"{int(c)} " + " ".join(map(str, box)) for c, *box in digits.labels[i].tolist())
            (folder / f"labels/{i:03}_{k}.txt").write_text(rows)
    content = {"train": "images", "val": "images", "names": list(CLASS_NAMES), "mirror": False}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Makes sets of digits: (number of images, side, copies of each) -> data.yaml."""
    return lambda num_images=12, canvas=64, copies=1: write_digits(
        tmp_path_factory.mktemp("digits"), num_images, canvas, copies
    )


class Script:
    """A script in a folder, as a process of its own: one that begins with everything imported (`prepared.py`).

    With `fresh` it is one that imports as its users' do, which takes seconds; a test of each script should be so,
    and those that start NNI's web manager are.
    """

    name, fresh = "train.py", False

    def __init__(self, cwd, *always):
        self.cwd, self.always = cwd, [*map(str, always)]

    def start(self, *args):
        if not self.fresh:
            return PreparedProcess(ROOT / self.name, [*map(str, args)], self.cwd)
        # As from a terminal: a shell starts jobs in its background, such as a test run, with Ctrl-C ignored. By env,
        # since a preexec_fn forks, which gRPC, loaded by other tests, does not always survive.
        command = ["env", "--default-signal=INT", sys.executable, "-u", str(ROOT / self.name), *map(str, args)]
        return subprocess.Popen(command, cwd=self.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *args):
        """Exit status, stdout, stderr."""
        process = self.start(*self.always, *args)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


@pytest.fixture(scope="session")
def script():
    return Script


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a script's module in this process and the test's folder, as a process of its own takes seconds to start.

    (module, arguments) -> exit status, stdout, stderr.
    """
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)

    def run(module, *args):
        capsys.readouterr()
        try:
            status = run_script(module.main, module.parse([*map(str, args)]))
        except SystemExit as e:  # of argparse
            status = e.code
        finally:  # train.py tells its other processes the run's folder
            os.environ.clear()
            os.environ.update(environment)
        return status, *capsys.readouterr()

    return run
