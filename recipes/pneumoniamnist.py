"""PneumoniaMNIST: the paper's views and InfoNCE against the medical views and NT-Xent, all else equal.

    python recipes/pneumoniamnist.py pneumoniamnist.npz FOLDER

Give medmnist:pneumonia instead of the file to have it downloaded. Look at validation before test when choosing.
"""

import sys
from dataclasses import replace
from pathlib import Path

from fewlabel import EvaluateSettings, PretrainSettings, import_images, learn

BASE = PretrainSettings(size_px=64, steps=300, batch_size=256)
VARIANTS = {
    "medical": BASE,
    "simclr-views": replace(BASE, views="simclr"),
    "info-nce": replace(BASE, loss="info-nce"),
}
EVALUATION = EvaluateSettings("label", budgets=(10, 25, 47, 100, 250, 1000), seeds=5, headline_budget=47)


def run(source: str, folder: Path) -> None:
    """Import once, then one run for each variant; the official split is kept."""
    print(import_images(source, folder / "collection"))
    for name, pretraining in VARIANTS.items():
        learned = learn(
            folder / "collection",
            "label",
            folder / name,
            pretraining=pretraining,
            evaluation=EVALUATION,
            drop_leaks=True,  # 8 pictures lie in two parts of the official split
        )
        print(name, learned.headline, learned.report, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python recipes/pneumoniamnist.py FILE FOLDER")
    run(sys.argv[1], Path(sys.argv[2]))
