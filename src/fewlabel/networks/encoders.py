"""Encoders: images -> features h (B, F). Any network that timm knows, with 1 or 3 input channels."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class EncoderSettings:
    """What is needed to build the same encoder again.

    name: a timm name, such as "resnet18", "resnet50", "resnet152", "inception_v3", "vit_tiny_patch16_224".
    channels: 1 or 3.
    size_px: image size; transformers need it for their position embedding, convolutional networks ignore it.
    small_stem: replaces a ResNet's 7x7 stride-2 convolution and max-pooling by one 3x3 convolution of stride 1,
        as SimCLR does for CIFAR (arXiv:2002.05709, appendix B.9); for images up to about 40 px.
    weights: None (random), "default" (the network's own pretrained weights from the hub), a hub name
        ("hf-hub:owner/name"), or the path of a local .safetensors file.
    """

    name: str = "resnet18"
    channels: int = 1
    size_px: int = 64
    small_stem: bool = False
    weights: str | None = None


class Encoder(nn.Module):
    """A timm network without its classifier.

    forward: x (B, C, H, W) in [0, 1] -> features h (B, F), F = `dim`.
    Pixel values are normalised inside, by the mean and deviation that pretrained weights ask for, else 0.5 and 0.25.
    Raises FewlabelError for an unknown name, weights that are not safetensors, or weights that do not fit.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        network: Any = _build(settings)
        self.network = network
        if settings.small_stem:
            _use_small_stem(network, settings)
        self.dim = int(network.num_features)
        configuration = network.pretrained_cfg
        pretrained = settings.weights is not None
        mean = configuration["mean"] if pretrained else (0.5,)
        std = configuration["std"] if pretrained else (0.25,)
        self.register_buffer("mean", _per_channel(mean, settings.channels), persistent=False)
        self.register_buffer("std", _per_channel(std, settings.channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mean) / self.std)  # (B, F)


def _per_channel(values: tuple[float, ...], channels: int) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if len(values) != channels:
        tensor = tensor.mean().repeat(channels)
    return tensor.view(channels, 1, 1)


def _build(settings: EncoderSettings) -> nn.Module:
    ensure_torchvision()
    import timm

    name, weights = settings.name, settings.weights
    if name.split(".")[0] not in timm.list_models():
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise FewlabelError(
            f"There is no encoder called {name!r}: give a network name that timm knows.{hint}"
        )
    overlay = {"file": str(_weights_file(name, weights))} if weights is not None else None
    arguments: dict[str, Any] = {
        "in_chans": settings.channels,
        "num_classes": 0,
        "pretrained": weights is not None,
    }
    if any(name.startswith(family) for family in ("vit", "deit", "swin", "maxvit", "beit")):
        arguments["img_size"] = settings.size_px
    try:
        return timm.create_model(name, pretrained_cfg_overlay=overlay, **arguments)
    except RuntimeError as error:
        if weights is None:
            raise
        raise FewlabelError(
            f"The weights {weights} do not fit {name}: {str(error).splitlines()[0]}"
        ) from error


def _weights_file(name: str, weights: str | None) -> Path:
    """The local safetensors file of `weights`; fetched from the hub where it is not a path."""
    assert weights is not None
    if weights != "default" and not weights.startswith("hf-hub:"):
        path = Path(weights).expanduser()
        if path.suffix != ".safetensors":
            raise FewlabelError(
                f"{weights} is not a .safetensors file: weights are loaded from safetensors only, since loading "
                "a pickle (.pt, .pth, .bin) can run foreign code. Convert it first, where you trust it."
            )
        if not path.is_file():
            raise FewlabelError(f"There is no weights file {weights}: give the path of a .safetensors file.")
        return path
    import huggingface_hub
    import timm

    if weights == "default":
        configuration = timm.models.get_pretrained_cfg(name)
        repository = configuration.hf_hub_id if configuration else None
        if not repository:
            raise FewlabelError(
                f"timm names no pretrained weights for {name}: leave `weights` out or give a file."
            )
    else:
        repository = weights.removeprefix("hf-hub:")
    try:
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:
        raise FewlabelError(
            f"The weights of {repository} could not be fetched from the hub ({type(error).__name__}): "
            "check the name and the network, or give a local .safetensors file."
        ) from error


def _use_small_stem(network: Any, settings: EncoderSettings) -> None:
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise FewlabelError(
            f"small_stem is for ResNets; {settings.name} has no 7x7 stem to replace. Leave it out."
        )
    network.conv1 = nn.Conv2d(
        settings.channels, first.out_channels, kernel_size=3, stride=1, padding=1, bias=False
    )
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
