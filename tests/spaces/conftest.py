"""The helpers of tests/spaces and tests/models can be imported, in every import mode of pytest."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "models")]
