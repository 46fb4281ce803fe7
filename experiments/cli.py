"""What the scripts share: types of options, and how a script ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from models.errors import InputError


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run `main`: 0, or 2 after bad input and 130 after Ctrl-C, with one line that says so."""
    try:
        main(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"interrupted{f': {e}' if str(e) else ''}", file=sys.stderr)
        return 130
    return 0


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {value}")
    return value
