"""Every script answers --help at once: nothing heavy is imported before options are parsed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(p.name for p in ROOT.glob("*.py"))
HEAVY = ("torch", "nni", "cv2", "numpy", "matplotlib", "pytorch_lightning", "sklearn", "onnx")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script):
    code = (
        f"import runpy, sys, atexit; sys.argv = [{script!r}, '--help'];"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY} if m in sys.modules]));"
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert "HEAVY []" in done.stdout
