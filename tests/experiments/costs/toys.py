"""A provider that says who was asked. Loads no torch: processes are started with it."""

from experiments.costs import Cached


class Numbers:
    """Tells a figure that depends on who tells it."""

    name, unit = "latency", "ms"

    def __init__(self, own=1.0, barrier=None):
        self.settings, self.own, self.barrier = {"device": "x"}, own, barrier

    def __call__(self, archs):
        if self.barrier:
            self.barrier.wait()
        return [self.own + arch["i"] for arch in archs]


def measure(path, own, barrier, queue):
    queue.put(Cached(Numbers(own, barrier), path)([{"i": i} for i in range(600)]))
