"""``--scale`` of the scripts that read a YAML."""

import json

import pytest

import multi_trial_nas
import oneshot_nas
import search_subnets
import train
from experiments.multi_trial import candidate
from experiments.oneshot.options import Options
from experiments.run.options import made
from experiments.supernets.space_costs import report_costs
from experiments.tasks.task import open_task
from experiments.training import options as training
from experiments.training.train import _config
from models import InputError
from models.complexity import count_params
from models.detector import Model

WIDTH = 1.5
YAML = """
nc: 2
scales: {n: [1, 1, 64], s: [1, %s, 64]}
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [{choice: [16, 32]}, 3, 2]]
head:
  - [-1, 1, Conv, [32, 3, 2]]
  - [[2], 1, Detect, [nc, [[10, 13, 16, 30, 33, 23]]]]
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML % WIDTH)
    return str(path)


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text(YAML.replace("{choice: [16, 32]}", "16") % WIDTH)
    return str(path)


@pytest.mark.parametrize(("scale", "width"), [((), 1), (("--scale", "n"), 1), (("--scale", "s"), WIDTH)])
@pytest.mark.parametrize(("script", "cls"), [(oneshot_nas, Options), (multi_trial_nas, candidate.Training)])
def test_a_space_is_opened_at_a_scale(script, cls, scale, width, space):
    args = script.parse(["--cfg", space, "--task", "detect", "--imgsz", "64", "--device", "cpu", *scale])
    opened, *_ = open_task(made(cls, args))
    assert opened.config.width_multiple == width


def test_a_policy_is_laid_over_a_scale(plain, tmp_path):
    rules = {"rules": [{"modules": ["Conv"], "c2": {"scale": [0.5, 1]}}]}
    (tmp_path / "policy.yaml").write_text(json.dumps(rules))
    given = ["--cfg", plain, "--scale", "s", "--space", str(tmp_path / "policy.yaml")]
    args = oneshot_nas.parse([*given, "--task", "detect", "--imgsz", "64", "--device", "cpu"])
    opened, *_ = open_task(made(Options, args))
    assert opened.config.width_multiple == WIDTH
    assert opened.config.file == plain


def test_a_detector_is_trained_at_a_scale(plain):
    options = made(training.Options, train.parse(["--cfg", plain, "--scale", "s"]))
    small, large = Model(plain), Model(_config(options, None, None, resume=False))
    assert count_params(large) > count_params(small)
    assert large.config.width_multiple == WIDTH


def test_costs_are_those_of_a_scale(space, tmp_path):
    def largest(*scale):
        given = ["--cfg", space, "--sample-cost", "10", "--cost-imgsz", "64", "--project", str(tmp_path), *scale]
        return report_costs(search_subnets.parse(given))["upstream"]["params"]

    assert largest("--scale", "s") > largest()


@pytest.mark.parametrize("script", [train, oneshot_nas, multi_trial_nas, search_subnets])
def test_a_scale_that_is_not_there_is_refused_at_once(script, space):
    more = ["--sample-cost", "3"] if script is search_subnets else []
    with pytest.raises(InputError, match="there is no scale 'q'; right would be one of n, s"):
        script.main(script.parse(["--cfg", space, "--scale", "q", *more]))
