"""An image encoder and a text encoder in one space: embeddings, similarities, and where in an image a sentence fits.

ConVIRT (Zhang, Jiang, Miura, Manning, Langlotz 2020, arXiv:2010.00747) trains them; in its symbols an image's embedding
is v = g_v(f_v(x)), a text's u = g_u(f_u(x)), and both are compared by their cosine.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.files import write_text
from fewlabel.networks import Encoder, TextEncoder, load_text_encoder
from fewlabel.objectives import ConVIRT
from fewlabel.tasks.places import PlaceSimilarity
from fewlabel.training.weights import ENCODER, HEAD, load_encoder, load_head, save_encoder, save_head
from fewlabel.types import FewlabelError

DESCRIPTION, TEXT_HEAD, TEXT = "image_text.json", "text_head.safetensors", "text"


@dataclass(frozen=True)
class ImageText:
    """A trained pair of towers.

    encoder, head: f_v and g_v, images (B, C, H, W) in [0, 1] -> features (B, F) -> embeddings (B, K).
    text_encoder, text_head: f_u and g_u, the same for texts.
    size_px: side of the views that the image encoder was trained on. temperature: tau of the training.
    Whatever mode the networks are in, they are used in evaluation mode and left as they were.
    """

    encoder: Encoder
    head: nn.Sequential
    text_encoder: TextEncoder
    text_head: nn.Sequential
    size_px: int
    temperature: float = 0.1

    @staticmethod
    def of(objective: ConVIRT, *, size_px: int) -> ImageText:
        """What `objective` has trained on views of `size_px`; the networks are shared, not copied."""
        return ImageText(
            objective.encoder,
            objective.head,
            objective.text_encoder,
            objective.text_head,
            size_px,
            objective.temperature,
        )

    def embed_images(self, pixels: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Unit vectors (N, K) float32 of images (N, C, S, S) (uint8 or uint16), the whole image.

        An embedding of nothing but zeros stays zero: its cosine with everything is 0. Raises FewlabelError for no
        image, or another number of channels than the encoder's.
        """
        self._check(pixels)
        with _evaluating(self.encoder, self.head):
            tower = nn.Sequential(self.encoder, self.head)
            return _unit(extract_features(tower, pixels, size_px=self.size_px, batch_size=batch_size))

    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> np.ndarray:
        """Unit vectors (M, K) float32 of texts.

        Warns where texts are cut because they have more than the text encoder's `longest` tokens. Raises FewlabelError
        for no text, or one text in place of a list.
        """
        if isinstance(texts, str) or not texts:
            raise FewlabelError(f"{texts!r} came to be embedded: give a list of at least one text.")
        device = next(self.text_encoder.parameters()).device
        parts, cut = [], 0
        with torch.inference_mode(), _evaluating(self.text_encoder, self.text_head):
            for start in range(0, len(texts), batch_size):
                tokens = self.text_encoder.tokenise(texts[start : start + batch_size])
                cut += tokens.truncated
                features = self.text_encoder(tokens.ids.to(device), tokens.mask.to(device))  # (B, F)
                parts.append(self.text_head(features).float().cpu().numpy())  # (B, K)
        if cut:
            longest = self.text_encoder.longest
            warnings.warn(
                f"{cut} of {len(texts)} texts have more than {longest} tokens and were cut", stacklevel=2
            )
        return _unit(np.concatenate(parts))

    def similarity(self, pixels: np.ndarray, texts: Sequence[str], *, batch_size: int = 256) -> np.ndarray:
        """Cosines (N, M) in [-1, 1] of images (N, C, S, S) and texts."""
        images = self.embed_images(pixels, batch_size=batch_size)
        return np.clip(images @ self.embed_texts(texts).T, -1.0, 1.0)

    def similarity_map(self, pixels: np.ndarray, sentence: str, *, batch_size: int = 64) -> np.ndarray:
        """Where a sentence fits: cosines (N, h, w) in [-1, 1] of the encoder's places and the sentence.

        pixels: (N, C, S, S), as of `embed_images`. Each place of the feature map before pooling is projected as if
        it were the whole image (`PlaceSimilarity`). The mean of a map is not the image's similarity: g_v has a
        hidden layer, so projecting the mean of the places is not the mean of their projections, and each cosine
        has a norm of its own. Places see beyond their own pixels, and those of a transformer that pools by its class
        token were never trained to be projected: a map is a hint and no segmentation.
        Raises FewlabelError as `embed_images` does, and for encoders whose places cannot be told.
        """
        self._check(pixels)
        text = torch.from_numpy(self.embed_texts([sentence])[0])
        with _evaluating(self.encoder, self.head):
            maps = PlaceSimilarity(self.encoder, self.head, text)
            return extract_features(maps, pixels, size_px=self.size_px, batch_size=batch_size)

    def save(self, folder: Path) -> None:
        """Write weights as safetensors, and the description last, which `load_image_text` reads; no pickle.

        Raises FewlabelError for heads that are not made by `mlp_head`, or where it cannot be written.
        """
        (folder / DESCRIPTION).unlink(missing_ok=True)  # until all is written, this is no whole model
        save_encoder(self.encoder, folder / ENCODER)
        save_head(self.head, folder / HEAD)
        save_head(self.text_head, folder / TEXT_HEAD)
        self.text_encoder.save(folder / TEXT)
        description = {
            "format": 1,
            "size_px": self.size_px,
            "temperature": self.temperature,
            "longest": self.text_encoder.longest,
            "frozen_layers": self.text_encoder.frozen_layers,
        }
        write_text(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")

    def _check(self, pixels: np.ndarray) -> None:
        channels = self.encoder.settings.channels
        if pixels.ndim != 4 or not len(pixels) or pixels.shape[1] != channels:
            raise FewlabelError(
                f"Images of shape {pixels.shape} came to be compared with text: give at least one, (N, {channels}, "
                "S, S), as Collection.square gives them."
            )


def load_image_text(folder: Path) -> ImageText:
    """The model that `ImageText.save` wrote, in evaluation mode.

    Raises FewlabelError if a file is missing, damaged or something else.
    """
    try:
        said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        size_px, temperature, longest = int(said["size_px"]), float(said["temperature"]), int(said["longest"])
        frozen_layers = None if said["frozen_layers"] is None else int(said["frozen_layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewlabelError(
            f"{folder} holds no whole image-text model ({DESCRIPTION}: {type(error).__name__}): give a folder that "
            "ImageText.save wrote."
        ) from error
    encoder, head = load_encoder(folder / ENCODER), load_head(folder / HEAD)
    text_encoder = load_text_encoder(folder / TEXT, frozen_layers=frozen_layers, longest=longest).eval()
    text_head = load_head(folder / TEXT_HEAD)
    ends = (encoder.dim, head), (text_encoder.dim, text_head)
    if any(dim != projection[0].in_features for dim, projection in ends) or _width(head) != _width(text_head):
        raise FewlabelError(
            f"The encoders and heads in {folder} do not fit each other: files of several models were mixed; save the "
            "model again."
        )
    return ImageText(encoder, head, text_encoder, text_head, size_px, temperature)


def _width(head: nn.Sequential) -> int:
    """K of a head made by `mlp_head`."""
    return [module.out_features for module in head if isinstance(module, nn.Linear)][-1]


def at_image_size(maps: np.ndarray, size_px: int) -> np.ndarray:
    """Maps (N, h, w) -> (N, size_px, size_px), bilinear: to be laid over the images."""
    resized = F.interpolate(torch.from_numpy(maps)[:, None], (size_px, size_px), mode="bilinear")
    return resized[:, 0].numpy()


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(embeddings), dim=1).numpy()


@contextmanager
def _evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each network is in the mode it was in."""
    were = [network.training for network in networks]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for network, training in zip(networks, were, strict=True):
            network.train(training)
