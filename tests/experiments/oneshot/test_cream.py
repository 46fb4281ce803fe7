"""Cream's board, who teaches whom, and what the meta network learns; the contract of all is in test_strategies."""

import pytest
import torch
from torch import nn

from data import Batch
from experiments.oneshot.board import Board
from experiments.oneshot.cream import CreamModule, Lesson, MetaNetwork, _difference
from experiments.strategies import Cream
from experiments.tasks.evaluator import ClassificationModule, DataLoader, Detection
from experiments.training.distillation import DetectionMimic, SoftLabels
from spaces import NASDETECTOR
from spaces.active import Active
from tests.experiments.oneshot.test_strategies import Witness
from tests.experiments.strategies_toys import Planted, run, search, separable, trainer

A, B, C, D = (0, 0), (0, 1), (1, 0), (1, 1)


def on(board):
    return [entry.path for entry in board]


class TestBoard:
    def test_admits_what_is_better_and_the_worst_leaves(self):
        board = Board(2)
        for path, score in ((A, -1.0), (B, -3.0), (C, -4.0)):
            board.see(path, score, 5)
        assert on(board) == [A, B]
        board.see(C, -2.0, 5)
        assert on(board) == [A, C]
        board.see(D, -0.5, 500)
        assert on(board) == [D, A], "whatever it costs"

    def test_admits_what_is_as_good_and_cheaper(self):
        board = Board(2)
        board.see(A, -1.0, 5)
        board.see(B, -2.0, 5)
        board.see(C, -2.001, 5)
        assert on(board) == [A, B], "as good, and not cheaper"
        board.see(C, -2.1, 1)
        assert on(board) == [A, B], "cheaper, and not as good"
        board.see(C, -2.001, 4)
        assert on(board) == [A, C]

    def test_of_equals_the_dearest_leaves(self):
        board = Board(2)
        board.see(A, -1.0, 9)
        board.see(B, -1.0, 5)
        board.see(C, -0.9, 7)
        assert on(board) == [C, B]

    def test_scores_are_moving_averages(self):
        board = Board(3)
        for score in (4.0, 6.0, 2.0):
            board.see(A, score, 1)
        assert board.entries[0].score == pytest.approx(4.0), "the mean of the first few"
        for _ in range(3):
            board.see(A, 4.0, 1)
        board.see(A, 9.0, 1)
        assert board.entries[0].score == pytest.approx(5.0), "then a fifth of what is new"
        board.see(B, 8.0, 1)
        assert on(board) == [B, A]
        board.see(B, -8.0, 1)
        assert on(board) == [A, B], "one that was lucky falls behind"

    def test_state_is_all_of_it(self):
        board, again = Board(3), Board(3)
        for path, score in ((A, 1.0), (B, 2.0), (A, 3.0)):
            board.see(path, score, 4)
        again.load(board.state())
        assert again.entries == board.entries


def small(good=(0, 2)):
    """Three candidates a decision, all of which compute."""
    return Planted(good, lambda g: [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Identity()])


