"""The anchor-free head beside the anchor-based one: ``python -m benchmarks.heads --imgsz 320 --epochs 100 --seeds 3``.

Each network is trained from scratch by `train.py`, for as many epochs and from as many seeds, on BCCD unless told
otherwise; the epoch is picked on the validation images, what is compared is measured once on the test images. Networks
that do not build here are named and left out. Trainings that are done, or half done, are not begun anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.trainings import Trainings, add_options, differences

NETWORKS = ("yolov5n.yaml", "yolov5n_dfl.yaml", "yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")


def milliseconds(cfg: str, args: argparse.Namespace) -> str:
    """Of an image as exported, without non-maximum suppression, in ONNX Runtime on one thread."""
    from experiments.costs.latency import Latency
    from models.errors import InputError
    from models.grammar import read_config
    from spaces import Space

    try:
        return f"{Latency(Space(read_config(cfg)), args.imgsz, 'onnxruntime', threads=1)([{}])[0]:.1f} ms"
    except InputError as e:
        return f"latency is not measured: {e}"


def builds(cfg: str) -> bool:
    """Whether a network is there and can be built; if not, why is said."""
    from models import InputError, Model

    try:
        Model(cfg)
    except InputError as e:
        print(f"{cfg}: left out: {e}", file=sys.stderr)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="YAML")
    add_options(parser, "runs/heads")
    args = parser.parse_args()

    done = Trainings(args)
    rows: dict[str, dict[int, dict[str, float]]] = {}
    networks = [cfg for cfg in args.networks if builds(cfg)]
    for seed in range(args.seeds):  # every network once before any twice
        for cfg in networks:
            run = done.train(f"{Path(cfg).stem}-seed{seed}", "--cfg", cfg, "--seed", seed)
            rows.setdefault(cfg, {})[seed] = done.test(run)
    done.table(rows)
    differences(rows, networks[0], networks)
    print("\nAs exported, an image, one thread of ONNX Runtime:")
    for cfg in networks:
        print(f"{cfg}: {milliseconds(cfg, args)}")


if __name__ == "__main__":
    main()
