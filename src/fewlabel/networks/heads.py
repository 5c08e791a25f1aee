"""Heads on top of an encoder's features."""

from __future__ import annotations

from torch import nn

from fewlabel.types import FewlabelError


def mlp_head(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    *,
    layers: int = 2,
    hidden_norm: bool = True,
    last_norm: bool = True,
    last_bias: bool = False,
) -> nn.Sequential:
    """Projection head: (B, in_dim) -> (B, out_dim), `layers` linear layers with ReLU between them.

    SimCLR's g has 2 (arXiv:2002.05709, section 4.2: 2048-2048-128 for ResNet-50), SimCLRv2's has 3. Batch
    normalisation after every linear layer and no bias before it, as in the authors' published code; the last
    one has no shift.
    hidden_norm: batch normalisation after the linear layers before the last; without it they have a bias.
    last_norm: the same after the last layer. last_bias: whether that layer has a bias; of no use before norm.
    """
    widths = [in_dim] + [hidden_dim] * (layers - 1) + [out_dim]
    modules: list[nn.Module] = []
    for i in range(layers - 1):
        modules.append(nn.Linear(widths[i], widths[i + 1], bias=not hidden_norm))
        if hidden_norm:
            modules.append(nn.BatchNorm1d(widths[i + 1]))
        modules.append(nn.ReLU(inplace=True))
    modules.append(nn.Linear(widths[-2], out_dim, bias=last_bias))
    if last_norm:
        norm = nn.BatchNorm1d(out_dim)
        norm.register_parameter("bias", None)
        modules.append(norm)
    return nn.Sequential(*modules)


def first_layers(head: nn.Sequential, layers: int) -> nn.Sequential:
    """The first `layers` linear layers of a head made by `mlp_head`, each with what follows it; (B, in) -> (B, hidden).

    Raises FewlabelError unless there are that many before the last one, which only serves the contrast.
    """
    starts = [i for i, module in enumerate(head) if isinstance(module, nn.Linear)]
    if not 0 <= layers < len(starts):
        raise FewlabelError(
            f"{layers} layers of the projection head were to be kept, and it has {len(starts)}: keep from 0 to "
            f"{len(starts) - 1}, since the last one is thrown away."
        )
    return nn.Sequential(*list(head)[: starts[layers]])
