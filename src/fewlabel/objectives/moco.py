"""MoCo v2. He, Fan, Wu, Xie, Girshick 2019, arXiv:1911.05722 (equations 1 and 2), with the projection head of
Chen, Fan, Girshick, He 2020, arXiv:2003.04297. With a head of three layers it is SimCLRv2 with a memory:
Chen, Kornblith, Swersky, Norouzi, Hinton 2020, arXiv:2006.10029, section 2.

A query q of one view is contrasted with the key k+ of the other view and with the keys of former batches:

    L = -log  exp(q k+ / tau) / (exp(q k+ / tau) + sum_{k in queue} exp(q k / tau)),    q, k of unit length.

The keys' network gets no gradient; it follows the queries': theta_k <- m theta_k + (1 - m) theta_q.

Departures. The queue starts empty instead of filled with random vectors, so that every negative is the key of
an image; the loss of the very first step is therefore 0. Images are not exchanged between processes before
keys are made ("shuffling BN", section 3.3); instead each process makes them in random groups, each by its own
batch statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.contrast import check_temperature
from fewlabel.objectives.momentum import follow, frozen_copy
from fewlabel.objectives.pairs import check_pair, two_views, unit
from fewlabel.processes import gathered
from fewlabel.types import Batch, FewlabelError

GROUP = 32
"""Images that share batch statistics when keys are made, as on one GPU in the paper."""


def moco_contrast(
    q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor, *, temperature: float = 0.2
) -> torch.Tensor:
    """InfoNCE of each query with its key against the queue, the mean over N queries.

    q, k: queries and keys, shape (N, K), before normalisation; row i of both is image i.
    queue: M negative keys of unit length, shape (M, K); without any (M = 0) the loss is 0.
    Returns a scalar. Raises FewlabelError if the shapes differ or temperature <= 0.
    Source: arXiv:1911.05722, equation 1.
    """
    check_pair(q, k)
    check_temperature(temperature)
    with torch.autocast(q.device.type, enabled=False):
        q, k = unit(q), unit(k)
        positive = (q * k).sum(1, keepdim=True)  # (N, 1)
        logits = torch.cat([positive, q @ queue.to(q.dtype).T], dim=1) / temperature  # (N, 1 + M)
        return F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))


class MoCo(nn.Module):
    """Encoder and head for queries, their slow copies for keys, a queue of former keys.

    encoder: anything with `.dim`, from images to features.
    hidden_dim: width of the head's hidden layers; None = the encoder's width, as in the paper.
    head_layers: 2 as in MoCo v2; 1 is the first paper's.
    queue_size: how many former keys are negatives. The paper has 65536 of 1.28 million images; keep it below
        the number of images, since an older key of the same image is a negative too.
    momentum: m. With 0.999 half a change is taken up in 693 steps; short runs may want less.
    """

    name = "moco"
    paper = "He et al. 2019, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297"
    view_count = 2
    needs_labels = False

    queue: torch.Tensor
    seen: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: int | None = None,
        embedding_dim: int = 128,
        head_layers: int = 2,
        queue_size: int = 4096,
        momentum: float = 0.999,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        if queue_size < 1:
            raise FewlabelError(f"queue_size is {queue_size}: at least 1 key is needed as a negative.")
        self.encoder = encoder
        hidden = hidden_dim or encoder.dim
        self.head = mlp_head(
            encoder.dim,
            hidden,
            embedding_dim,
            layers=head_layers,
            hidden_norm=False,
            last_norm=False,
            last_bias=True,
        )
        self.key_encoder = frozen_copy(encoder)
        self.key_head = frozen_copy(self.head)
        self.register_buffer("queue", torch.zeros(queue_size, embedding_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.momentum, self.temperature = momentum, temperature
        self.latest_keys: torch.Tensor | None = None

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each; queries of the first.

        Keys are of the second. The queue stays as it is until `after_step`.
        """
        x1, x2 = two_views(batch, "MoCo")
        q, k = self.embed(x1), self.keys(x2)
        self.latest_keys = k
        return moco_contrast(q, k, self.negatives(), temperature=self.temperature)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Queries q (B, K) of images x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))

    @torch.no_grad()
    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """Keys k (B, K) of images x (B, C, H, W), of unit length.

        In random groups: else a network could tell by batch statistics which key was made with a query.
        """
        order = torch.randperm(x.shape[0]).to(x.device)
        groups = order.chunk(max(1, x.shape[0] // GROUP))
        k = torch.cat([unit(self.key_head(self.key_encoder(x[group]))) for group in groups])
        return k[order.argsort()]

    def negatives(self) -> torch.Tensor:
        """The part of the queue that holds keys (M, K): the last `queue_size` ones, in no order of time."""
        return self.queue[: int(self.seen)]

    def after_step(self, step: int, steps: int) -> None:
        """The keys' network follows the queries', and the keys of all processes go into the queue."""
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_head, self.head, self.momentum)
        if self.latest_keys is not None:
            self.enqueue(gathered(self.latest_keys))
            self.latest_keys = None

    @torch.no_grad()
    def enqueue(self, keys: torch.Tensor) -> None:
        """Put keys (n, K) in the places of the oldest ones; of more than `queue_size` the last ones stay."""
        size, after = self.queue.shape[0], int(self.seen) + keys.shape[0]
        kept = keys[-size:]
        places = torch.arange(after - kept.shape[0], after, device=keys.device) % size
        self.queue[places] = kept.to(self.queue.dtype)
        self.seen.fill_(after)
