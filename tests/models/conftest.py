"""One thread: the tests share a small machine, and sums must not depend on how many cores it has."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # for refusal.py, in every import mode of pytest
torch.set_num_threads(1)
