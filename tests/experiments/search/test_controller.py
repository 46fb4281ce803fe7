"""The LSTM controller of ENAS and its REINFORCE step."""

import itertools
import math
import time

import pytest
import torch

from experiments.search.controller import Controller, Reinforce

SIZES = (3, 1, 2, 4)


def controller(sizes=SIZES, **settings):
    torch.manual_seed(0)
    return Controller(sizes, **settings)


def everything(sizes=SIZES):
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def spread(net):
    """Weights large enough that decisions depend on one another."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(20)
    return net


def test_probabilities_of_all_archs_sum_to_one():
    net = spread(controller())
    p = net.log_prob(everything()).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert p.max() > 2 * p.min()


def test_samples_as_often_as_it_says():
    net = spread(controller())
    drawn, log_prob, entropy = net.sample(5_000, torch.Generator().manual_seed(1))
    assert drawn.shape == (5_000, 4)
    assert log_prob.shape == entropy.shape == (5_000,)
    archs = everything()
    seen = (drawn[:, None] == archs).all(2).float().mean(0)
    torch.testing.assert_close(seen, net.log_prob(archs).exp(), atol=0.03, rtol=0)
    torch.testing.assert_close(log_prob, net.log_prob(drawn))
    # The mean of the entropy on the way is the entropy of the whole.
    exact = -(net.log_prob(archs).exp() * net.log_prob(archs)).sum()
    assert entropy.mean().item() == pytest.approx(exact.item(), abs=0.05)
    for i, p in enumerate(net.marginals(1000, torch.Generator().manual_seed(2))):
        exact = torch.stack([net.log_prob(archs[archs[:, i] == v]).exp().sum() for v in range(SIZES[i])])
        torch.testing.assert_close(p, exact, atol=0.03, rtol=0)


def test_gradient_of_log_prob_is_that_of_finite_differences():
    net = spread(controller((2, 3), hidden=3)).double()
    indices = torch.tensor([[1, 2], [0, 1]])
    net.log_prob(indices).sum().backward()
    for p in net.parameters():
        for i in range(0, p.numel(), 7):
            step = torch.zeros(p.numel(), dtype=torch.double)
            step[i] = 1e-6
            with torch.no_grad():
                p += step.view_as(p)
                up = net.log_prob(indices).sum()
                p -= 2 * step.view_as(p)
                down = net.log_prob(indices).sum()
                p += step.view_as(p)
            assert p.grad.flatten()[i].item() == pytest.approx((up - down).item() / 2e-6, abs=1e-6)


def test_greedy_takes_the_most_probable_value_of_each_decision():
    net = spread(controller())
    chosen = net.greedy()
    archs = everything()
    p = net.log_prob(archs).exp()
    for i in range(len(SIZES)):
        same = (archs[:, :i] == chosen[:i]).all(1)
        by_value = torch.stack([p[same & (archs[:, i] == v)].sum() for v in range(SIZES[i])])
        assert by_value.argmax() == chosen[i]


def test_no_value_is_ever_ruled_out():
    net = spread(spread(controller((2,))))
    assert net.log_prob(torch.tensor([[0], [1]])).exp().min() > 1 / (1 + math.exp(2 * 2.5)) - 1e-6


def test_a_seed_fixes_the_samples_and_leaves_the_global_generator_alone():
    net = controller()
    torch.manual_seed(5)
    first = net.sample(8, torch.Generator().manual_seed(1))[0]
    again = net.sample(8, torch.Generator().manual_seed(1))[0]
    after = torch.rand(())
    assert torch.equal(first, again)
    assert not torch.equal(first, net.sample(8, torch.Generator().manual_seed(2))[0])
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def learn(learner, generator, steps, best):
    for _ in range(steps):
        drawn = learner.controller.sample(8, generator)[0]
        learner.update(drawn, (drawn == best).float().mean(1))


def test_learns_a_planted_optimum():
    net = controller((3,) * 6)
    best = torch.tensor([2, 0, 1, 1, 0, 2])
    before = net.log_prob(best[None]).item()
    learn(Reinforce(net, lr=5e-3), torch.Generator().manual_seed(0), 120, best)
    assert net.greedy().tolist() == best.tolist()
    assert net.log_prob(best[None]).item() > before + 4
    assert all(p.argmax() == b for p, b in zip(net.marginals(64), best, strict=True))


def test_entropy_weight_keeps_the_distributions_open():
    entropies = []
    for weight in (0.0, 1.0):
        net = controller((3,) * 4)
        learn(Reinforce(net, 5e-3, weight), torch.Generator().manual_seed(0), 80, torch.zeros(4, dtype=torch.long))
        entropies.append(net.sample(64)[2].mean().item())
    assert entropies[0] < 2 < 4 < entropies[1]


def test_resumed_learning_equals_the_uninterrupted(tmp_path):
    best = torch.tensor([2, 0, 1, 1])
    whole, generator = Reinforce(controller((3,) * 4), 5e-3), torch.Generator().manual_seed(0)
    learn(whole, generator, 5, best)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    rng = generator.get_state()
    learn(whole, generator, 5, best)
    resumed = Reinforce(Controller((3,) * 4), 5e-3)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    learn(resumed, torch.Generator().set_state(rng), 5, best)
    assert resumed.baseline == whole.baseline
    for a, b in zip(whole.controller.parameters(), resumed.controller.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_arch_of_sixty_decisions_takes_milliseconds():
    net = controller((3,) * 60)
    seconds = []
    with torch.no_grad():
        for _ in range(10):
            begin = time.thread_time()
            net.sample()
            seconds.append(time.thread_time() - begin)
    assert min(seconds) < 0.01  # 0.0025 where nothing else runs
