"""What training leaves: encoders, projection heads, decoders and generators as safetensors, with what is needed to
build them again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import nn

from fewlabel.networks import Encoder, EncoderSettings, mlp_head
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.objectives.generator import Generator
from fewlabel.training.checkpoint import load_tensors, save_tensors
from fewlabel.training.compute import channels_last
from fewlabel.types import FewlabelError

ENCODER = "encoder.safetensors"
HEAD = "head.safetensors"
RECONSTRUCTOR = "reconstructor.safetensors"
GENERATOR = "generator.safetensors"
"""Names of these files in the folders of runs and models."""
_RECONSTRUCTORS: dict[str, type[Autoencoder] | type[VAE]] = {kind.name: kind for kind in (Autoencoder, VAE)}
_EARLIER = {"hidden_norm": True, "last_norm": True, "last_bias": False}
"""The kind of heads that were written before it was kept in the file."""


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Weights as safetensors, with what is needed to build the network again in the file's metadata."""
    state = dict(encoder.state_dict())
    state["normalisation.mean"], state["normalisation.std"] = encoder.mean, encoder.std
    save_tensors(state, path, {"encoder": json.dumps(asdict(encoder.settings))})


def load_encoder(path: Path) -> Encoder:
    """The encoder that `save_encoder` wrote. Raises FewlabelError if the file is missing, damaged or something else."""
    tensors, metadata = load_tensors(path)
    if "encoder" not in metadata:
        raise FewlabelError(
            f"{path} holds no Fewlabel encoder: give a run made by `fewlabel pretrain` or `learn`."
        )
    settings = EncoderSettings(**{**json.loads(metadata["encoder"]), "weights": None})
    encoder = Encoder(settings)
    encoder.mean, encoder.std = tensors.pop("normalisation.mean"), tensors.pop("normalisation.std")
    encoder.load_state_dict(tensors)
    channels_last(encoder)
    return encoder.eval()


def save_head(head: nn.Sequential, path: Path) -> None:
    """A projection head made by `mlp_head`; its widths and its kind lie in the file's metadata.

    Raises FewlabelError for another kind of head, which could not be built again.
    """
    linear = [module for module in head if isinstance(module, nn.Linear)]
    normed = [isinstance(module, nn.BatchNorm1d) for module in head]
    widths = [linear[0].in_features, *(module.out_features for module in linear)] if linear else []
    norms = {
        "hidden_norm": any(normed[:-1]),
        "last_norm": any(normed[-1:]),
        "last_bias": bool(linear) and linear[-1].bias is not None,
    }
    if not linear or not _alike(head, _head_of(widths, norms)):
        raise FewlabelError(
            f"The head is {' - '.join(type(module).__name__ for module in head) or 'empty'}, of which {path} could not "
            "be built again: give a head made by mlp_head."
        )
    save_tensors(head.state_dict(), path, {"widths": json.dumps(widths), "norms": json.dumps(norms)})


def _alike(head: nn.Sequential, made: nn.Sequential) -> bool:
    """Layer by layer of the same kind, or one that takes its place while several processes train."""
    return len(head) == len(made) and all(
        isinstance(one, type(other)) and one.extra_repr() == other.extra_repr()
        for one, other in zip(head, made, strict=True)
    )


def load_head(path: Path) -> nn.Sequential:
    """The head that `save_head` wrote. Raises FewlabelError if the file is missing, damaged or something else."""
    tensors, metadata = load_tensors(path)
    if "widths" not in metadata:
        raise FewlabelError(f"{path} holds no projection head: pretrain again, or fine-tune without it.")
    head = _head_of(json.loads(metadata["widths"]), {**_EARLIER, **json.loads(metadata.get("norms", "{}"))})
    head.load_state_dict(tensors)
    return head.eval()


def _head_of(widths: list[int], norms: dict[str, bool]) -> nn.Sequential:
    first, *hidden, last = widths
    return mlp_head(first, hidden[0] if hidden else last, last, layers=len(hidden) + 1, **norms)


def save_reconstructor(reconstructor: Autoencoder | VAE, path: Path) -> None:
    """What an autoencoder or VAE has beside its encoder, which `save_encoder` keeps."""
    state = {
        key: value for key, value in reconstructor.state_dict().items() if not key.startswith("encoder.")
    }
    decoder = reconstructor.decoder
    told = {"kind": reconstructor.name, "latent_dim": decoder.in_dim, "width": decoder.width}
    save_tensors(state, path, {"reconstructor": json.dumps(told)})


def load_reconstructor(path: Path, encoder: Encoder) -> Autoencoder | VAE:
    """What `save_reconstructor` wrote, around the encoder that was trained with it, and in evaluation mode.

    A VAE has the Gaussian likelihood. Raises FewlabelError if the file is missing, damaged, something else, or of
    another encoder.
    """
    tensors, metadata = load_tensors(path)
    try:
        told = json.loads(metadata["reconstructor"])
        kind = _RECONSTRUCTORS[told["kind"]]
        reconstructor = kind(encoder, latent_dim=told["latent_dim"], width=told["width"])
        own = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
        reconstructor.load_state_dict({**tensors, **own})
    except (KeyError, RuntimeError, ValueError) as error:
        raise FewlabelError(
            f"{path} holds no autoencoder or VAE that fits its encoder: pretrain again with one of them."
        ) from error
    return reconstructor.eval()


def save_generator(generator: Generator, path: Path) -> None:
    """What makes images, with the names of its classes in the file's metadata."""
    decoder = generator.decoder
    told = {
        "latent_dim": generator.latent_dim,
        "class_names": generator.class_names,
        "channels": decoder.channels,
        "size_px": decoder.size_px,
        "width": decoder.width,
    }
    save_tensors(dict(decoder.state_dict()), path, {"generator": json.dumps(told)})


def load_generator(path: Path) -> Generator:
    """What `save_generator` wrote. Raises FewlabelError if the file is missing, damaged or something else."""
    tensors, metadata = load_tensors(path)
    try:
        told = json.loads(metadata["generator"])
        names = tuple(str(name) for name in told["class_names"])
        decoder = Decoder(
            told["latent_dim"] + len(names),
            channels=told["channels"],
            size_px=told["size_px"],
            width=told["width"],
        )
        decoder.load_state_dict(tensors)
        return Generator(decoder.requires_grad_(False).eval(), told["latent_dim"], names)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FewlabelError(
            f"{path} holds no generator of images: train one with `fewlabel learn` and --objective vae-gan."
        ) from error
