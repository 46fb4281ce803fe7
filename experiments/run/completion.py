"""Completion of ``nas`` and its scripts' options in bash and zsh. Loads no torch."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable
from typing import Any

from models.errors import InputError

from .options import filled

SHELLS = ("bash", "zsh")


def completion(shell: str, names: Iterable[str]) -> str:
    """A script for the shell that completes ``nas NAME --option`` of the scripts of these names, and files.

    Raises
    ------
    InputError
        There is no such shell, or the package shtab is missing.
    """
    if shell not in SHELLS:
        raise InputError(f"nas completion {shell}: right would be one of {', '.join(SHELLS)}")
    try:
        import shtab
    except ImportError:
        raise InputError("nas completion: the package shtab is missing; right would be: pip install shtab") from None
    nas = argparse.ArgumentParser("nas")
    commands = nas.add_subparsers()
    for name in names:
        parser = importlib.import_module(name).make_parser()
        for action in parser._actions:
            if action.type is filled and not action.choices:
                action.complete = shtab.FILE  # a path, as most are
        known: dict[str, Any] = {"parents": [parser], "add_help": False, "help": parser.description}
        commands.add_parser(name.replace("_", "-"), **known)
    script: str = shtab.complete(nas, shell)
    return script
