"""Questions that sections ask results.json: arms and their looks, metrics of an arm, rows of tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from fewlabel.report.canvas import swatch
from fewlabel.report.style import Look, looks
from fewlabel.report.words import higher_is_better, is_number, metric_label
from fewlabel.types import JSON


@dataclass(frozen=True)
class Results:
    """results.json with the answers that several sections need. Immutable; computed once."""

    raw: JSON
    looks: dict[str, Look] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", looks(self.raw["arms"]))

    @property
    def metric(self) -> str:
        """The name of the main metric."""
        return str(self.raw["metric"])

    @cached_property
    def labels(self) -> dict[str, str]:
        """What each arm is called."""
        return {arm["key"]: str(arm.get("label") or arm["key"]) for arm in self.raw["arms"]}

    @cached_property
    def budgets(self) -> list[int]:
        """The label budgets, ascending."""
        given = self.raw.get("budgets") or [row["budget"] for row in self.raw["metrics"]]
        return sorted({budget for budget in given if is_number(budget) and budget > 0})

    @cached_property
    def metric_names(self) -> list[str]:
        """All metrics that were measured, the main one first."""
        others = dict.fromkeys(str(row["name"]) for row in self.raw["metrics"])
        return [self.metric, *(name for name in others if name != self.metric)] if others else []

    @cached_property
    def cells(self) -> dict[tuple[str, str, float], JSON]:
        """The metrics by (name, arm, budget)."""
        return {(row["name"], row["arm"], row["budget"]): row for row in self.raw["metrics"]}

    @property
    def everything(self) -> int | None:
        """The budget that is all labels there are, where the data say so."""
        trained = (self.raw.get("data") or {}).get("train")
        return trained if self.budgets and trained == self.budgets[-1] else None

    @cached_property
    def has_texts(self) -> bool:
        """Whether anything was measured of images together with sentences."""
        modes = (self.raw.get("retrieval") or {}).get("modes") or []
        return bool(
            self.raw.get("zero_shot")
            or self.raw.get("similarity")
            or any("text" in str(mode.get("key")) for mode in modes)
        )

    def measured(self, name: str, arm: str) -> list[JSON]:
        """The metric of one arm at every budget at which it has a value, ascending."""
        rows = (self.cells.get((name, arm, budget)) for budget in self.budgets)
        return [row for row in rows if row is not None and is_number(row.get("value"))]

    def best(self, name: str, budget: float) -> float | None:
        """The best value at a budget, whichever way is better."""
        values = [self.cells[key]["value"] for key in self.cells if key[0] == name and key[2] == budget]
        values = [value for value in values if is_number(value)]
        if not values:
            return None
        return max(values) if higher_is_better(self.raw, name) else min(values)

    def title(self, name: str) -> str:
        """What a metric is called, with its unit."""
        units = {str(row.get("unit") or "") for row in self.raw["metrics"] if row["name"] == name} - {""}
        return (
            f"{metric_label(self.raw, name)} ({units.pop()})"
            if len(units) == 1
            else metric_label(self.raw, name)
        )

    def arm(self, key: object) -> str:
        """What an arm is called, also where it is not listed."""
        return self.labels.get(str(key), str(key))

    def look(self, key: object) -> Look:
        """How an arm is drawn, also where it is not listed."""
        return self.looks.get(str(key), Look("c1", "2 3", "s", "control"))

    def class_name(self, given: object) -> str:
        """A class as a person says it: "no" and "yes" where a finding is only counted as 0 and 1."""
        target = self.raw["target"]
        plain = target.get("kind") == "binary" and set(map(str, target.get("classes") or [])) <= {"0", "1"}
        return {"0": "no", "1": "yes"}.get(str(given), str(given)) if plain else str(given)

    def legend(self, keys: Iterable[str]) -> list[JSON]:
        """Entries of a legend, in the order of the arms."""
        wanted = set(keys)
        return [
            {"label": self.labels[key], "swatch": swatch(look)}
            for key, look in self.looks.items()
            if key in wanted
        ]
