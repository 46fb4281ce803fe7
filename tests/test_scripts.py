"""Scripts answer at once: nothing heavy is imported before options are parsed, nor for what they can refuse then.

Those of plain networks need no NNI.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from models import Model, save_detector
from models.classifier import Classifier
from models.files import save_classifier

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(p.name for p in ROOT.glob("*.py"))
HEAVY = ("torch", "nni", "cv2", "numpy", "matplotlib", "pytorch_lightning", "sklearn", "onnx")


def run(cwd, script, *args):
    """Exit status, stdout with what heavy is loaded, stderr."""
    code = (
        f"import runpy, sys, atexit; sys.argv = {[script, *args]!r}; sys.path.insert(0, {str(ROOT)!r});"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY} if m in sys.modules]));"
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script):
    code, out, err = run(ROOT, script, "--help")
    assert code == 0, err
    assert "usage:" in out
    assert "HEAVY []" in out


NO_FILE, NO_RUN = "gone: no such file", "gone: not the folder of a run"
OFF = "--imgsz 100 is no multiple of the stride 32; right would be 96 or 128"
REFUSED = [
    ("oneshot_nas.py --imgsz 100", OFF),
    ("oneshot_nas.py --task detect --imgsz 100", OFF),
    ("oneshot_nas.py --cfg gone", NO_FILE),
    ("oneshot_nas.py --detector gone", NO_FILE),
    ("oneshot_nas.py --data gone", "gone: no such data set or folder; take one of digits"),
    ("oneshot_nas.py --resume gone", NO_RUN),
    ("oneshot_nas.py --plugin gone.py", "gone.py: no such plug-in file"),
    ("oneshot_nas.py --strategy darts --population 4", "--population: is of --strategy spos, fairnas, bignas, ofa"),
    ("oneshot_nas.py --strategy spos --arch-lr 0.1", "--arch-lr: is of --strategy darts, darts-2nd, gumbel"),
    ("oneshot_nas.py --task detect --data-root x", "--data-root: is of --task classify"),
    (
        "oneshot_nas.py --target-weight 1",
        "--target-weight: is of --target-flops or --target-params or --target-latency",
    ),
    ("oneshot_nas.py --no-baseline --random-archs 3", "--random-archs: is of no use with --no-baseline"),
    ("oneshot_nas.py --resume run --epochs 10", "--epochs: a run that is gone on with keeps its options"),
    ("oneshot_nas.py --resume run --lr0 0.1", "--lr0: a run that is gone on with keeps its options"),
    ("oneshot_nas.py --resume run --trials 2", "--trials: a run that is gone on with keeps its options"),
    ("search_subnets.py --resume run --searcher random", "--searcher: a run that is gone on with keeps its options"),
    ("multi_trial_nas.py --imgsz 100", OFF),
    ("multi_trial_nas.py --cfg gone", NO_FILE),
    ("multi_trial_nas.py --population 4", "--population: is of --strategy evolution, nsga3"),
    ("multi_trial_nas.py --view run --max-trials 4", "--max-trials: is not of --view"),
    ("multi_trial_nas.py --resume run --seed 0", "--seed: a run that is gone on with keeps its options"),
    ("search_subnets.py --supernet gone", NO_RUN),
    ("search_subnets.py --resume gone", NO_RUN),
    (
        "search_subnets.py --resume run --trials 5 --workers 2",
        "--workers: a run that is gone on with keeps its options",
    ),
    ("search_subnets.py --resume run --sample-accuracy 5 --trials 2", "--trials: is not of --sample-accuracy"),
    ("search_subnets.py --cfg gone --sample-cost 5", NO_FILE),
    ("search_subnets.py --cfg yolov5n_nas.yaml --sample-cost 5 --costs x", "--costs: is not of --sample-cost"),
    ("search_subnets.py --edf a --searcher tpe", "--searcher: is not of --edf"),
    ("search_subnets.py --supernet run --sample-accuracy 5 --searcher tpe", "--searcher: is not of --sample-accuracy"),
    ("search_subnets.py --supernet run --subset a:b=1", "--subset: is of looking at a space"),
    ("search_subnets.py --supernet run --stride 2", "--stride: is of --searcher grid"),
    (
        "search_subnets.py --supernet run --searcher tpe --population 8",
        "--population: is of --searcher nsga3, nsga2, evol",
    ),
    ("train.py --cfg yolov5n.yaml --imgsz 100", OFF),
    ("train.py --cfg gone", NO_FILE),
    ("train.py --cfg yolov5n.yaml --data gone", "gone: no such data set; give a data.yaml"),
    ("train.py --weights gone", "--weights gone: no such file"),
    ("train.py --supernet gone", NO_RUN),
    ("train.py --resume gone", NO_RUN),
    ("train.py --resume run --batch 16", "--batch: a run that is gone on with keeps its options"),
    ("train.py --cfg yolov5n.yaml --arch min", "--arch: is of --supernet"),
    ("train.py --cfg yolov5n.yaml --no-augment --hyp mosaic=1", "--hyp: is of no use with --no-augment"),
    ("train.py --cfg yolov5n.yaml --teacher gone", "--teacher gone: no such file"),
    ("train.py --cfg yolov5n.yaml --distill both", "--distill: is of --teacher"),
    ("prune.py --weights gone --sparsity 0.5", NO_FILE),
    ("prune.py --weights n.pt", "say how much is to go: --sparsity 0.25, --to-flops, --to-params or --to-latency"),
    ("prune.py --weights n.pt --sparsity 0.5 --imgsz 100", OFF),
    ("prune.py --weights n.pt --sparsity 0.5 --data gone", "gone: no such data set; give a data.yaml"),
    ("val.py --weights gone", NO_FILE),
    ("val.py --weights n.pt --imgsz 100", OFF),
    ("val.py --weights n.pt --data gone", "gone: no such data set; give a data.yaml"),
    ("val.py --supernet gone", NO_RUN),
    ("val.py --supernet run --batch 32", "--batch: the subnets of --supernet are measured as its run measures"),
    ("detect.py --weights gone --source a", NO_FILE),
    ("detect.py --weights n.pt --source a --imgsz 100", OFF),
    ("export.py --weights gone", NO_FILE),
    ("find_detector.py", "--data: pictures with boxes are needed; right would be a data.yaml or a folder"),
    ("find_detector.py --data gone", "gone: no such data set; give a data.yaml"),
    ("find_detector.py --data digits-detect --quick --epochs 3", "--quick beside --epochs: right would be one of"),
    ("find_detector.py --data digits-detect --cfg gone", NO_FILE),
    ("find_detector.py --resume gone", NO_RUN),
    ("find_detector.py --resume run --hours 2", "--hours: a run that is gone on with keeps its options"),
    ("export.py --weights n.pt --imgsz 100", OFF),
    ("export.py --weights n.pt --conf 0.5", "--conf: is of --nms"),
    ("export.py --weights n.pt --format yolov5 --opset 17", "--opset: is of --format onnx or openvino"),
    ("export.py --weights n.pt --int8", "--int8: needs images"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a run's folder and a detector's file."""
    path = tmp_path_factory.mktemp("early")
    (path / "run").mkdir()
    (path / "run/config.yaml").write_text("options: {}")
    save_detector(Model("yolov5n.yaml"), path / "n.pt")
    return path


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_what_can_be_refused_at_once_is(line, message, folder):
    code, out, err = run(folder, *line.split())
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    heavy = out.strip().removeprefix("HEAVY ")
    assert heavy in ("[]", "['numpy']")
    assert not (folder / "runs").exists()


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
