"""Names of the sets of classes and of landmarks. Loads no torch."""

from pathlib import Path

from models.errors import InputError

from .places import PROJECT, direct, listed

SETS = ("digits", "cluttered-digits", "fashion-mnist", "cifar10", "imagenette", "tinyimagenet")

LANDMARKS = "digits-landmarks"  # of `data.landmarks`
# What is taken where no data are named, by the kind of a file of weights.
BUILT_IN = {"classifier": "digits", "landmarks": LANDMARKS, "detector": "digits-detect"}


def check_set(name: str | Path) -> None:
    """`InputError` if this is neither a set's name nor a folder."""
    if name not in SETS:
        set_folder(name)


def set_folder(name: str | Path) -> Path:
    """The folder of a set of images, looked for from here and below the project's folder."""
    tried = direct(str(name), [Path(), PROJECT]) if str(name).strip() else []
    for place in tried:
        if place.is_dir():
            return place
    right = f"take one of {', '.join(SETS)} or a folder of images"
    raise InputError(f"{name}: no such data set or folder; {right}; tried {listed(tried)}")
