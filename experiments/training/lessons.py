"""What a network learns from another, trained one while it is trained: `train.py --teacher`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, load_classifier
from models.grammar import Config
from models.head import Head
from models.heads import Detect
from models.network import Network
from models.upstream import load_weights

from ..tasks.module import TaskModule
from .distillation import ChannelWise, Distillation, SameOutputs, SoftLabels, Tap, can_mimic, mimic_of

# Between the largest probability of a class and 0 or 1, so that its logit is finite.
_EPS = 1e-6


class Teacher:
    """A trained network, in eval mode, and the file that it is from."""

    def __init__(self, network: Network, file: str) -> None:
        self.network, self.file = network.eval().requires_grad_(False), file

    def error(self, message: str) -> InputError:
        return InputError(f"--teacher {self.file}: {message}")

    def anchors(self, config: Config) -> list[list[float]] | None:
        """The teacher's anchors in pixels, where they can be those of a detector of `config`."""
        if not isinstance(self.network, Model) or not isinstance(head := self.network.head, Detect):
            return None
        levels = config.rows[-1].sources
        if config.num_anchors != head.na or len(levels) != head.nl or config.rows[-1].module != "Detect":
            return None
        pixels = (head.anchors * head.stride.view(-1, 1, 1)).flatten(1).tolist()
        return [[round(v, 4) for v in level] for level in pixels]

    def classes(self, names: Sequence[str]) -> list[int]:
        """The teacher's index of each class, by its name."""
        of = getattr(self.network, "names", {})
        known = {name: i for i, name in (of.items() if isinstance(of, dict) else enumerate(of))}
        if unknown := [name for name in names if name not in known]:
            raise self.error(
                f"does not know the class '{unknown[0]}'; it knows {', '.join(map(str, known))}; right would be a "
                "teacher of all classes of the data, or --distill features"
            )
        return [known[name] for name in names]


def read_teacher(path: str | Path, kind: type[Network]) -> Teacher:
    """The network of a file, which is to be of a kind: `Model` or `Classifier`."""
    try:
        network: Network = (load_classifier if is_classifier(path) else load_weights)(path)[0]
    except InputError as e:
        raise InputError(f"--teacher {e}") from None
    teacher = Teacher(network, str(path))
    if not isinstance(network, kind):
        right = "a detector.pt" if kind is Model else "a classifier.pt"
        raise teacher.error(f"does another task than this; right would be {right}")
    return teacher


class Lessons(nn.Module):
    """The loss of a network against its teacher, and the weights that it needs beside theirs.

    Parameters
    ----------
    teacher
        Sees what the network sees, in eval mode and without gradients.
    logits
        What the outputs are compared by; they have only `classes` of the teacher.
    features
        What the maps at `rows` of the student and of the teacher are compared by.
    weight
        Of both together, beside the labels' loss.
    """

    def __init__(
        self,
        teacher: Network,
        logits: Distillation | None,
        features: ChannelWise | None,
        rows: tuple[Sequence[int], Sequence[int]],
        classes: Sequence[int],
        weight: float,
    ) -> None:
        super().__init__()
        self._teacher = (teacher,)  # in a tuple it is no part of this module, nor of checkpoints
        self._logits, self.features, self._rows = logits, features, rows
        self._classes, self._weight = list(classes), weight

    @classmethod
    def of(cls, teacher: Teacher, student: Any, options: Any) -> Lessons:
        """As the options of a training say.

        Raises
        ------
        InputError
            The teacher's outputs, or features, cannot be compared with the student's.
        """
        of_logits, of_features = options.distill in ("logits", "both"), options.distill in ("features", "both")
        network: Any = teacher.network
        classes: list[int] = []
        multiple = int(cast(Any, network).imgsz_multiple)
        if options.imgsz and options.imgsz % multiple:
            raise teacher.error(f"takes images of a multiple of {multiple} pixels, and --imgsz is {options.imgsz}")
        logits: Distillation | None = None
        if of_logits:
            classes = teacher.classes([student.names[i] for i in range(student.config.nc)])
            logits = _logits_of(teacher, student, options)
        features: ChannelWise | None = None
        rows: tuple[Sequence[int], Sequence[int]] = ((), ())
        if of_features:
            rows = _rows_of(teacher, student)
            pairs = [(student.channels[a], network.channels[b]) for a, b in zip(*rows, strict=True)]
            features = ChannelWise(pairs)
        return cls(network, logits, features, rows, classes, options.distill_weight)

    def loss(self, learner: TaskModule, batch: Any, batch_idx: int) -> Tensor:
        """Of a batch: the labels' and the teacher's."""
        student, teacher = learner.model, self._teacher[0]
        with Tap(student, self._rows[0]) as own:
            loss = cast(Tensor, learner.training_step(batch, batch_idx))
        inputs = cast(Any, learner).inputs(batch)
        if next(teacher.parameters()).device != inputs.device:
            teacher.to(inputs.device)
        with torch.no_grad(), Tap(teacher, self._rows[1]) as given:
            teacher(inputs)
        images = len(inputs) if learner.sums_loss else 1  # a detection loss is a sum over images
        lesson = loss.new_zeros(())
        if self._logits is not None:
            # Which is such a sum itself.
            lesson = lesson + self._logits(own.output, self._of_classes(given.output))
        if self.features is not None:
            lesson = lesson + self.features(own.features, given.features) * images
        cast(Any, learner).log(
            "train_distill", lesson.detach() / images, on_step=False, on_epoch=True, batch_size=len(inputs)
        )
        return loss + self._weight * lesson

    def _of_classes(self, output: Any) -> Any:
        """The teacher's output with the student's classes, in their order."""
        if isinstance(output, Tensor):
            return output[:, self._classes]
        head = cast(Head, self._teacher[0].head)
        if isinstance(head, Detect) and len(self._classes) < head.nc:
            output = [_seen_as(level, self._classes, head.nc) if level.ndim == 5 else level for level in output]
        return [head.with_classes(level, self._classes) for level in output]


