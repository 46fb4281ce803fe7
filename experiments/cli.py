"""How scripts end: bad input as one line and status 2, Ctrl-C as one line and status 130."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from models.errors import InputError


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run `main`; the exit status."""
    try:
        main(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"interrupted{f': {e}' if str(e) else ''}", file=sys.stderr)
        return 130
    return 0