@pytest.fixture
def module():
    """A module on a supernet in float64, without a trainer; its board has two paths."""
    torch.manual_seed(0)
    strategy = Cream(board=3)
    net = strategy.mutate_model(small())
    training = ClassificationModule()
    training.log = lambda *_, **__: None
    training.set_model(net)
    found = strategy.configure_oneshot_module(training).double()
    found._distillation, found.log = SoftLabels(), lambda *_, **__: None
    found.trainer = type("Alone", (), {"world_size": 1})()
    found.weights_optimizer = lambda: type("Sgd", (), {"param_groups": [{"lr": 0.3}]})()
    for path, score in (((0, 1), -1.0), ((1, 1), -2.0)):
        found.board.see(path, score, 1)
    return found


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 8, generator=generator, dtype=torch.float64)
    return {"train": (x[0], torch.arange(12) % 2), "val": (x[1], torch.arange(12) // 6)}


def logits(module, path, x):
    module.take(path)
    return module.model(x).detach()


class TestLessons:
    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_teacher_is_whom_the_meta_network_takes_for_best_and_weighs_what_it_says(self, module, batch, sign):
        x = batch["train"][0]
        with torch.no_grad():
            for p in module.meta.parameters():
                p.mul_(3)
            module.meta.layers[-1].weight.mul_(sign)
        own = logits(module, (2, 2), x[:8])
        scores = {e.path: module.meta((logits(module, e.path, x[:8]) - own).flatten()).item() for e in module.board}
        best = max(scores, key=scores.get)
        lesson = module.lesson((2, 2), batch["train"], 0)
        assert lesson.path == best
        assert float(lesson.weight) == pytest.approx(torch.tensor(scores[best]).sigmoid().item())
        assert min(scores.values()) < scores[best] - 1e-3
        torch.testing.assert_close(lesson.output, logits(module, best, x))

    def test_no_path_teaches_itself(self, module, batch):
        assert module.lesson((0, 1), batch["train"], 0).path == (1, 1)
        module.board.entries = module.board.entries[:1]
        assert module.lesson((0, 1), batch["train"], 0) is None

    def test_the_loss_is_that_of_labels_and_by_its_weight_that_of_the_lesson(self, module, batch):
        lesson = module.lesson((2, 2), batch["train"], 0)
        (loss,) = module._losses((2, 2), lesson, batch["train"], 0)
        x, y = batch["train"]
        own = logits(module, (2, 2), x)
        labels, soft = nn.functional.cross_entropy(own, y), SoftLabels()(own, lesson.output)
        assert float(loss.detach()) == pytest.approx(float(labels + lesson.weight * soft))
        assert float(soft) > 0
        (alone,) = module._losses((2, 2), None, batch["train"], 0)
        assert float(alone.detach()) == pytest.approx(float(labels))

    def test_the_gradient_of_the_meta_network_is_that_of_the_step_looked_ahead(self, module, batch):
        module._distillation = nn.MSELoss()  # that of classes is in single precision
        path, lesson = (2, 1), module.lesson((2, 1), batch["train"], 0)
        weights = [*module.model.parameters()]
        before = [w.detach().clone() for w in weights]
        found = module.meta_gradient(path, lesson, batch, 0)
        assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True)), "weights are put back"

        def ahead():
            """The held-out loss after a step by the weight that the meta network gives now."""
            again = lesson._replace(score=module.meta(lesson.difference).detach())
            (loss,) = module._losses(path, again, batch["train"], 0)
            step = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            with torch.no_grad():
                for w, g in zip(weights, step, strict=True):
                    w -= 0.3 * g
                module.take(path)
                value = float(module.loss(batch["val"], 0, None))
                for w, old in zip(weights, before, strict=True):
                    w.copy_(old)
            return value

        largest = 0.0
        for parameter, gradient in zip(module.meta.parameters(), found, strict=True):
            for i in range(0, parameter.numel(), 5):
                sides = []
                for h in (1e-4, -1e-4):
                    parameter.data.view(-1)[i] += h
                    sides.append(ahead())
                    parameter.data.view(-1)[i] -= h
                numeric = (sides[0] - sides[1]) / 2e-4
                assert float(gradient.reshape(-1)[i]) == pytest.approx(numeric, rel=1e-3, abs=1e-9)
                largest = max(largest, abs(numeric))
        assert largest > 1e-6

    def test_the_meta_network_learns_to_tell_who_helps(self, module, batch):
        """A teacher who is sure, and right, and one who is not sure, and wrong."""
        x, y = batch["train"]
        batch = {"train": batch["train"], "val": batch["train"]}
        signs = nn.functional.one_hot(y, 2) * 2.0 - 1
        outputs = {(0, 1): 4 * signs, (1, 1): -signs / 2}
        optimizer = torch.optim.Adam(module.meta.parameters(), 0.05)
        weights = {}
        for _ in range(25):
            for path, output in outputs.items():
                difference = _difference(output, logits(module, (2, 2), x))
                with torch.no_grad():
                    lesson = Lesson(path, output, difference, module.meta(difference))
                gradient = module.meta_gradient((2, 2), lesson, batch, 0)
                for p, g in zip(module.meta.parameters(), gradient, strict=True):
                    p.grad = g
                optimizer.step()
                weights[path] = float(lesson.weight)
        assert weights[0, 1] > 0.7
        assert weights[1, 1] < 0.4


