"""`import data` must stay light: the scripts' --help answers at once."""

import subprocess
import sys
from pathlib import Path

import data

ROOT = Path(__file__).resolve().parents[2]


def test_import_loads_no_torch():
    code = "import sys, data; print([m for m in ('torch', 'numpy', 'cv2', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert set(data.__all__) == set(data._HOME)
