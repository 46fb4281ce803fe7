"""Slices of a supernet beside the same networks trained alone: ``python -m benchmarks.slices --supernet RUN``.

Alone means from scratch, by the search's own recipe, on its images and for as many steps; a step of the supernet is
one of several subnets. Batch norm statistics are taken anew on training images for either.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--supernet", required=True, metavar="RUN", help="run of oneshot_nas.py --strategy bignas")
    add("--arch", nargs="+", default=["max", "upstream", "min"], help="max, min, upstream, or arch JSONs")
    add("--seed", type=int, default=0, help="of the weights that networks begin with alone")
    args = parser.parse_args()

    import pytorch_lightning as pl

    from experiments.run.lightning import quiet_lightning
    from experiments.supernets.subnets import cut_out, open_supernet, read_archs
    from experiments.tasks.resize import resolution_of
    from experiments.training.fit import train_alone
    from experiments.training.options import learning_of
    from models import count_flops, count_params

    quiet_lightning()
    supernet, task, options = open_supernet(args.supernet)
    saved, steps = vars(options), len(task.loader("weights"))
    archs = read_archs(args.arch, supernet.space, saved["imgsz"])
    print(
        f"{saved['cfg']} on {saved['data']}, {saved['imgsz']} pixels, {saved['epochs']} epochs of {steps} "
        f"batches of {saved['batch']}; torch {version('torch')}, {platform.processor() or platform.machine()}\n"
    )
    print("| arch | parameters | MFLOPs | slice as trained | slice, calibrated | trained alone | seconds alone |")
    print("|---|---|---|---|---|---|---|")
    for name, arch in archs.items():
        network = cut_out(supernet, task, arch)
        flops = count_flops(network, resolution_of(network, saved["imgsz"]), network.config.ch)
        slices = [task.measure(network, calibrated=calibrated) for calibrated in (False, True)]
        pl.seed_everything(args.seed, verbose=False)
        began = time.perf_counter()
        single = task.network(network.config.raw)
        train_alone(task, single, learning_of(options), options.epochs, "cpu", batch=options.batch, seed=args.seed)
        alone = task.measure(single)
        took = time.perf_counter() - began
        figures = " | ".join(f"{metric:.4f}" for metric in (*slices, alone))
        print(f"| {name} | {count_params(network):,} | {flops / 1e6:.1f} | {figures} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
