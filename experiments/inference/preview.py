"""Images of a detection set with their boxes, as a network sees them: letterboxed, or augmented."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.errors import InputError

from ..run.cli import run_script
from ..run.help import Parser
from ..run.options import add_options, made, parse_args, refuse_unfit
from .options import Preview

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MOST_PIXELS = 480  # of a picture on the sheet


def preview(options: Preview) -> Path:
    """Draw images of a split with boxes and class names onto one sheet, and write it.

    With `augment` they are those of an epoch of `train.py` with the same seed, side and `hyp`, pixel by pixel.

    Returns
    -------
    The file that was written.

    Raises
    ------
    InputError
        The data cannot be read, or the file is to be of another kind.
    """
    path = Path(options.out)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--out {options.out}: right would be a name that ends with {', '.join(_SUFFIXES)}")
    if options.augment and options.split != "train":
        raise InputError("--augment: only training images are augmented; right would be --split train")
    import numpy as np

    from data import detection

    from ..run.console import say
    from ..tasks.detect import hyp_of
    from .draw import draw_labels, save_sheet

    data = detection(
        options.data, options.imgsz, hyp_of(options), options.seed, options.classes, single=options.single_cls
    )
    split = data.train if options.split == "train" else data.val
    split.set_epoch(options.epoch - 1)
    names = dict(enumerate(data.names))
    chosen = np.linspace(0, len(split) - 1, min(options.images, len(split))).round().astype(int).tolist()
    items = [split[i] for i in chosen]
    pictures = [draw_labels(item.image.permute(1, 2, 0).numpy(), item.labels, names) for item in items]
    save_sheet(path, pictures, min(options.imgsz, _MOST_PIXELS))
    boxes = sum(len(item.labels) for item in items)
    say(str(split.report), f"{path}: {len(items)} images of {len(split):,} at {options.imgsz} pixels, {boxes} boxes")
    return path


def make_parser() -> Parser:
    parser = Parser(__doc__, "python -m experiments.inference.preview")
    add_options(parser, Preview)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    return parse_args(make_parser(), argv)


def main(args: argparse.Namespace) -> None:
    refuse_unfit(args, Preview)
    preview(made(Preview, args))


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
