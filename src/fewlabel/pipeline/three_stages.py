"""The recipe "three-stage": the pretrained autoencoder or VAE goes on as a semi-supervised GAN, with each budget.

Stage 1 is the run's pretraining. Stages 2 and 3 are those of `adaptation.three_stages`, each a training in a folder of
its own, so that a run that was killed in any of them goes on at its last checkpoint. Both classifiers are measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabel.adaptation.finetune import TrainedNetwork, looks_in
from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.adaptation.probe import LinearProbe
from fewlabel.adaptation.three_stages import (
    ThreeStagesSettings,
    begun_gan,
    learn_frozen,
    learn_jointly,
    plain_network,
)
from fewlabel.networks import Encoder
from fewlabel.objectives import GAN
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline.arms import (
    Arm,
    Outputs,
    Task,
    arms_of_one_training,
    encoder_features,
    labelled_images,
    network_outputs,
)
from fewlabel.pipeline.kept import begun, read_network, write_network
from fewlabel.pipeline.made_images import made_images_arm
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.simclr_v2 import as_probe
from fewlabel.training import mix_seed
from fewlabel.training.weights import load_generator, save_generator

FROZEN, JOINT = "three-stage-frozen", "three-stage"
"""Keys of the arms of stage 2 and stage 3."""


class ThreeStages:
    """Trains stages 2 and 3, and keeps what they answer.

    pretrained: with their reconstructors. folder: for the network of stage 3 with all labels, the generators, and
    checkpoints; None = nowhere.
    """

    def __init__(
        self,
        task: Task,
        pretrained: Sequence[Pretrained],
        settings: ThreeStagesSettings,
        folder: Path | None,
    ) -> None:
        self.task, self.pretrained, self.settings, self.folder = task, pretrained, settings, folder
        self.features = encoder_features(task, [one.encoder for one in pretrained])
        self.final: TrainedNetwork | None = None
        self.generators: dict[str, Generator] = {}

    def arms(self, outputs: Path | None) -> list[Arm]:
        """Stage 2, stage 3, and training on labels with images of stage 3's generator; outputs: where their outputs are
        kept, None = in memory."""
        title = self.pretrained[0].settings.title
        labels = {
            FROZEN: f"{title} + GAN, extractor frozen",
            JOINT: f"{title} + GAN, three stages",
        }
        made = made_images_arm(
            self.task,
            self.generator_of,
            self.settings.made_per_label,
            outputs,
            encoder=self.pretrained[0].encoder,
        )
        return [*arms_of_one_training(labels, outputs, self._outputs), made]

    def generator_of(self, rows: np.ndarray, seed: int) -> Generator:
        """What stage 3 with the labels of `rows` leaves for making images; trained if it is not kept."""
        name = self._name(rows, seed)
        path = self._generator_path(name)
        if name not in self.generators and not (path and path.exists()):
            self._outputs(rows, seed)
        return load_generator(path) if path else self.generators[name]

    def _generator_path(self, name: str) -> Path | None:
        return self.folder / f"{name}-generator.safetensors" if self.folder else None

    def _outputs(self, rows: np.ndarray, seed: int) -> dict[str, Outputs]:
        """Train both stages on the labels of `rows`, from where an interrupted training stood."""
        images, folder = labelled_images(self.task, rows), self._folder(rows, seed)
        gan = self._begun(rows, seed)
        frozen = learn_frozen(
            gan,
            images,
            self.settings,
            seed=mix_seed(FROZEN, seed) % 2**31,
            out=folder and folder / "frozen",
        )
        found = {FROZEN: network_outputs(self.task, frozen)}
        joint = learn_jointly(
            gan,
            images,
            self.task.split.train,
            self.settings,
            seed=mix_seed(JOINT, seed) % 2**31,
            out=folder and folder / "joint",
        )
        found[JOINT] = network_outputs(self.task, joint)
        self._keep_generator(gan, self._name(rows, seed))
        if seed == 0 and len(rows) == len(self.task.train):
            self.final = joint
            if folder:
                write_network(folder.with_suffix(".safetensors"), joint)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def _keep_generator(self, gan: GAN, name: str) -> None:
        generator, path = Generator.of(gan, self.task.target.classes), self._generator_path(name)
        if path:
            save_generator(generator, path)
        else:
            self.generators[name] = generator

    def _begun(self, rows: np.ndarray, seed: int) -> GAN:
        reconstructor = self.pretrained[seed % len(self.pretrained)].reconstructor
        assert reconstructor is not None
        features = self.features(seed)[self.task.split.train]
        return begun(self._name(rows, seed), lambda: begun_gan(reconstructor, self.task.classes, features))

    def _name(self, rows: np.ndarray, seed: int) -> str:
        return f"{JOINT}-{len(rows)}-{seed}"

    def _folder(self, rows: np.ndarray, seed: int) -> Path | None:
        return self.folder / self._name(rows, seed) if self.folder else None

    def _final(self) -> TrainedNetwork:
        """Stage 3 with all training labels and the first seed; trained if it is not kept."""
        rows, folder = self.task.train, self._folder(self.task.train, 0)
        path = folder.with_suffix(".safetensors") if folder else None
        if self.final is None and path and path.exists():
            self.final = read_network(path, self._begun(rows, 0), self.task.size_px)
        if self.final is None:
            self._outputs(rows, 0)
        assert self.final is not None
        return self.final

    def final_classifier(self) -> tuple[str, Encoder, LinearProbe | OrdinalProbe]:
        """Key of the arm whose classifier a run keeps; with all training labels its encoder, and its last layer."""
        return JOINT, *as_probe(plain_network(self._final()))

    @property
    def chosen_among(self) -> int:
        """From how many states of the two stages' networks validation chose that classifier."""
        return looks_in(self.settings.frozen_steps) * looks_in(self.settings.joint.steps)

    def final_generator(self) -> Generator:
        """That of stage 3 with all training labels, which makes images of the run's classes."""
        return self.generator_of(self.task.train, 0)
