"""The LSTM controller of ENAS (Pham et al. 2018, arXiv:1802.03268, sections 2.2 and 2.4) and its REINFORCE step.

It knows decisions by their number of values alone, so one-shot and multi-trial strategies share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn


class Controller(nn.Module):
    """An LSTM that makes the decisions one after another, each knowing those before it.

    Parameters
    ----------
    sizes
        Number of values of every decision, in the order in which they are made.
    hidden
        Width of the LSTM and of the embeddings.
    temperature, tanh_constant
        A logit is ``tanh_constant * tanh(logit / temperature)``, so that no value is ever ruled out (Bello et al.
        2017, arXiv:1611.09940, section 5; the values are those of ENAS, section 3.1).
    """

    def __init__(
        self, sizes: Sequence[int], hidden: int = 64, temperature: float = 5.0, tanh_constant: float = 2.5
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.temperature, self.tanh_constant = temperature, tanh_constant
        most = max(self.sizes, default=1)
        # Embedding 0 starts; then those of the values of decision 0, of decision 1, …
        self.embedding = nn.Embedding(1 + sum(self.sizes), hidden)
        self.lstm = nn.LSTM(hidden, hidden)
        self.heads = nn.Parameter(torch.empty(len(self.sizes), hidden, most))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        starts = torch.tensor([1, *self.sizes]).cumsum(0)[:-1]
        self.register_buffer("_starts", starts, persistent=False)
        absent = torch.arange(most) >= torch.tensor(self.sizes, dtype=torch.long)[:, None]
        self.register_buffer("_absent", absent, persistent=False)  # (L, n), the padding of shorter decisions

    def sample(self, batch: int = 1, generator: Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw archs.

        `generator` is of the CPU whatever the controller's device, so that a seed means the same archs everywhere.

        Returns
        -------
        indices (B, L), their log-probabilities (B,), and the entropy (B,) of the distributions on their way; the last
        two with gradient unless it is switched off
        """
        noise = torch.empty(len(self.sizes), batch, self.heads.shape[2]).exponential_(generator=generator)
        indices = self._decide(-noise.log_().to(self.heads.device))  # argmax of logit + Gumbel noise is a draw
        return indices, *self.evaluate(indices)

    def greedy(self) -> Tensor:
        """(L,), the most probable value of every decision, given those before it."""
        return self._decide(self.heads.new_zeros(len(self.sizes), 1, 1))[0]

    def log_prob(self, indices: Tensor) -> Tensor:
        """(B,), log-probabilities of `indices` (B, L)."""
        return self.evaluate(indices)[0]

    def evaluate(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B,) of `indices` (B, L), and the entropy (B,) on their way: the sum over decisions."""
        log_p = self._log_probabilities(indices)
        chosen = log_p.gather(2, indices.T[..., None])[..., 0].sum(0)
        return chosen, -(log_p.exp() * log_p.masked_fill(self._padding(), 0.0)).sum((0, 2))

    @torch.no_grad()
    def marginals(self, num_samples: int = 256, generator: Generator | None = None) -> list[Tensor]:
        """The probability of every value of every decision, (n,) each: an estimate, exact for the first decision."""
        mean = self._log_probabilities(self.sample(num_samples, generator)[0]).exp().mean(1)
        return [p[:n] for p, n in zip(mean, self.sizes, strict=True)]

    @torch.no_grad()
    def _decide(self, noise: Tensor) -> Tensor:
        """(B, L), a decision at a time: the argmax of logits and noise (L, B, n or 1)."""
        weights = list(self.lstm.parameters())  # input, hidden, and their biases
        state = self.heads.new_zeros(2, noise.shape[1], self.lstm.hidden_size).unbind()
        row = torch.zeros(noise.shape[1], dtype=torch.long, device=self.heads.device)
        starts = cast(Tensor, self._starts).unbind()
        chosen = []
        for i, head in enumerate(self.heads.unbind()):
            state = torch.lstm_cell(self.embedding(row), state, *weights)
            logits = self._bounded(state[0] @ head)[:, : self.sizes[i]]
            chosen.append((logits + noise[i, :, : self.sizes[i]]).argmax(1))
            row = starts[i] + chosen[-1]
        return torch.stack(chosen, 1)

    def _log_probabilities(self, indices: Tensor) -> Tensor:
        """(L, B, n), of every value of every decision, given the decisions of `indices` before it."""
        rows = (indices + cast(Tensor, self._starts)).T
        rows = torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])
        logits = self._bounded(self.lstm(self.embedding(rows))[0] @ self.heads)
        return logits.masked_fill(self._padding(), -torch.inf).log_softmax(2)

    def _bounded(self, logits: Tensor) -> Tensor:
        return self.tanh_constant * torch.tanh(logits / self.temperature)

    def _padding(self) -> Tensor:
        return cast(Tensor, self._absent)[:, None]


class Reinforce:
    """REINFORCE with a moving average of the rewards as its baseline (section 2.4).

    Parameters
    ----------
    controller
        What learns.
    lr
        Of Adam.
    entropy_weight
        The entropy of an arch's distributions, times this, is added to its reward.
    baseline_decay
        Share of the old baseline that stays in each update.
    """

    def __init__(
        self,
        controller: Controller,
        lr: float = 3.5e-4,
        entropy_weight: float = 1e-4,
        baseline_decay: float = 0.95,
    ) -> None:
        self.controller = controller
        self.entropy_weight, self.baseline_decay = entropy_weight, baseline_decay
        self.baseline: float | None = None
        self.optimizer = torch.optim.Adam(controller.parameters(), lr)

    def update(self, indices: Tensor, rewards: Tensor | Sequence[float]) -> float:
        """One step on archs (B, L), drawn from the controller as it is, and their rewards (B,).

        Returns
        -------
        The loss.
        """
        log_prob, entropy = self.controller.evaluate(indices)
        rewards = torch.as_tensor(rewards, dtype=log_prob.dtype, device=log_prob.device)
        mean = float(rewards.mean())
        if self.baseline is None:
            self.baseline = mean
        self.baseline = self.baseline_decay * self.baseline + (1 - self.baseline_decay) * mean
        # The entropy is differentiated itself, which has less variance than a reward of it.
        loss = -((rewards - self.baseline) * log_prob + self.entropy_weight * entropy).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, the controller included."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]
