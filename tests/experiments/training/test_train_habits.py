"""A training as people begin it who come from elsewhere, and what it prints to be copied."""

import contextlib
import io
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import detect
import export
import train
import val
from experiments.run.cli import run_script
from models import load_detector, load_plugin, registry
from models.catalog import registered

SCRIPTS = {"detect.py": detect, "export.py": export, "val.py": val}
PLUGIN = "from models import register\nfrom models.blocks import Conv\n@register()\nclass Mine(Conv): pass\n"


@pytest.fixture(scope="module")
def trained(digits, tiny_cfg, tmp_path_factory):
    """The folder it was started in, and what it printed. Folder and plug-in have blanks in their names."""
    there = tmp_path_factory.mktemp("a folder")
    data = digits()
    content = yaml.safe_load(data.read_text())
    set_folder = there / "my set"
    data.parent.rename(set_folder)
    (set_folder / "data.yaml").write_text(yaml.safe_dump(content))
    (there / "my plugin.py").write_text(PLUGIN)
    (there / "mine.yaml").write_text(tiny_cfg.read_text().replace("Conv, [24, 3, 2]", "Mine, [24, 3, 2]"))
    (there / "hyp.yaml").write_text("lr0: 0.02\nmosaic: 0.0\nbox: 0.05\n")
    words = ["--cfg", "mine.yaml", "--data", "my set/data.yaml", "--plugin", "my plugin.py", "--hyp", "hyp.yaml"]
    words += ["--img-size", "64", "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--classes", "1,0", "7"]
    before = registered()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            plugin = load_plugin("my plugin.py")
            assert run_script(train.main, train.parse([*words, "--name", "my run"])) == 0
    # As the tests' own plug-ins are forgotten.
    del sys.modules[plugin.__name__]
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)
    return there, out.getvalue()


def test_options_were_taken(trained):
    there, out = trained
    options = yaml.safe_load((there / "runs/train/my run/config.yaml").read_text())["options"]
    assert (options["imgsz"], options["batch"], options["lr0"], options["hyp"]) == (64, 4, 0.02, {"mosaic": 0})
    assert "--hyp hyp.yaml: not known here, and left out: box 0.05" in out
    assert "of other classes (left out)" in out


def test_printed_commands_run_as_they_are(trained, call, monkeypatch, capsys):
    there, out = trained
    monkeypatch.chdir(there)
    lines = [line.strip() for line in out.splitlines() if line.startswith("  python ")]
    assert len(lines) == 3
    image = str(next((there / "my set/images").iterdir()))
    for line in lines:
        python, script, *words = shlex.split(line.replace("IMAGES", shlex.quote(image)))
        assert python == "python"
        assert Path(script).is_file()
        assert "--plugin" in words
        code, _, err = call_there(call, there, monkeypatch, SCRIPTS[Path(script).name], *words)
        assert (code, err) == (0, ""), line
    model, _ = load_detector(there / "runs/train/my run/detector.pt")
    assert model.names == {0: "1", 1: "0", 2: "7"}


def call_there(call, there, monkeypatch, *words):
    monkeypatch.chdir(there)
    return call(*words)


def test_a_run_is_gone_on_with_from_elsewhere_by_its_checkpoint(trained, call):
    there, out = trained
    # `call` is in a folder of its own; the paths of the run are relative to another.
    code, again, err = call(train, "--resume", there / "runs/train/my run/last.ckpt")
    assert (code, err) == (0, "")
    table = [text[text.index("┏") : text.index("results in")] for text in (out, again)]
    assert table[0] == table[1]
