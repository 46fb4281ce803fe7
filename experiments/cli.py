"""How scripts end: bad input as one line and status 2, Ctrl-C as one line and status 130."""

from __future__ import annotations

import argparse
import os
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
        print(f"interrupted{f': {e}' if str(e) else ''}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        # Everything has been written by now. Threads of torch that were stopped in the middle of a step have been seen
        # to keep an ordinary exit waiting for ever, so there is none.
        os._exit(130)
    return 0
