"""Images of one colour each, by which one can tell from a network's input which of them it is shown."""

from collections import defaultdict
from contextlib import contextmanager

import cv2
import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from models import Classifier, Model
from spaces import NASBACKBONE, NASDETECTOR

NETWORKS = (Classifier, Model, NASBACKBONE, NASDETECTOR)
SIDE, NUM_TRAIN, NUM_VAL = 32, 12, 4
# OpenCV's hues run from 0 to 179. Augmentation multiplies them by 1.5 % at most, which is less than 3.
_APART, _TOLERANCE = 10, 4
TRAIN = frozenset(range(NUM_TRAIN))
VAL = frozenset(range(NUM_TRAIN, NUM_TRAIN + NUM_VAL))


def _picture(k):
    """uint8 (SIDE, SIDE, 3) BGR."""
    hue = np.full((SIDE, SIDE, 3), (_APART // 2 + _APART * k, 255, 200), np.uint8)
    return cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)


def _save(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), _picture(k))


def classify_set(folder):
    """Two classes; the images of the test split are none."""
    for k in sorted(TRAIN | VAL):
        _save(folder / ("train" if k in TRAIN else "val") / "ab"[k % 2] / f"{k}.png", k)
    for name in "ab":
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "poison.png").write_text("not to be opened")
    return folder


def detect_set(folder):
    """One box an image, of two classes; the images and labels of the test split are none."""
    for k in sorted(TRAIN | VAL):
        split = "train" if k in TRAIN else "val"
        _save(folder / "images" / split / f"{k}.png", k)
        label = folder / "labels" / split / f"{k}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{k % 2} 0.5 0.5 0.6 0.6\n")
    for part, suffix in (("images", "png"), ("labels", "txt")):
        (folder / part / "test").mkdir(parents=True)
        (folder / part / "test" / f"poison.{suffix}").write_text("not to be opened")
    content = {split: f"images/{split}" for split in ("train", "val", "test")}
    (folder / "data.yaml").write_text(yaml.safe_dump({**content, "names": ["a", "b"]}))
    return folder / "data.yaml"


def landmarks_set(folder):
    """Two points an image; the test split is none."""
    for split, own in (("train", TRAIN), ("val", VAL)):
        for k in sorted(own):
            _save(folder / f"{k}.png", k)
        rows = "".join(f"{k}.png,4,4,28,{20 + 8 * (k % 2)}\n" for k in sorted(own))
        (folder / f"{split}.csv").write_text(f"image,x0,y0,x1,y1\n{rows}")
    content = {"format": "csv", "train": "train.csv", "val": "val.csv", "normalise": [0, 1], "crop": None}
    (folder / "set.yaml").write_text(yaml.safe_dump(content))
    return folder / "set.yaml"


def seen_in(images):
    """Which sentinels a network's input, (N, 3, H, W) in [0, 1], shows in 3 x 3 pixels or more."""
    found = set()
    for image in (images.detach().permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy():
        hue, saturation, _ = cv2.split(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV))
        for k in TRAIN | VAL:
            near = abs(hue.astype(int) - (_APART // 2 + _APART * k)) <= _TOLERANCE
            # Where two images meet, pixels between them may have the hue of a third one.
            if cv2.erode((near & (saturation > 40)).astype(np.uint8), np.ones((3, 3)), borderValue=0).any():
                found.add(k)
    return found


class Witness:
    """What networks were shown, by what came of it.

    Attributes
    ----------
    weights, architecture
        Sentinels behind a step of an optimiser of a network's own parameters, or of others.
    statistics
        Behind the statistics of batch norms alone.
    looked
        Behind outputs alone: in training mode, without gradients and without a trace in the statistics.
    rated, measured
        What was looked at in eval mode, for a search to go by; and by a task's `measure`.
    """

    def __init__(self):
        self._by, self._pending, self._parameters, self.measuring = defaultdict(set), set(), set(), False

    def forward(self, module, inputs):
        if not isinstance(module, NETWORKS) or inputs[0].is_meta or not (seen := seen_in(inputs[0])):
            return  # what is counted or timed is shown no image
        layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [m.training for m in layers]
        if module.training and not torch.is_grad_enabled() and layers and not any(m.momentum for m in layers):
            self._by["looked"] |= seen
        elif module.training:
            self._parameters |= {id(p) for p in module.parameters()}
            self._pending |= seen  # an optimiser's step will say for what
        else:
            self._by["statistics" if any(norms) else "measured" if self.measuring else "rated"] |= seen

    def step(self, optimizer, *_):
        own = any(id(p) in self._parameters for group in optimizer.param_groups for p in group["params"])
        self._by["weights" if own else "architecture"] |= self._pending
        self._pending = set()

    def __getattr__(self, name):
        if name not in ("weights", "architecture", "statistics", "looked", "rated", "measured"):
            raise AttributeError(name)
        return self._by[name]

    def finish(self):
        self._by["statistics"] |= self._pending  # in training mode, with no step to follow
        self._pending = set()


@contextmanager
def watched(task_class):
    """The block's forwards, as a `Witness`."""
    witness, measure = Witness(), task_class.measure

    def measuring(self, *args, **kwargs):
        witness.measuring = True
        try:
            return measure(self, *args, **kwargs)
        finally:
            witness.measuring = False

    handles = [register_module_forward_pre_hook(witness.forward), register_optimizer_step_post_hook(witness.step)]
    task_class.measure = measuring
    try:
        yield witness
    finally:
        task_class.measure = measure
        for handle in handles:
            handle.remove()
        witness.finish()
