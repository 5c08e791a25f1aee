"""Classes in an order, such as grades, by cumulative logits: the proportional-odds model.

McCullagh 1980, Regression models for ordinal data, J. R. Statist. Soc. B 42(2):109-142. With one score f(x) and
thresholds b_0 < ... < b_{K-2},

    P(y > k | x) = sigmoid(f(x) - b_k),      P(y = k | x) = P(y > k - 1 | x) - P(y > k | x),

and what is minimised is -log P(y | x). Relatives, neither of which is used here: CORAL (Cao, Mirjalili and Raschka
2020, arXiv:1901.07884) has the same network and sums one binary cross-entropy a threshold, whose biases are in order at
the optimum; CORN (Shi, Cao and Raschka 2021, arXiv:2111.08851) gives each threshold its own weights and learns
P(y > k | y > k - 1). Here the thresholds are in order by construction: each gap is the exponential of a parameter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

SPEED = 10.0


def ordered_thresholds(first: torch.Tensor, log_gaps: torch.Tensor) -> torch.Tensor:
    """b (K-1,), ascending: first (1,) is the least, and each further one lies exp(log_gaps) (K-2,) above."""
    return torch.cat([first, first + log_gaps.exp().cumsum(0)])


def grade_log_probabilities(score: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """log P(y = k), (B, K), of scores (B,) and ascending thresholds (K-1,).

    Between two thresholds sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-g)), with the gap g = a - b, whose
    logarithm stays finite where the difference of the sigmoids would be rounded to 0. With t = tanh(g / 2), the last
    factor is 2 t / (1 + t), which is exact for small gaps too.
    """
    margin = score[:, None] - thresholds  # (B, K-1)
    above, below = F.logsigmoid(margin), F.logsigmoid(-margin)
    t = torch.tanh((thresholds[1:] - thresholds[:-1]) / 2)  # (K-2,)
    inner = above[:, :-1] + below[:, 1:] + torch.log(2 * t / (1 + t))
    return torch.cat([below[:, :1], inner, above[:, -1:]], dim=1)  # (B, K)


class OrdinalHead(nn.Module):
    """Features (B, F) -> log-probabilities (B, K) of grades from least to most.

    Their softmax is themselves, so they serve wherever logits do: their cross-entropy is -log P(y | x).
    Thresholds begin where all grades are equally likely at a score of 0. Adam moves every parameter by about the rate,
    a score by the sum over F weights: so that thresholds keep up, their parameters count SPEED times.
    """

    def __init__(self, in_dim: int, grades: int) -> None:
        super().__init__()
        self.score = nn.Linear(in_dim, 1, bias=False)
        self.first = nn.Parameter(torch.zeros(1))
        self.log_gaps = nn.Parameter(torch.zeros(grades - 2))
        self.put_thresholds(torch.logit(torch.arange(1, grades) / grades))

    @property
    def thresholds(self) -> torch.Tensor:
        """b (K-1,), ascending."""
        return ordered_thresholds(SPEED * self.first, SPEED * self.log_gaps)

    @torch.no_grad()
    def put_thresholds(self, thresholds: torch.Tensor) -> None:
        """Take these thresholds (K-1,), which must ascend."""
        self.first.copy_(thresholds[:1] / SPEED)
        self.log_gaps.copy_(thresholds.diff().log() / SPEED)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (B, K); logarithms are taken in the thresholds' number format, whatever that of the features."""
        return grade_log_probabilities(self.score(h)[:, 0].to(self.first.dtype), self.thresholds)
