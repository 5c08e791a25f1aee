"""How to pretrain: everything that a user may choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fewlabel.collection import Collection
from fewlabel.networks import EncoderSettings
from fewlabel.networks.encoders import has_fixed_size
from fewlabel.reports import DEFAULT_KEEP
from fewlabel.types import JSON, FewlabelError, Schedule
from fewlabel.views import ViewSettings, convirt_views, light_views, medical_views, simclr_views

LossName = Literal["nt-xent", "info-nce"]
ViewName = Literal["medical", "simclr", "convirt", "light"]
ObjectiveName = Literal["simclr", "moco", "byol", "barlow", "vicreg", "mae", "autoencoder", "vae", "convirt"]
OBJECTIVE_TITLES: dict[ObjectiveName, str] = {
    "simclr": "SimCLR",
    "moco": "MoCo v2",
    "byol": "BYOL",
    "barlow": "Barlow Twins",
    "vicreg": "VICReg",
    "mae": "MAE",
    "autoencoder": "Autoencoder",
    "vae": "VAE",
    "convirt": "ConVIRT",
}
"""For people."""
ONE_VIEW = ("mae", "autoencoder", "vae", "convirt")
DECODING = ("autoencoder", "vae")
HEADED = ("simclr", "moco")
"""Those that look at one view of an image; that make images of one size; and whose projection head is kept."""
_USUAL_VIEWS: dict[ObjectiveName, ViewName] = {"convirt": "convirt", "autoencoder": "light", "vae": "light"}
"""Of objectives that do not look at medical views; whole images are to be decoded, hardly cropped."""
Positives = Literal["views", "patient", "study"]
TextView = Literal["sentence", "clause", "section"]


@dataclass(frozen=True)
class TextSettings:
    """What ConVIRT reads and with what.

    encoder: hub name or folder of a BERT; None = a small one, trained on the training texts alone by masked-language
        modelling for `steps` steps.
    frozen_layers: of the text encoder, beside its embeddings; None = half of the layers (6 of 12 in the paper).
    view: what one text is drawn from: the sentences; their clauses, each with its negation; or the whole sections.
    keep: sections that are read, () = all. drop_priors: leave out sentences on earlier studies.
    weight: lambda, of the direction from image to text.
    """

    encoder: str | None = None
    frozen_layers: int | None = None
    view: TextView = "sentence"
    keep: tuple[str, ...] = DEFAULT_KEEP
    drop_priors: bool = False
    steps: int = 1000
    weight: float = 0.75

    @staticmethod
    def from_json(given: JSON) -> TextSettings:
        """From what `asdict` gave, as it stands in run.json."""
        return TextSettings(**{**given, "keep": tuple(given["keep"])})


@dataclass(frozen=True)
class PretrainSettings:
    """How to pretrain. What is None is chosen from the images and written to run.json.

    objective: what training minimises; head_layers, temperature and loss are SimCLR's, the first two MoCo's as well.
    head_layers: None = 2 as in SimCLR, and 3 as in SimCLRv2 where `learn` goes on with that recipe.
    encoder, weights, small_stem: see `EncoderSettings`. size_px: smaller images are enlarged to it, which helps: on
    PneumoniaMNIST (28 px) 64 px gave better validation figures than 28.
    channels: None = 3 if most images have colour, else 1.
    views: "medical", SimCLR's "simclr", ConVIRT's "convirt", or "light", which leave an image nearly as it is; None =
    the objective's. flips: left-right flips among all but SimCLR's views; they make sides in reports wrong.
    temperature: None = 0.2, and ConVIRT's 0.1.
    steps of batch_size images (or all there are); AdamW with peak rate 1e-3; warm-up over 5 % of the steps.
    micro_batch, start_size_px: see `Schedule`. checkpointing: see `EncoderSettings`.
    positives: where the two views of a positive pair come from: one image, or two of one patient or study (MICLe),
    with probability pair_share where there are two.
    text: what ConVIRT reads the reports with; of no meaning for other objectives.
    """

    encoder: str = "resnet18"
    weights: str | None = None
    size_px: int = 64
    channels: int | None = None
    small_stem: bool = False
    head_layers: int | None = None
    views: ViewName | None = None
    flips: bool = False
    temperature: float | None = None
    loss: LossName = "nt-xent"
    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adam", "adamw", "lars"] = "adamw"
    seed: int = 0
    micro_batch: int | None = None
    start_size_px: int | None = None
    checkpointing: bool = False
    positives: Positives = "views"
    pair_share: float = 1.0
    objective: ObjectiveName = "simclr"
    text: TextSettings = field(default_factory=TextSettings)

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1)
        check_range("batch_size", self.batch_size, 2)
        check_range("size_px", self.size_px, 8)
        check_range("head_layers", self.head_layers, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("micro_batch", self.micro_batch, 1)
        check_range("start_size_px", self.start_size_px, 8, self.size_px)
        if not 0 <= self.pair_share <= 1:
            raise FewlabelError(f"pair_share is {self.pair_share:g}: a share from 0 to 1 is needed.")
        if self.objective in ONE_VIEW and self.positives != "views":
            raise FewlabelError(
                f"{OBJECTIVE_TITLES[self.objective]} looks at one view of an image, so positives have no meaning for "
                "it: leave positives at views, or choose another objective."
            )
        if self.start_size_px is not None and has_fixed_size(self.encoder):
            raise FewlabelError(
                f"{self.encoder} takes images of one size only, and views were to grow from {self.start_size_px} px: "
                "leave start_size_px out, or choose a convolutional network."
            )
        if self.objective in DECODING and (self.start_size_px is not None or self.size_px % 8):
            raise FewlabelError(
                f"{OBJECTIVE_TITLES[self.objective]} makes images of one size that 8 divides, and size_px is "
                f"{self.size_px}, start_size_px {self.start_size_px}: choose such a size, and leave start_size_px out."
            )
        for name, number in (("learning_rate", self.learning_rate), ("temperature", self.temperature)):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise FewlabelError(f"{name} is {number:g}: a number above 0 is needed.")

    @staticmethod
    def from_json(given: JSON) -> PretrainSettings:
        """From what `asdict` gave, as it stands in run.json."""
        return PretrainSettings(**{**given, "text": TextSettings.from_json(given["text"])})

    @property
    def title(self) -> str:
        """The objective's name for people; MICLe where two images of a patient are a positive pair."""
        pairs = " with pairs of images (MICLe)" if self.positives != "views" else ""
        return OBJECTIVE_TITLES[self.objective] + pairs

    @property
    def schedule(self) -> Schedule:
        """The training schedule, with a warm-up over 5 % of the steps; ConVIRT's rate is halved where it stalls."""
        return Schedule(
            self.steps,
            self.batch_size,
            self.learning_rate,
            warmup_steps=max(1, self.steps // 20),
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            seed=self.seed,
            micro_batch=self.micro_batch,
            start_size_px=self.start_size_px,
            decay="constant" if self.objective == "convirt" else "cosine",
        )

    @property
    def projection_layers(self) -> int:
        """Layers of the projection head; only for resolved settings."""
        assert self.head_layers is not None
        return self.head_layers

    @property
    def encoder_settings(self) -> EncoderSettings:
        """The network; only for resolved settings."""
        assert self.channels is not None
        return EncoderSettings(
            self.encoder, self.channels, self.size_px, self.small_stem, self.weights, self.checkpointing
        )

    @property
    def view_settings(self) -> ViewSettings:
        """The views; only for resolved settings."""
        if self.views == "simclr":
            return simclr_views(self.size_px)
        of_name = {"convirt": convirt_views, "light": light_views, "medical": medical_views}
        return of_name[self.views or "medical"](self.size_px, flips=self.flips)


def check_range(name: str, number: int | None, low: int, high: int | None = None) -> None:
    """Raise FewlabelError if a setting that was given lies outside low to high."""
    if number is not None and (number < low or (high is not None and number > high)):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        raise FewlabelError(f"{name} is {number}: {allowed} is needed.")


def resolve_settings(settings: PretrainSettings, collections: Sequence[Collection]) -> PretrainSettings:
    """Fill in what is None from the images and the objective."""
    colour = np.concatenate([channel_counts(collection) for collection in collections])
    convirt = settings.objective == "convirt"
    return replace(
        settings,
        channels=settings.channels or (3 if np.median(colour) > 1 else 1),
        head_layers=settings.head_layers or 2,
        views=settings.views or _USUAL_VIEWS.get(settings.objective, "medical"),
        temperature=settings.temperature or (0.1 if convirt else 0.2),
    )


def channel_counts(collection: Collection) -> np.ndarray:
    """(N,) 1 for grey, 3 for colour."""
    return np.array([shape[0] for shape in collection.column("case:shape")])
