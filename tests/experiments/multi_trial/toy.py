"""A space of 729 archs that are no two alike, for the multi-trial strategies."""

from spaces.nni_compat import FunctionalEvaluator, ModelSpace, SimplifiedModelSpace, ensure_frozen, nni

DECISIONS = 6
BEST = (2, 0, 1, 1, 0, 2)


class Toy(ModelSpace):
    """Six decisions of three values."""

    def __init__(self):
        super().__init__()
        choices = [nni.choice(f"d{i}", ["a", "b", "c"]) for i in range(DECISIONS)]
        self.arch = [ensure_frozen(self.add_mutable(choice)) for choice in choices]


def indices(arch):
    return tuple("abc".index(v) for v in arch)


def accuracy(arch):
    """Best at `BEST`; no two archs are alike."""
    hits = [a == b for a, b in zip(indices(arch), BEST, strict=True)]
    return 0.9 + 0.1 * sum(hits) / DECISIONS + 1e-5 * sum(2**i * h for i, h in enumerate(hits)) / 2**DECISIONS


def flops(arch):
    return float(sum(indices(arch)))


def report(model):
    nni.report_final_result({"default": accuracy(model.arch), "flops": flops(model.arch)})


def space(function=report):
    return SimplifiedModelSpace.from_model(Toy(), FunctionalEvaluator(function))