def test_differences_of_maps_are_evenly_spaced_ones():
    maps = [torch.rand(2, 3, 20, 20, 8), torch.rand(2, 3, 10, 10, 8)]
    found = _difference(maps, [torch.zeros_like(m) for m in maps])
    step = (19200 + 4800) // 4096 | 1
    assert step == 5
    assert torch.equal(found, torch.cat([m.flatten() for m in maps])[::5])
    assert MetaNetwork()(found).shape == ()


def test_paths_are_drawn_within_the_limits():
    class Few:
        def __init__(self, allowed):
            self.allowed = allowed

        def feasible(self, archs):
            return [tuple(arch.values()) in self.allowed for arch in archs]

        def cheapest(self):
            return {"b": 7, "a": 0, "elsewhere": 1}

    choices = {"a": (0, 1), "b": (5, 6, 7)}
    module = CreamModule(ClassificationModule(), Active(), choices, Few({(0, 5), (1, 7)}))
    assert {module.drawn() for _ in range(60)} == {(0, 0), (1, 2)}
    module.budget = Few(set())
    assert module.drawn() == (0, 2), "the cheapest where none is found"
    assert module.candidates() == [{"a": 0, "b": 7}]


def test_nobody_teaches_before_the_warmup_is_over(monkeypatch):
    taught, lesson = [], CreamModule.lesson

    def watched(self, *args):
        found = lesson(self, *args)
        taught.append((self.current_epoch, found is not None))
        return found

    monkeypatch.setattr(CreamModule, "lesson", watched)
    search("cream", epochs=3, warmup_epochs=1)
    assert [epoch for epoch, _ in taught] == [1, 1, 2, 2]
    assert any(found for _, found in taught)


def test_the_result_is_the_best_rated_of_the_board():
    asked = []

    def rate(arch):
        asked.append(tuple(arch.values()))
        return float(sum(asked[-1]))

    strategy = search("cream", space=small, data=separable(32), epochs=4, rate=rate)
    board = strategy.oneshot_module.board
    assert len(board) == 5
    assert asked == [
        strategy.oneshot_module.choices and tuple(strategy.oneshot_module.arch_of(e.path).values()) for e in board
    ]
    assert sum(strategy.oneshot_module.export().values()) == max(map(sum, asked))


def test_detectors_learn_by_the_mimic_loss(monkeypatch):
    calls, call = [], DetectionMimic.__call__

    def counted(self, student, teacher):
        calls.append([t.shape for t in teacher])
        return call(self, student, teacher)

    monkeypatch.setattr(DetectionMimic, "__call__", counted)
    cfg = {
        **{"nc": 3, "anchors": [[4, 5, 6, 8]], "resolution": {"choice": [16, 24]}},
        "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}, {"choice": [3, 5]}, 2]], [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    items = [(p, torch.tensor([i % 3, 0.5, 0.5, 0.4, 0.5])) for i, p in enumerate(pictures)]

    def collate(items):
        targets = torch.stack([torch.cat((torch.tensor([i]), label)) for i, (_, label) in enumerate(items)])
        return Batch(torch.stack([image for image, _ in items]), targets.float(), ())

    loaders = [DataLoader(items, batch_size=4, collate_fn=collate) for _ in range(2)]
    given = {"train_dataloaders": loaders[0], "val_dataloaders": loaders[1]}
    torch.manual_seed(0)
    witness = Witness()
    strategy = run(
        Cream(meta_every=1), NASDETECTOR(cfg), Detection(["a", "b", "c"], 16, **given, **trainer(6, [witness]))
    )
    assert len(calls) > 12, "the meta network's look ahead has one too"
    assert {shapes[0][2:4] for shapes in calls} == {(4, 4), (6, 6)}
    assert "meta.layers.2.weight" in witness.moved
    assert all(p.isfinite().all() for p in strategy.oneshot_module.parameters())
