"""Zero-shot: prompts averaged, probabilities by hand, prompts from files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from toy_towers import SIZE_PX, known_model

from fewlabel.tasks import Prompts, class_prompts, default_prompts, read_prompts, zero_shot
from fewlabel.tasks.zero_shot import ABSENCE, PRESENCE, class_embeddings, class_probabilities
from fewlabel.types import FewlabelError


def _grey(*levels: int) -> np.ndarray:
    """Images (N, 1, 16, 16) of one grey each."""
    return np.stack([np.full((1, SIZE_PX, SIZE_PX), level, dtype=np.uint8) for level in levels])


def test_sentences_are_averaged_as_unit_vectors() -> None:
    """A long vector counts no more than a short one, and the mean has unit length again."""
    model = known_model({"a": (10.0, 0.0), "b": (0.0, 0.5), "c": (-2.0, 0.0)})
    found = class_embeddings(model, Prompts(("one", "other"), (("a", "b"), ("c",))))
    np.testing.assert_allclose(found, [[math.sqrt(0.5), math.sqrt(0.5)], [-1, 0]], atol=1e-6)


def test_probabilities_by_hand() -> None:
    """White is (2, 1) / sqrt 5; its cosines with (1, 0) and (-1, 0) are +-2 / sqrt 5."""
    model = known_model({"no": (-1.0, 0.0), "yes": (1.0, 0.0)}, temperature=0.5)
    prompts = Prompts(("absent", "present"), (("no",), ("yes",)))
    found = zero_shot(model, _grey(255, 0), prompts)
    wanted = 1 / (1 + math.exp(-2 * 2 / math.sqrt(5) / 0.5))
    np.testing.assert_allclose(found, [[1 - wanted, wanted], [wanted, 1 - wanted]], atol=1e-5)
    flatter = zero_shot(model, _grey(255), prompts, temperature=5.0)[0, 1]
    assert flatter == pytest.approx(1 / (1 + math.exp(-4 / math.sqrt(5) / 5)), abs=1e-5)


def test_several_classes() -> None:
    angles = {"black": math.atan2(1, -2), "grey": math.pi / 2, "white": math.atan2(1, 2)}
    model = known_model({name: (math.cos(a), math.sin(a)) for name, a in angles.items()})
    prompts = Prompts(tuple(angles), tuple((name,) for name in angles))
    found = zero_shot(model, _grey(250, 128, 5, 0), prompts)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.argmax(axis=1).tolist() == [2, 1, 0, 0]


def test_probabilities_are_a_softmax_of_cosines() -> None:
    images, classes = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]])
    powers = [math.exp(x / 0.1) for x in (0.6, 1.0, -1.0)]
    found = class_probabilities(images, classes, temperature=0.1)
    np.testing.assert_allclose(found, [[power / sum(powers) for power in powers]])
    assert np.isfinite(class_probabilities(images, classes, temperature=1e-4)).all()
    with pytest.raises(FewlabelError, match="temperature is 0"):
        class_probabilities(images, classes, temperature=0)


def test_default_prompts_name_presence_and_absence() -> None:
    prompts = default_prompts("pleural effusion")
    assert prompts.classes == ("not pleural effusion", "pleural effusion")
    absence, presence = prompts.sentences
    assert (len(absence), len(presence)) == (len(ABSENCE), len(PRESENCE))
    assert "There is no evidence of pleural effusion." in absence
    assert {"There is pleural effusion.", "Pleural effusion is present."} <= {*presence}
    assert all(" no " in f" {sentence.lower()}" and "pleural effusion" in sentence for sentence in absence)
    assert not any(" no " in f" {sentence.lower()}" for sentence in presence)
    both = class_prompts(["edema", "a fracture"])
    assert both.classes == ("edema", "a fracture")
    assert both.sentences[1] == default_prompts("a fracture").sentences[1]
    assert default_prompts("{finding}").sentences[1][0] == "There is {finding}."
    with pytest.raises(FewlabelError, match="without a name"):
        default_prompts(" ")


def test_prompts_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(
        '{"not edema": ["No edema.", "Kein Ödem."], "edema": ["There is edema."]}', encoding="utf-8"
    )
    found = read_prompts(file)
    assert found == Prompts(("not edema", "edema"), (("No edema.", "Kein Ödem."), ("There is edema.",)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ('{"a": ["x"]', "holds no JSON"),
        ("\xff", "holds no JSON"),
        ("3", "holds a int and no classes by name"),
        ('["x", "y"]', "no classes by name"),
        ('[["a", ["x"]]]', "no classes by name"),
        ('{"a": "x", "b": ["y"]}', "the class 'a' has no list of sentences"),
        ('{"a": ["x"], "b": [1]}', "the class 'b' has no list of sentences"),
        ('{"a": ["x"], "b": {"c": ["y"]}}', "the class 'b' has no list of sentences"),
        ('{"a": ["x"], "a": ["y"], "b": ["z"]}', "each once"),
        ('{"a": ["x"]}', "give two or more"),
        ("{}", "give two or more"),
        ('{"a": ["x"], "b": []}', "The class 'b' has no sentence"),
        ('{"a": ["x", " "], "b": ["y"]}', "The class 'a' has no sentence, or an empty one"),
    ],
)
def test_wrong_files_are_said_in_a_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "prompts.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(FewlabelError, match=said) as error:
        read_prompts(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
