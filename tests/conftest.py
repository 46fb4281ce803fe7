"""One thread a test process: the suite runs two of them, and sums must not depend on how many cores there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

from spaces import nni_compat  # NNI's repairs, before any test imports it

assert nni_compat.nni is not None
torch.set_num_threads(1)
