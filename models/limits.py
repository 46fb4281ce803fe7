"""How much is too much: what no file, row or option of sense has, with the reason. Loads nothing.

Readers look here before anything is built, so that a slip of the keyboard, a damaged file or somebody's joke is a line
on the screen and not a machine that swaps. Each stands far above what this project ships or people have been seen to
have.
"""

# A text that people write: model YAMLs have 20 kB at most, a data.yaml with ImageNet's 21,841 names half a MB.
TEXT_BYTES = 1 << 20
# What programs write as JSON or CSV: tables of latencies, results, archs of a search. (COCO's files have no limit.)
JSON_BYTES = 64 << 20
# Values of one document with its aliases written out: 21,841 names by number are 43,683. PyYAML reads 20,000 a second.
NODES = 100_000
# Levels of a document within one another; a model YAML with choices has 6. Python's own end is at 1,000.
DEPTH = 50
# Whole numbers: what PyTorch and NumPy count with, and digits that can be written at all.
INTEGER = 2**63 - 1
DIGITS = 100
# The data.pkl in a file of torch.save, without the tensors: an upstream checkpoint has 0.2 MB.
PICKLE_BYTES = 16 << 20
# Values in it, aliases written out: a last.ckpt notes every epoch's metrics and probabilities.
PICKLE_NODES = 3_000_000

# Rows of a YAML (YOLOv9e has 43), and repeats in all its rows after the depth multiple (YOLOv5x6 has 79).
ROWS = 1000
REPEATS = 2000
# Input channels: hyperspectral cameras have some hundreds.
CHANNELS_IN = 4096
# Classes: ImageNet-21k has 21,841.
CLASSES = 100_000
# Values of one decision, and decisions of a space: the largest one here has 16 and 60.
VALUES = 1000
DECISIONS = 1000
# Parameters of a network, 1 GiB of float32 (YOLOv5's P7 with width x has 144 million), and of a supernet, which holds
# the blocks side by side (the backbone of YOLOv5x: 374 million).
PARAMETERS = 2**28
SUPERNET_PARAMETERS = 2**30
# Tensors that are made for either, each of which takes time however small: for YOLOv9e 1,514, for YOLOv8n's elastic
# supernet 13,621.
TENSORS = 10_000
SUPERNET_TENSORS = 200_000
# Modules in a checkpoint of others.
MODULES = 50_000

# Side of an image in pixels: 1 GiB as uint8. Pillow warns of less.
SIDE = 16_384
# Processes of one machine, threads of one network: beyond, operating systems and OpenMP end the process without a word.
PROCESSES = 256
THREADS = 256
# Images of a batch: the largest in use (LARS) was 65,536.
BATCH = 65_536
# Archs that are drawn or evaluated: what fits into memory beside their costs.
ARCHS = 10_000_000
# Other numbers of options: what 32 bits count.
COUNT = 2**31 - 1
# Seconds to wait for something: a day. Python's own end is at 292 years, and NaN waits for ever.
SECONDS = 86_400.0
