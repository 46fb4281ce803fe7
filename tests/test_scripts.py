"""Scripts answer --help at once, since nothing heavy is imported before; those of plain networks need no NNI."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from models.classifier import Classifier
from models.files import save_classifier

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


WITHOUT_NNI = """
import importlib, importlib.abc, importlib.metadata, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nni":
            raise ModuleNotFoundError("No module named 'nni'", name=name)

def version(package, known=importlib.metadata.version):
    if package == "nni":
        raise importlib.metadata.PackageNotFoundError(package)
    return known(package)

sys.meta_path.insert(0, Missing())
importlib.metadata.version = version
sys.path.insert(0, sys.argv.pop(1))
from experiments.run.cli import run_script
for line in sys.argv[1:]:
    name, *args = line.split()
    script = importlib.import_module(name)
    if (status := run_script(script.main, script.parse(args))) != 0:
        sys.exit(f"{line}: {status}")
"""


def test_plain_networks_need_no_nni(tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "nc: 80\nanchors: 2\nchannel_multiple: 4\nbackbone:\n  - [-1, 1, Conv, [4, 6, 2, 2]]\n"
        "  - [-1, 1, Conv, [8, 3, 2]]\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[1, 2], 1, Detect, [nc, anchors]]\n"
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    classifier = Classifier({"backbone": [[-1, 1, "Conv", [8, 3, 2]]]}, 10)
    save_classifier(classifier, tmp_path / "classifier.pt", [str(i) for i in range(10)], imgsz=16)
    lines = (
        "train --cfg tiny.yaml --data digits-detect --imgsz 64 --epochs 1 --batch 64 --device cpu",
        "val --weights runs/train/exp/detector.pt --data digits-detect --imgsz 64 --device cpu",
        "export --weights runs/train/exp/detector.pt --imgsz 64",
        "detect --weights runs/train/exp/detector.pt --source a.png --imgsz 64 --device cpu",
        "train --weights classifier.pt --epochs 1 --batch 300 --device cpu",
        "val --weights classifier.pt --device cpu",
    )
    command = [sys.executable, "-c", WITHOUT_NNI, str(ROOT), *lines]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/train/exp/detector.onnx").is_file()
    assert (tmp_path / "runs/train/exp2/classifier.pt").is_file()
