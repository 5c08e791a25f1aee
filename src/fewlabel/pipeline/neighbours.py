"""What an encoder finds similar: image to image, and where it learned from reports, text to image and back, classes
told by prompts alone, and where in an image a sentence fits. Test patients only; nobody finds an image of his own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabel.evaluation.intervals import bootstrap
from fewlabel.evaluation.retrieval import NO_PATIENT, Search, cosines, precision_at, rank_measures, ranked
from fewlabel.pipeline.arms import Task, encoder_features, random_features
from fewlabel.pipeline.evaluating import Evaluated
from fewlabel.pipeline.figures import case_figure, similarity_figure
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.reports import PairedTexts
from fewlabel.tasks.image_text import ImageText
from fewlabel.tasks.zero_shot import (
    Prompts,
    class_embeddings,
    class_probabilities,
    class_prompts,
    default_prompts,
    read_prompts,
)
from fewlabel.training import mix_seed
from fewlabel.types import JSON, FewlabelError
from fewlabel.views import draw_view, plain_view, to_unit_range

AT = (5, 10, 50)
RECALL_AT = (1, 5, 10)
RANK_LABELS = {"r_precision": "R-precision", "map_at_r": "MAP@R"}
MOST_FOUND = 5000
QUERIES_A_CLASS = 100
SHOWN_A_CLASS = 2
MOST_SHOWN = 6
HITS = 10
MAPS, FEWEST_PLACES = 6, 9


@dataclass(frozen=True)
class _Side:
    """Things that ask or are found: unit or other vectors (n, K), their classes and patients (n,), and how they are
    shown: row of the collection, or text."""

    vectors: np.ndarray
    classes: np.ndarray
    patients: np.ndarray
    rows: np.ndarray | None = None
    texts: Sequence[str] | None = None

    def of(self, places: np.ndarray) -> _Side:
        """Some of them."""
        rows = None if self.rows is None else self.rows[places]
        texts = None if self.texts is None else [self.texts[place] for place in places]
        return _Side(self.vectors[places], self.classes[places], self.patients[places], rows, texts)


def similarity_results(
    evaluated: Evaluated,
    pretrained: Pretrained,
    texts: PairedTexts | None,
    out: Path,
    *,
    prompts: str | None = None,
    seed: int = 0,
) -> JSON:
    """The blocks `retrieval`, `zero_shot` and `similarity` of results.json, as far as there are such; pictures in out.

    texts: the reports; those of test patients are asked with and found. prompts: a file of them; None = usual sentences
    with the target's name. A number as target has no classes to be right or wrong about, and gives {}.
    """
    task = evaluated.task
    if task.target.kind == "number":
        return {}
    model = pretrained.image_text
    encoders = {evaluated.title: encoder_features(task, [pretrained.encoder])(0)}
    if evaluated.embedding:
        encoders[f"{evaluated.embedding[0]}, all labels"] = evaluated.embedding[1]
    encoders["random init"] = random_features(task)(0)
    y, patients = task.y[task.test].astype(int), task.collection.patients()[task.test]
    modes, shown = [], []
    for name, features in encoders.items():
        images = _Side(features[task.test], y, patients, rows=task.test)
        asking = _some_of_each(y, QUERIES_A_CLASS, mix_seed("queries", seed))
        line = _mode("image-image", "image to image", name, images.of(asking), images, asking)
        modes.append({**line, "ranking": _ranking(images, asking, seed)})
        if name == evaluated.title:
            picked = asking[_some_of_each(y[asking], SHOWN_A_CLASS, mix_seed("shown", seed))][:MOST_SHOWN]
            shown += _examples("image-image", images.of(picked), images, picked, task, out)
    results: JSON = {}
    if model is not None:
        said = _in_order(read_prompts(Path(prompts)), task) if prompts else usual_prompts(task)
        images = _Side(model.embed_images(task.pixels[task.test]), y, patients, rows=task.test)
        more, examples = _between(model, images, said, texts, task, evaluated.title, out, seed)
        modes, shown = modes + more, shown + examples
        results["zero_shot"] = _zero_shot(model, images, said, evaluated)
        results["similarity"] = _maps(model, said, task, out, seed)
    note = (
        f"At most {QUERIES_A_CLASS} images of each class ask. Pictures and sentences shown were drawn by chance, not "
        "chosen."
    )
    if len(task.test) > MOST_FOUND:
        note += f" Recall, R-precision and MAP@R are among {MOST_FOUND:,} images drawn by chance and those that ask."
    return {"retrieval": {"modes": modes, "queries": shown, "note": note}, **results}


def usual_prompts(task: Task) -> Prompts:
    """Sentences of presence and absence for a binary target, of presence for each of several classes."""
    target = task.target
    if target.kind == "binary":
        finding = target.name.rpartition("=")[2].strip().lower()
        return Prompts(target.classes, default_prompts(finding).sentences)
    found = class_prompts([name.lower() for name in target.classes])
    return Prompts(target.classes, found.sentences)


def _in_order(prompts: Prompts, task: Task) -> Prompts:
    """The prompts in the order of the target's classes. Raises FewlabelError where they are of other classes."""
    classes = task.target.classes
    if set(prompts.classes) != set(classes):
        raise FewlabelError(
            f"The prompts are of the classes {', '.join(prompts.classes)} and {task.target.name} has "
            f"{', '.join(classes)}: name these."
        )
    return Prompts(classes, tuple(prompts.sentences[prompts.classes.index(name)] for name in classes))