def _seen_as(level: Tensor, classes: Sequence[int], nc: int) -> Tensor:
    """(…, 5 + nc + k) logits, with objectness as large a part of what it was as one of the classes is of the likeliest.

    An object of a class that the student does not know is none to it.
    """
    of_classes = level[..., 5 : 5 + nc].float().sigmoid()
    part = of_classes[..., list(classes)].amax(-1) / of_classes.amax(-1).clamp_min(_EPS)
    seen = (level[..., 4].float().sigmoid() * part).clamp(_EPS, 1 - _EPS)
    level = level.clone()
    level[..., 4] = seen.logit().to(level.dtype)
    return level


def _logits_of(teacher: Teacher, student: Any, options: Any) -> Distillation:
    if not isinstance(student, Model):
        return SameOutputs() if student.landmarks else SoftLabels(options.distill_temperature)
    head, own = cast(Any, teacher.network).head, student.head
    if type(head) is not type(own):
        raise teacher.error(
            f"has the head {type(head).__name__}, and what is trained has {type(own).__name__}; right would be "
            "--distill features"
        )
    _same_strides(teacher, own.stride.tolist(), head.stride.tolist())
    loss = own.loss(options.imgsz)
    if not own.sees_like(head) or not can_mimic(loss):
        raise teacher.error(
            "its head speaks of other boxes (anchors, reg_max or end2end) than that of what is trained; right would be "
            "--distill features"
        )
    return mimic_of(loss, temperature=options.distill_temperature)


def _rows_of(teacher: Teacher, student: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Rows whose maps are compared: those that the heads see; of a classifier the last."""
    if not isinstance(student, Model):
        rows = len(student.model) - 1, len(teacher.network.model) - 1
        sides = [network.reductions()[row] for network, row in zip((student, teacher.network), rows, strict=True)]
        _same_strides(teacher, *([side] for side in sides))
        return rows[:1], rows[1:]
    head, own = cast(Any, teacher.network).head, student.head
    _same_strides(teacher, own.stride.tolist(), head.stride.tolist())
    return student.config.rows[-1].sources, teacher.network.config.rows[-1].sources


def _same_strides(teacher: Teacher, own: list[float], theirs: list[float]) -> None:
    if own != theirs:
        written = [", ".join(f"{s:g}" for s in strides) for strides in (theirs, own)]
        raise teacher.error(
            f"has maps of strides {written[0]}, and what is trained of {written[1]}; right would be the same"
        )
