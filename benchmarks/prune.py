"""A pruned and finetuned detector beside networks of its cost: ``python -m benchmarks.prune --seeds 3``.

From each seed `train.py` trains the detector, `prune.py` takes shares of it away by each method and finetunes; the
network that this leaves is trained from scratch as well, for as many epochs as both together, and so is a searched one
(``--searched YAML``, of equal FLOPs) if it is given. Epochs are picked on the validation images, what is compared is
measured once on the test images. What is there is not done again, and what is half done is gone on with.
"""

from __future__ import annotations

import argparse

from benchmarks.trainings import Trainings, add_options, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg", default="yolov5n.yaml", metavar="YAML")
    add("--sparsity", nargs="+", type=float, default=[0.25, 0.5])
    add("--methods", nargs="+", default=["l1", "fpgm", "taylor", "random"])
    add("--scope", default="global", choices=["global", "layer"])
    add("--finetune", type=int, default=50, help="epochs of finetuning, over all --steps")
    add("--steps", type=int, default=1)
    add("--searched", nargs="*", default=[], metavar="YAML", help="of a search, to be trained from scratch too")
    add_options(parser, "runs/prune_benchmark")
    args = parser.parse_args()

    done = Trainings(args)
    rows: dict[str, dict[int, dict[str, float]]] = {}
    pairs: list[tuple[str, str]] = []
    for seed in range(args.seeds):
        whole = done.train(f"whole-seed{seed}", "--cfg", args.cfg, "--seed", seed)
        rows.setdefault("whole", {})[seed] = done.test(whole)
        for sparsity in args.sparsity:
            for method in args.methods:
                name = f"{method}-{sparsity:g}"
                more = ["--sparsity", sparsity, "--method", method, "--scope", args.scope, "--seed", seed]
                more += ["--steps", args.steps, "--epochs", max(args.finetune // args.steps, 1)]
                run = done.prune(f"{name}-seed{seed}", whole / "detector.pt", *more)
                rows.setdefault(name, {})[seed] = done.test(run)
                again, epochs = f"{name}-scratch", args.epochs + args.finetune
                given = ("--cfg", run / "detector.yaml", "--seed", seed, "--epochs", epochs)
                rows.setdefault(again, {})[seed] = done.test(done.train(f"{again}-seed{seed}", *given))
                pairs += [(name, again)] if seed == 0 else []
        for i, cfg in enumerate(args.searched):
            given = ("--cfg", cfg, "--seed", seed, "--epochs", args.epochs + args.finetune)
            rows.setdefault(f"searched{i}", {})[seed] = done.test(done.train(f"searched{i}-seed{seed}", *given))
    done.table(rows)
    for name, again in pairs:
        differences(rows, again, [name, *(f"searched{i}" for i in range(len(args.searched)))])


if __name__ == "__main__":
    main()
