"""Encoders: images -> features h (B, F). Any network that timm knows, with 1 or 3 input channels."""

from __future__ import annotations

import difflib
import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fewlabel.networks.small_maps import multiply_on_small_maps
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class EncoderSettings:
    """What is needed to build the same encoder again.

    name: a timm name, such as "resnet18", "resnet50", "resnet152"; wider "wide_resnet50_2", "resnetv2_50x3_bit"; with
        selective kernels "skresnet18", "skresnet50d"; "convnext_tiny", "vit_tiny_patch16_224", "inception_v3".
    channels: 1 or 3.
    size_px: image size; transformers need it for their position embedding, convolutional networks ignore it.
    small_stem: replaces a ResNet's 7x7 stride-2 convolution and max-pooling by one 3x3 convolution of stride 1,
        as SimCLR does for CIFAR (arXiv:2002.05709, appendix B.9); for images up to about 40 px.
    weights: None (random), "default" (the network's own pretrained weights from the hub), a hub name
        ("hf-hub:owner/name"), or the path of a local .safetensors file.
    checkpointing: in training, keep the activations between blocks only and compute those within a block once more in
        the backward pass (Chen et al. 2016, arXiv:1604.06174): less memory, a third more time. Gradients stay the same;
        running batch statistics are moved twice a step.
    """

    name: str = "resnet18"
    channels: int = 1
    size_px: int = 64
    small_stem: bool = False
    weights: str | None = None
    checkpointing: bool = False


class Encoder(nn.Module):
    """A timm network without its classifier.

    forward: x (B, C, H, W) in [0, 1] -> features h (B, F), F = `dim`.
    Pixel values are normalised inside, by the mean and deviation that pretrained weights ask for, else 0.5 and 0.25.
    Raises FewlabelError for an unknown name, an image size that the network cannot take, weights that are not
    safetensors, or weights that do not fit.
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
        multiply_on_small_maps(network)
        if settings.checkpointing:
            _checkpoint_activations(network, settings)
        self.dim = _feature_width(network, settings)
        configuration = network.pretrained_cfg
        pretrained = settings.weights is not None
        mean = configuration["mean"] if pretrained else (0.5,)
        std = configuration["std"] if pretrained else (0.25,)
        self.register_buffer("mean", _per_channel(mean, settings.channels), persistent=False)
        self.register_buffer("std", _per_channel(std, settings.channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mean) / self.std)  # (B, F)

    def layers(self) -> list[list[nn.Parameter]]:
        """All parameters by layer, from the image upwards, as timm groups them (stem, blocks, what follows)."""
        from timm.models import group_parameters

        network: Any = self.network
        numbers: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        layers: dict[int, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            layers.setdefault(numbers[name], []).append(parameter)
        return [layers[number] for number in sorted(layers)]


class HeadedEncoder(nn.Module):
    """An encoder with the first layers of its projection head: images (B, C, H, W) -> (B, `dim`).

    SimCLRv2 fine-tunes from there (arXiv:2006.10029, section 2): what the head's first layer has learned is kept.
    """

    def __init__(self, encoder: Encoder, first: nn.Sequential) -> None:
        super().__init__()
        self.body, self.first = encoder, first
        self.settings = encoder.settings
        widths = [module.out_features for module in first if isinstance(module, nn.Linear)]
        self.dim = widths[-1] if widths else encoder.dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(self.body(x))

    def layers(self) -> list[list[nn.Parameter]]:
        """As `Encoder.layers`, and one for each linear layer of the head."""
        layers = self.body.layers()
        for module in self.first:
            if isinstance(module, nn.Linear):
                layers.append([])
            layers[-1] += list(module.parameters())
        return layers


def _per_channel(values: tuple[float, ...], channels: int) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if len(values) != channels:
        tensor = tensor.mean().repeat(channels)
    return tensor.view(channels, 1, 1)


def has_fixed_size(name: str) -> bool:
    """Whether the network of that name takes images of one size only, as transformers with a position embedding do."""
    return name.startswith(("vit", "deit", "swin", "maxvit", "beit", "eva"))


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
    arguments: dict[str, Any] = {"in_chans": settings.channels, "num_classes": 0}
    if has_fixed_size(name):
        arguments["img_size"] = settings.size_px
    if weights is not None:
        return _load_weights(name, weights, arguments)
    try:
        network = timm.create_model(name, **arguments)
    except RuntimeError as error:
        raise FewlabelError(f"The encoder {name!r} cannot be built: {_in_one_line(error)}") from error
    _open_residual_blocks(network)
    return network


@torch.no_grad()
def _open_residual_blocks(network: nn.Module) -> None:
    """Set the last scale of each residual block to 1 where it starts at 0, as it does in timm's ResNets.

    Zero makes long supervised training of deep networks start gently (Goyal et al. 2017, arXiv:1706.02677). In short
    contrastive training it costs hundreds of steps before the blocks say anything: docs/decisions/initial-weights.md.
    """
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm2d) or module.weight is None or module.weight.is_meta:
            continue
        if not module.weight.any():
            module.weight.fill_(1.0)


def _load_weights(name: str, weights: str, arguments: dict[str, Any]) -> nn.Module:
    """The network with pretrained weights in all its layers.

    timm loads what has a matching name and keeps quiet about the rest, so a file for another network would leave
    random weights behind. Those are found by building the network once more from the same seed.
    """
    import timm

    overlay = {"file": str(_weights_file(name, weights))}
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # the check below says it better
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = timm.create_model(name, **arguments)
        torch.manual_seed(0)
        try:
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
        except (RuntimeError, SafetensorError) as error:
            raise FewlabelError(f"The weights {weights} do not fit {name}: {_in_one_line(error)}") from error
    unchanged = [
        key
        for (key, before), after in zip(start.named_parameters(), network.parameters(), strict=True)
        if torch.equal(before, after) and before.numel() > 1 and before.std() > 0
    ]
    if unchanged:
        raise FewlabelError(
            f"The weights {weights} do not fit {name}: they say nothing of {len(unchanged)} of its layers, such as "
            f"{unchanged[0]}; give weights of the same network."
        )
    return network


def _in_one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 160, placeholder=" ...")


def _feature_width(network: Any, settings: EncoderSettings) -> int:
    """F, from one image of zeros: some networks of timm end wider than their `num_features`."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(
                torch.zeros(1, settings.channels, settings.size_px, settings.size_px)
            )  # (1, F)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise FewlabelError(
            f"{settings.name} cannot take images of {settings.size_px} px ({_in_one_line(error)}): "
            "choose another size, or another encoder."
        ) from error
    network.train(was_training)
    if features.ndim != 2:
        raise FewlabelError(
            f"{settings.name} gives features of shape {tuple(features.shape)}, and (B, F) is needed: "
            "choose another encoder."
        )
    return int(features.shape[1])


def _weights_file(name: str, weights: str) -> Path:
    """The local safetensors file of `weights`; fetched from the hub where it is not a path."""
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


def _checkpoint_activations(network: Any, settings: EncoderSettings) -> None:
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise FewlabelError(
            f"{settings.name} cannot compute activations once more to save memory: leave checkpointing out, or choose "
            "a ResNet, ConvNeXt or ViT."
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
