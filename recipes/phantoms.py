"""Made radiographs: does pretraining help to see an opacity with few labels?

    python recipes/phantoms.py FOLDER

The images are made by a program, so the figures show that the method runs, not what it is worth.
"""

import sys
from pathlib import Path

from fewlabel import EvaluateSettings, PretrainSettings, import_images, learn
from fewlabel.phantoms import Difficulty, write_radiographs

IMAGES = 2400
SIZE_PX = 32
DIFFICULTY = Difficulty(contrast_range=(0.25, 0.40), exposure=0.5)
PRETRAINING = PretrainSettings(size_px=SIZE_PX, steps=400, batch_size=256)
EVALUATION = EvaluateSettings("opacity", budgets=(10, 25, 50, 100, 250), seeds=3)


def run(folder: Path) -> None:
    """Make the images, import them, and do the main job in `folder`."""
    labels = write_radiographs(folder / "made", IMAGES, size_px=SIZE_PX, difficulty=DIFFICULTY)
    print(import_images(folder / "made", folder / "chest", labels=labels, patient_column="Patient ID"))
    learned = learn(
        folder / "chest", "opacity", folder / "run", pretraining=PRETRAINING, evaluation=EVALUATION
    )
    print(learned.headline, learned.report, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recipes/phantoms.py FOLDER")
    run(Path(sys.argv[1]))
