"""Which images of a batch are positives and which are negatives of each other: told by their labels and patients."""

from __future__ import annotations

import torch

from fewlabel.objectives.pairs import joint
from fewlabel.processes import gathered
from fewlabel.types import Batch, FewlabelError


def label_overlap(labels: torch.Tensor) -> torch.Tensor:
    """How much of their labels two images share: (N, N), from 0 to 1, NaN where it is not known.

    labels: (N,) int64 classes, -1 = no label: 1 for one class, 0 for two. Or (N, L) int64 of 0 and 1, negative =
        unknown: |labels of both| / |labels of either| (Jaccard), over the cells that are known of both images; NaN
        where these hold no label at all, since two images that have nothing need not be alike.
    Raises FewlabelError for numbers, or a cell of (N, L) above 1.
    """
    if labels.is_floating_point() or labels.dim() not in (1, 2):
        raise FewlabelError(
            f"The labels are {tuple(labels.shape)} of {labels.dtype}: one class (int64) an image is needed, or 0 and 1 "
            "for each of several labels. Numbers are learned with Supervised."
        )
    if labels.dim() == 1:
        known = labels >= 0
        same = (labels[:, None] == labels).float()
        return same.masked_fill(~(known[:, None] & known), torch.nan)
    if labels.numel() and int(labels.max()) > 1:
        raise FewlabelError(
            f"A cell of the labels {tuple(labels.shape)} is {int(labels.max())}: where an image has several "
            "labels, each is 1, 0 or, unknown, -1."
        )
    there, known = (labels == 1).float(), (labels >= 0).float()
    both = there @ there.T
    either = there @ known.T + known @ there.T - both
    return both / either


def positives_and_negatives(
    labels: torch.Tensor, patients: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight of each pair as positive, (N, N) from 0 = none to 1, and whether it is a negative, (N, N) bool.

    A positive shares a label, is another image, and with `patients` an image of another patient. A negative shares
    none. labels, errors: as of `label_overlap`. patients: (N,) codes, negative = unknown, which is nobody else's;
    None = an image of the same patient may be a positive.
    """
    overlap = label_overlap(labels)
    weight = overlap.nan_to_num(0.0).fill_diagonal_(0.0)
    if patients is not None:
        weight = weight.masked_fill((patients[:, None] == patients) & (patients >= 0), 0.0)
    return weight, overlap == 0


def check_labelled(z: torch.Tensor, labels: torch.Tensor, patients: torch.Tensor | None) -> None:
    """Raise FewlabelError unless z are embeddings (N, K) and there is one label, and one patient if any, a row."""
    if z.dim() != 2 or len(labels) != len(z) or (patients is not None and len(patients) != len(z)):
        also = "" if patients is None else f" and {len(patients)} patients"
        raise FewlabelError(
            f"z is {tuple(z.shape)} with {len(labels)} labels{also}: give embeddings (N, K), and one of each a row."
        )


def joint_with_labels(
    z: torch.Tensor, batch: Batch, *, other_patient: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Embeddings (N, K), labels and patients of the joint batch of all processes; labels of -1 where it has none.

    other_patient: whether patients are needed; otherwise they are None. Raises FewlabelError if they are missing.
    """
    labels = batch.labels
    if labels is None:
        labels = torch.full((len(z),), -1, device=z.device)
    if not other_patient:
        return joint(z), gathered(labels), None
    if batch.patients is None:
        raise FewlabelError(
            "Positives were to be of another patient, and the batch names no patients: give TrainingSet its patients, "
            "or leave other_patient out."
        )
    return joint(z), gathered(labels), gathered(batch.patients)
