"""Labels saved: inverting the curve, open ends, what is said, and a case with a known answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.evaluation.intervals import bootstrap, draw_resamples
from fewlabel.evaluation.labels_saved import Curve, labels_saved
from fewlabel.evaluation.metrics import auroc
from fewlabel.types import FewlabelError

BUDGETS = (10, 100, 1000)
R = 400


def _curve(name: str, values: list[float], noise: float = 0.0, budgets: tuple[int, ...] = BUDGETS) -> Curve:
    """A curve whose resamples scatter with standard deviation `noise`, budgets apart."""
    scatter = np.random.default_rng(len(name)).normal(0, noise, (R, len(budgets)))
    return Curve(name, budgets, np.array(values), np.array(values) + scatter)


SCRATCH = "training from scratch"


def test_between_two_budgets_by_hand() -> None:
    """0.75 is half of the way from 0.7 at 10 to 0.8 at 100: 10 ** 1.5 labels."""
    ours = labels_saved(_curve("SimCLR", [0.75, 0.8, 0.9]), _curve(SCRATCH, [0.7, 0.8, 0.9]))
    first = ours[0]
    assert first.equivalent == pytest.approx(10**1.5)
    assert (first.low, first.high) == pytest.approx((10**1.5, 10**1.5))
    assert first.saved == pytest.approx(10**1.5 - 10)
    assert first.factor == pytest.approx(10**0.5)
    assert first.status == "saved"
    assert [one.budget for one in ours] == list(BUDGETS)
    assert first.sentence == (
        "With 10 labels SimCLR reaches an AUROC of 0.750; training from scratch needs 32 labels for that "
        "(95 % interval: 32)."
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.5, 0.99), min_size=3, max_size=3, unique=True).map(sorted),
    st.floats(0.4, 1.0),
    st.booleans(),
)
def test_the_reference_reaches_the_value_at_the_equivalent(
    values: list[float], target: float, lower: bool
) -> None:
    sign = -1 if lower else 1
    arm = _curve("SimCLR", [sign * target] * 3)
    reference = _curve(SCRATCH, [sign * v for v in values])
    needed = labels_saved(arm, reference, higher_is_better=not lower)[0].equivalent
    if target > values[-1] + 1e-6:
        assert math.isinf(needed)
    elif target < values[0] - 1e-6:
        assert needed == 0
    elif 0 < needed < math.inf:
        assert np.interp(np.log10(needed), [1, 2, 3], values) == pytest.approx(target, abs=1e-6)


def test_above_all_of_the_reference_is_more_than_its_largest_budget() -> None:
    ours = labels_saved(_curve("SimCLR", [0.95] * 3, 0.001), _curve(SCRATCH, [0.7, 0.8, 0.9], 0.001))
    assert [one.status for one in ours] == ["saved"] * 3  # also at 1000: more than 1,000 are needed
    assert all(math.isinf(one.equivalent) for one in ours)
    assert ours[0].sentence == (
        "With 10 labels SimCLR reaches an AUROC of 0.950; training from scratch does not reach that even "
        "with 1,000 labels (95 % interval: more than 1,000)."
    )
    assert ours[1].as_json()["factor"]["text"] == "more than 10"


def test_below_all_of_the_reference_costs_labels() -> None:
    ours = labels_saved(_curve("SimCLR", [0.5, 0.55, 0.6], 0.001), _curve(SCRATCH, [0.7, 0.8, 0.9], 0.001))
    assert [one.status for one in ours] == ["none"] * 3
    assert [one.equivalent for one in ours] == [0] * 3
    assert ours[1].sentence == (
        "With 100 labels SimCLR reaches an AUROC of 0.550; for that training from scratch needs fewer than "
        "10 labels (95 % interval: fewer than 10): none are saved."
    )
    assert ours[1].saved == -math.inf
    assert ours[1].as_json()["factor"]["text"] == "less than 0.10"


def test_an_open_upper_end_is_said_and_not_extended() -> None:
    arm, reference = _curve("SimCLR", [0.6, 0.87, 0.9], 0.03), _curve(SCRATCH, [0.6, 0.7, 0.9], 0.03)
    one = labels_saved(arm, reference)[1]
    assert 100 < one.low < one.equivalent < 1000
    assert math.isinf(one.high)
    assert one.status == "saved"
    assert "to more than 1,000)" in one.sentence
    assert one.as_json()["equivalent"]["high"] is None
    assert one.as_json()["equivalent"]["high_text"] == "more than 1,000"


def test_chance_alone_cannot_be_told() -> None:
    arm, reference = _curve("SimCLR", [0.7, 0.81, 0.9], 0.03), _curve(SCRATCH, [0.7, 0.8, 0.9], 0.03)
    one = labels_saved(arm, reference)[1]
    assert one.low < 100 < one.high
    assert one.status == "cannot be told"
    assert one.sentence.startswith(
        "Whether labels are saved at 100 cannot be told from these data: SimCLR reaches"
    )


def test_a_flat_reference() -> None:
    """Noise round a flat curve tells nothing; a method clear above it saves, one clear below costs labels."""
    flat = _curve(SCRATCH, [0.7, 0.7, 0.7], 0.02)
    assert [one.status for one in labels_saved(_curve("SimCLR", [0.7] * 3, 0.02), flat)] == [
        "cannot be told"
    ] * 3
    assert [one.status for one in labels_saved(_curve("SimCLR", [0.9] * 3, 0.02), flat)] == ["saved"] * 3
    assert [one.status for one in labels_saved(_curve("SimCLR", [0.5] * 3, 0.02), flat)] == ["none"] * 3


def test_two_methods_on_the_same_plateau_neither_save_nor_cost() -> None:
    reference = _curve(SCRATCH, [0.9, 1.0, 1.0])
    same = labels_saved(_curve("SimCLR", [0.9, 1.0, 1.0]), reference)
    assert [one.equivalent for one in same] == [10, 100, 1000]
    assert [one.status for one in same] == ["cannot be told"] * 3
    assert labels_saved(_curve("SimCLR", [1.0, 1.0, 1.0]), reference)[0].equivalent == 100


def test_a_curve_that_falls_is_made_monotone() -> None:
    """0.8 and 0.7 are pooled to 0.75, which is first reached with 10 labels; 0.8 lies on the way to 0.95."""
    reference = _curve(SCRATCH, [0.8, 0.7, 0.95])
    at_pool, above = labels_saved(_curve("SimCLR", [0.75, 0.8, 0.95]), reference)[:2]
    assert at_pool.equivalent == 10
    assert above.equivalent == pytest.approx(10 ** (2 + 0.05 / 0.2))


def test_resamples_without_a_value_are_left_out_and_counted() -> None:
    arm, reference = _curve("SimCLR", [0.8, 0.85, 0.9], 0.001), _curve(SCRATCH, [0.7, 0.8, 0.9], 0.001)
    arm.draws[:50, 0] = np.nan
    reference.draws[40:60, 2] = np.nan
    ours = labels_saved(arm, reference)
    assert [one.undefined for one in ours] == [60, 20, 20]
    assert ours[0].status == "saved"
    assert np.isfinite(ours[0].low)


def test_too_few_defined_resamples_tell_nothing() -> None:
    arm, reference = _curve("SimCLR", [0.9] * 3), _curve(SCRATCH, [0.7, 0.8, 0.9])
    arm.draws[:250] = np.nan
    one = labels_saved(arm, reference)[0]
    assert one.status == "cannot be told"
    assert math.isnan(one.equivalent)
    assert "defined in only 150 of 400 resamples" in one.sentence
    assert one.as_json()["equivalent"] is None
    undefined = Curve("SimCLR", BUDGETS, np.full(3, np.nan), arm.draws)
    assert labels_saved(undefined, reference)[0].status == "cannot be told"


def test_a_budget_beyond_the_reference_is_not_called_saved() -> None:
    arm = _curve("SimCLR", [0.95, 0.95], budgets=(100, 5000))
    within, beyond = labels_saved(arm, _curve(SCRATCH, [0.7, 0.8, 0.9]))
    assert within.status == "saved"
    assert math.isinf(beyond.equivalent)
    assert beyond.status == "cannot be told"
    poor = _curve("SimCLR", [0.5, 0.5], budgets=(5, 100))
    assert [one.status for one in labels_saved(poor, _curve(SCRATCH, [0.7, 0.8, 0.9]))] == [
        "cannot be told",
        "none",
    ]


def test_a_reference_with_one_budget() -> None:
    reference = _curve(SCRATCH, [0.8], 0.001, budgets=(100,))
    ours = labels_saved(_curve("SimCLR", [0.7, 0.9, 0.95], 0.001), reference)
    assert [one.status for one in ours] == ["cannot be told", "saved", "cannot be told"]


def test_lower_is_better_and_has_a_unit() -> None:
    """Errors in years: SimCLR has 9 with 10 labels, which lies half of the way from 10 to 8."""
    arm, reference = _curve("SimCLR", [9.0, 7.0, 6.0]), _curve(SCRATCH, [10.0, 8.0, 6.0])
    one = labels_saved(arm, reference, metric="a mean absolute error", unit="years", higher_is_better=False)[
        0
    ]
    assert one.equivalent == pytest.approx(10**1.5)
    assert "a mean absolute error of 9.000 years" in one.sentence


def test_large_numbers_are_rounded_and_limits_are_not() -> None:
    reference = _curve(SCRATCH, [0.7, 0.8, 0.9], budgets=(10, 100, 4708))
    arm = _curve("SimCLR", [0.85, 0.9, 0.95], budgets=(10, 50, 100))
    texts = [one.as_json()["equivalent"]["text"] for one in labels_saved(arm, reference)]
    assert texts == ["690", "4,708", "more than 4,708"]


def test_the_result_is_json() -> None:
    ours = labels_saved(_curve("SimCLR", [0.5, 0.85, 0.95], 0.02), _curve(SCRATCH, [0.7, 0.8, 0.9], 0.02))
    text = json.dumps([one.as_json() for one in ours], allow_nan=False)
    assert set(json.loads(text)[1]["equivalent"]) == {"value", "low", "high", "text", "low_text", "high_text"}


def test_a_simulated_study_with_a_known_answer() -> None:
    """Separation is log10(labels) / 2; SimCLR has that of four times as many, so 4 b are needed."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(400), 2)
    y = (np.arange(400) % 2)[patients]
    shared, own = rng.normal(size=400)[patients], rng.normal(size=(3, 6, 800))
    drawn = draw_resamples(patients, resamples=300, seed=1)
    budgets = (10, 25, 50, 100, 250, 1000)

    def curve(name: str, times: int) -> Curve:
        def at(i: int, budget: int) -> np.ndarray:
            return 0.5 * np.log10(times * budget) * y + 0.7 * shared + 0.3 * own[:, i]

        return Curve.of(name, {b: bootstrap(auroc, y, at(i, b), drawn) for i, b in enumerate(budgets)})

    ours = labels_saved(curve("SimCLR", 4), curve(SCRATCH, 1))
    for one in ours[:4]:
        assert one.low <= 4 * one.budget <= one.high
        assert one.factor == pytest.approx(4, rel=0.4)
    assert ours[1].status == "saved"
    assert math.isinf(ours[-1].equivalent)
    nothing = labels_saved(curve("SimCLR", 1), curve(SCRATCH, 1))
    assert not any(one.status == "none" or one.status == "saved" for one in nothing)


def test_mistakes_are_said() -> None:
    good = _curve(SCRATCH, [0.7, 0.8, 0.9])
    with pytest.raises(FewlabelError, match="grow"):
        Curve("SimCLR", (10, 10, 20), np.zeros(3), np.zeros((5, 3)))
    with pytest.raises(FewlabelError, match=r"\(R, B\)"):
        Curve("SimCLR", BUDGETS, np.zeros(3), np.zeros((5, 2)))
    with pytest.raises(FewlabelError, match="same Resamples"):
        labels_saved(Curve("SimCLR", BUDGETS, np.zeros(3), np.zeros((5, 3))), good)
    y, score = np.arange(12) % 2, np.arange(12.0)[None]
    apart = {
        b: bootstrap(auroc, y, score, draw_resamples(np.arange(12), resamples=5, seed=b)) for b in (1, 2)
    }
    with pytest.raises(FewlabelError, match="one Resamples"):
        Curve.of("SimCLR", apart)
