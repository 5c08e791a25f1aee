"""Made fundi: what is a grade of 0 to 4 worth with few labels?

    python recipes/fundi.py FOLDER

The images are made by a program, so the figures show that the method runs, not what it is worth.
"""

import sys
from pathlib import Path

from fewlabel import EvaluateSettings, PretrainSettings, import_images, learn
from fewlabel.phantoms import write_fundi

PATIENTS = 400
SIZE_PX = 64
PRETRAINING = PretrainSettings(size_px=SIZE_PX, flips=True, steps=200, batch_size=64)
EVALUATION = EvaluateSettings(
    "Retinopathy grade",
    grades=("0", "1", "2", "3", "4"),
    referable="2",
    budgets=(25, 50, 100),
    seeds=2,
    recipe="grading",
)


def run(folder: Path) -> None:
    """Make the images, import them, and do the main job in `folder`."""
    labels = write_fundi(folder / "made", PATIENTS, size_px=SIZE_PX)
    print(import_images(folder / "made", folder / "eyes", labels=labels, patient_column="Patient ID"))
    learned = learn(
        folder / "eyes", EVALUATION.target, folder / "run", pretraining=PRETRAINING, evaluation=EVALUATION
    )
    print(learned.headline, learned.report, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recipes/fundi.py FOLDER")
    run(Path(sys.argv[1]))
