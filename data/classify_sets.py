"""Names of the classification sets. Loads no torch."""

from pathlib import Path

from models.errors import InputError

SETS = ("digits", "cluttered-digits", "fashion-mnist", "cifar10", "imagenette", "tinyimagenet")


def check_set(name: str | Path) -> None:
    """`InputError` if this is neither a set's name nor a folder."""
    if name not in SETS and not Path(name).is_dir():
        raise InputError(f"{name}: no such data set or folder; take one of {', '.join(SETS)} or a folder of images")