def _some_of_each(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Places of at most `count` things of each class, by chance, in ascending order."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(classes == c))[:count] for c in np.unique(classes)]
    return np.sort(np.concatenate(drawn))


def _search(asking: _Side, found: _Side, own: np.ndarray | None) -> Search:
    return Search.by_class(asking.classes, found.classes, asking.patients, found.patients, query_rows=own)


def _mode(
    key: str, label: str, encoder: str, asking: _Side, found: _Side, own: np.ndarray | None = None
) -> JSON:
    """One line of the table: precision at each k that enough candidates allow."""
    search = _search(asking, found, own)
    at = [k for k in AT if k <= len(found.classes) // 2]
    rows: list[JSON] = []
    if at:
        drawn = search.draw(seed=0)
        result = precision_at(cosines(asking.vectors, found.vectors), search, drawn, at=at)
        for k, measure in result.precision.items():
            low, high = measure.interval()
            rows.append(
                {
                    "k": k, "value": measure.value, "low": low, "high": high, "n": measure.n,
                    "candidates": result.candidates, "patients": measure.patients, "chance": result.chance,
                }
            )  # fmt: skip
    return {"key": key, "label": label, "encoder": encoder, "rows": rows}


def _ranking(images: _Side, asking: np.ndarray, seed: int) -> list[JSON]:
    """Recall@k, R-precision and MAP@R of images that ask for images; [] where nobody has anything right to find."""
    drawn = np.random.default_rng(mix_seed("found", seed)).permutation(len(images.classes))[:MOST_FOUND]
    kept = np.union1d(asking, drawn)
    own, found, queries = np.searchsorted(kept, asking), images.of(kept), images.of(asking)
    search = _search(queries, found, own)
    if not any((right & search.allowed(query)).any() for query, right in enumerate(search.relevant)):
        return []
    measured = rank_measures(
        cosines(queries.vectors, found.vectors), search, search.draw(seed=0), recall_at=RECALL_AT
    )
    rows = []
    for name, measure in measured.items():
        low, high = measure.found.interval()
        rows.append(
            {
                "name": name, "label": RANK_LABELS.get(name, name.capitalize()), "value": measure.found.value, "low":
                low, "high": high, "n": measure.found.n, "patients": measure.found.patients, "chance": measure.chance,
            }
        )  # fmt: skip
    return rows


def _examples(
    key: str, asking: _Side, found: _Side, own: np.ndarray | None, task: Task, out: Path
) -> list[JSON]:
    """Queries with their nearest, in pictures."""
    search, similarity = _search(asking, found, own), cosines(asking.vectors, found.vectors)
    examples = []
    for number in range(len(asking.classes)):
        hits = ranked(similarity[number], search.allowed(number), HITS)
        shown = [
            {
                **_shown(found, int(hit), task, out),
                "right": bool(search.relevant[number, hit]),
                "similarity": float(similarity[number, hit]),
            }
            for hit in hits
        ]
        examples.append({"mode": key, "query": _shown(asking, number, task, out), "hits": shown})
    return examples


def _shown(side: _Side, place: int, task: Task, out: Path) -> JSON:
    figure = None
    if side.rows is not None:
        row = int(side.rows[place])
        figure = f"figures/case-{row}.png"
        if not (out / figure).exists():
            case_figure(task.pixels, row, out / figure)
    text = None if side.texts is None else side.texts[place]
    return {"figure": figure, "text": text, "truth": task.target.classes[int(side.classes[place])]}


def _between(
    model: ImageText,
    images: _Side,
    prompts: Prompts,
    texts: PairedTexts | None,
    task: Task,
    title: str,
    out: Path,
    seed: int,
) -> tuple[list[JSON], list[JSON]]:
    """Prompts to images; and images to the reports of other patients, where there are such."""
    sentences = [sentence for said in prompts.sentences for sentence in said]
    classes = np.repeat(np.arange(len(prompts.classes)), [len(said) for said in prompts.sentences])
    asking = _Side(model.embed_texts(sentences), classes, np.full(len(classes), NO_PATIENT), texts=sentences)
    modes = [
        _mode(
            "text-image",
            "text to image",
            f"{title}, asked for {prompts.classes[code]}",
            asking.of(np.flatnonzero(classes == code)),
            images,
        )
        for code in reversed(range(len(prompts.classes)))
    ]
    first = np.unique(classes, return_index=True)[1][::-1][:MOST_SHOWN]
    examples = _examples("text-image", asking.of(first), images, None, task, out)
    reports = None if texts is None else _reports(model, images, texts)
    if reports is not None:
        some = _some_of_each(images.classes, QUERIES_A_CLASS, mix_seed("queries", seed))
        modes.append(_mode("image-text", "image to text", title, images.of(some), reports))
        picked = some[_some_of_each(images.classes[some], 1, mix_seed("shown", seed))][:MOST_SHOWN]
        examples += _examples("image-text", images.of(picked), reports, None, task, out)
    return modes, examples


def _reports(model: ImageText, images: _Side, texts: PairedTexts) -> _Side | None:
    """The texts of these images, each once, with the class and patient of its first image; None if there are none.

    A text is the mean of its sentences' unit vectors, since sentences are what was trained on.
    """
    assert images.rows is not None
    places = np.searchsorted(texts.rows, images.rows)
    places = np.minimum(places, len(texts) - 1)
    with_text = np.flatnonzero(texts.rows[places] == images.rows)
    if len(with_text) == 0:
        return None
    numbers, first = np.unique(texts.text_of[places[with_text]], return_index=True)
    said = [texts.sentences[number] for number in numbers]
    vectors = model.embed_texts([sentence for sentences in said for sentence in sentences])
    ends = np.cumsum([len(sentences) for sentences in said])[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
    whose = with_text[first]
    shown = [" ".join(sentences) for sentences in said]
    return _Side(means, images.classes[whose], images.patients[whose], texts=shown)


def _zero_shot(model: ImageText, images: _Side, prompts: Prompts, evaluated: Evaluated) -> JSON:
    classes = class_embeddings(model, prompts)
    probabilities = class_probabilities(images.vectors, classes, temperature=model.temperature)
    curves = evaluated.curves
    rows = []
    for name, measure in curves.suite.measures.items():
        said = probabilities.argmax(axis=1) if name in curves.suite.of_called else probabilities
        found = bootstrap(measure, images.classes, said[None], evaluated.resamples)
        low, high = found.interval()
        rows.append(
            {
                "name": name,
                "value": found.value,
                "low": low,
                "high": high,
                "n": found.n,
                "patients": found.patients,
            }
        )
    compared = []
    for budget in curves.budgets:
        for name, probe in curves.bootstraps["simclr", budget].items():
            low, high = probe.interval()
            label = f"linear probe, {budget:,} labels"
            compared.append({"label": label, "name": name, "value": probe.value, "low": low, "high": high})
    said = zip(prompts.classes, prompts.sentences, strict=True)
    return {
        "rows": rows,
        "prompts": [{"class": name, "sentences": list(sentences)} for name, sentences in said],
        "compared": compared,
        "note": "No label was seen; the probabilities are not calibrated.",
    }


def _maps(model: ImageText, prompts: Prompts, task: Task, out: Path, seed: int) -> JSON:
    """Maps of the first sentence of each class (of a finding: of its presence) over test images of that class."""
    y, names = task.y[task.test], task.collection.column("case:source")
    asked = [1] if task.target.kind == "binary" else range(len(prompts.classes))
    cases: list[JSON] = []
    for code in asked:
        rng = np.random.default_rng(mix_seed("maps", seed, code))
        rows = rng.permutation(task.test[y == code])[: max(1, MAPS // len(asked))]
        sentence = prompts.sentences[code][0]
        maps = model.similarity_map(task.pixels[np.sort(rows)], sentence)
        if maps[0].size < FEWEST_PLACES:
            places = " x ".join(map(str, maps.shape[1:]))
            note = f"At {task.size_px} px the encoder has {places} places, too few for a map: train on larger views."
            return {"cases": [], "note": note}
        for row, found in zip(np.sort(rows), maps, strict=True):
            figure, drawn = f"figures/case-{row}.png", f"figures/map-{row}-{code}.png"
            case_figure(task.pixels, int(row), out / figure)
            image = draw_view(
                to_unit_range(torch.from_numpy(np.array(task.pixels[row : row + 1]))),
                plain_view(task.pixels.shape[-1]),
                torch.Generator(),
            )[0].numpy()
            low, high = similarity_figure(image, found, out / drawn)
            cases.append(
                {
                    "sentence": sentence, "figure": figure, "map_figure": drawn, "case": str(names[row]),
                    "truth": prompts.classes[code], "low": low, "high": high,
                }
            )  # fmt: skip
    return {"cases": cases, "note": ""}
