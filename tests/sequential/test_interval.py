"""The interval of a loss: how often it holds the truth, how wide it is, and what it keeps to."""

from __future__ import annotations

from collections.abc import Callable
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.sequential.interval import loss_interval


Pairs = tuple[np.ndarray, np.ndarray]
Pair = tuple[float, float]
Draw = Callable[[np.random.Generator, int], Pairs]

# The most misses of 200 that a probability of 5 percent gives, but for one case in a million.
MANY, MOST_MISSES = 200, 27


def binary(lost: float, gained: float, right: float = 0.7) -> Draw:
    """Right or wrong: how often the candidate alone is wrong, alone is right, and both are."""

    def draw(generator: np.random.Generator, samples: int) -> Pairs:
        kind = generator.choice(4, samples, p=[lost, gained, right, 1 - lost - gained - right])
        return np.isin(kind, [1, 2]).astype(float), np.isin(kind, [0, 2]).astype(float)

    return draw


def floats(
    generator: np.random.Generator, samples: int, low: float = 0.0, high: float = 1.0
) -> Pairs:
    b = generator.beta(0.5, 0.4, samples)
    c = b * generator.beta(8, 0.2, samples)
    return low + (high - low) * c, low + (high - low) * b


def rare(generator: np.random.Generator, samples: int) -> Pairs:
    """Almost no loss, but now and then a large one."""
    b = np.full(samples, 0.3)
    return np.where(generator.random(samples) < 0.01, 1.0, 0.29), b


def signed(generator: np.random.Generator, samples: int) -> Pairs:
    return floats(generator, samples, -0.2, 1.0)


def negative(generator: np.random.Generator, samples: int) -> Pairs:
    return floats(generator, samples, -3.0, 0.0)


def stretched(low: float, high: float) -> Pair:
    """The means of what :func:`floats` draws: those of beta distributions."""
    b = 0.5 / 0.9
    c = b * 8 / 8.2
    return low + (high - low) * c, low + (high - low) * b


# What draws, the bounds, and the true mean scores of the candidate and of the baseline.
DRAWS: dict[str, tuple[Draw, Pair, Pair]] = {
    "few": (binary(0.02, 0.01), (0.0, 1.0), (0.71, 0.72)),
    "many": (binary(0.2, 0.1, 0.5), (0.0, 1.0), (0.6, 0.7)),
    "better": (binary(0.0, 0.03, 0.9), (0.0, 1.0), (0.93, 0.9)),
    "floats": (floats, (0.0, 1.0), stretched(0.0, 1.0)),
    "rare": (rare, (0.0, 1.0), (0.01 + 0.99 * 0.29, 0.3)),
    "signed": (signed, (-0.2, 1.0), stretched(-0.2, 1.0)),
    "negative": (negative, (-3.0, 0.0), stretched(-3.0, 0.0)),
}
SAMPLES = [10, 300]
# Whether higher is better, and whether the loss is relative. The first makes no difference, as
# test_the_scale_can_be_turned_over shows.
WAYS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("draw", "bounds", "means", "samples", "higher_is_better", "relative"),
    [
        pytest.param(*DRAWS[name], samples, *WAYS[(i + j) % len(WAYS)], id=f"{name}-{samples}")
        for i, name in enumerate(DRAWS)
        for j, samples in enumerate(SAMPLES)
    ],
)
def test_the_truth_is_inside_as_often_as_is_said(
    draw: Draw,
    bounds: Pair,
    means: Pair,
    samples: int,
    higher_is_better: bool,
    relative: bool,
) -> None:
    generator = np.random.default_rng(7)
    criterion = AccuracyCriterion(
        higher_is_better=higher_is_better, criterion="relative" if relative else "absolute"
    )
    truth = criterion.loss(*means)
    misses = 0
    for _ in range(MANY):
        candidate, baseline = draw(generator, samples)
        if relative and baseline.mean() == 0:
            continue
        low, high = loss_interval(
            candidate,
            baseline,
            bounds=bounds,
            higher_is_better=higher_is_better,
            relative=relative,
        )
        misses += not low <= truth <= high
    assert misses <= MOST_MISSES


@pytest.mark.parametrize("samples", [30, 1000, 20_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_without_any_difference_it_is_as_narrow_as_one_over_the_samples(
    samples: int, confidence: float
) -> None:
    scores = np.ones(samples)
    low, high = loss_interval(
        scores,
        scores,
        bounds=(0.0, 1.0),
        higher_is_better=True,
        relative=False,
        confidence=confidence,
    )
    unit = math.log(2 / (1 - confidence)) / samples
    assert low == -high
    assert 0.9 * unit < high < 2 * unit


def test_one_sample_says_almost_nothing() -> None:
    low, high = loss_interval(
        np.ones(1), np.ones(1), bounds=(0.0, 1.0), higher_is_better=True, relative=False
    )
    assert (low, high) == (-1.0, 1.0)


def test_a_relative_loss_without_a_bound_of_its_own_may_be_infinite() -> None:
    low, high = loss_interval(
        np.zeros(2), np.array([0.0, 1.0]), bounds=(0.0, 1.0), higher_is_better=True, relative=True
    )
    assert high == 1.0
    low, high = loss_interval(
        np.ones(2), np.array([-1.0, 1.5]), bounds=(-2.0, 2.0), higher_is_better=True, relative=True
    )
    assert (low, high) == (-math.inf, math.inf)


@pytest.mark.parametrize("relative", [True, False])
def test_it_is_not_much_wider_than_the_usual_one(relative: bool) -> None:
    candidate, baseline = binary(0.03, 0.02)(np.random.default_rng(0), 5000)
    low, high = loss_interval(
        candidate, baseline, bounds=(0.0, 1.0), higher_is_better=True, relative=relative
    )
    usual = 2 * 1.96 * float((baseline - candidate).std()) / math.sqrt(5000)
    ratio = (high - low) / (usual / float(baseline.mean()) if relative else usual)
    assert 1.3 < ratio < 1.5


def test_orders_are_mixed() -> None:
    """Sorted samples, the differences last, give about the same as samples in any order."""
    c, b = binary(0.05, 0.02)(np.random.default_rng(3), 2000)
    by_difference = np.argsort(b - c, kind="stable")
    given = {"bounds": (0.0, 1.0), "higher_is_better": True, "relative": False}
    mixed = loss_interval(c, b, **given)
    ordered = loss_interval(c[by_difference], b[by_difference], **given)
    assert ordered == pytest.approx(mixed, abs=2e-3)


def test_mixed_signs_do_not_cost_much() -> None:
    c, b = floats(np.random.default_rng(0), 3000)
    known = loss_interval(c, b, bounds=(0.0, 1.0), higher_is_better=True, relative=True)
    other = loss_interval(c, b, bounds=(-1e-9, 1.0), higher_is_better=True, relative=True)
    assert known[1] - known[0] < other[1] - other[0] < 1.5 * (known[1] - known[0])


# Whatever the scores are.


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    low, high = draw(st.sampled_from([(0.0, 1.0), (0.5, 2.0), (-1.0, 3.0), (-2.0, 0.0)]))
    some = st.sampled_from([low, high])
    score = draw(st.sampled_from([some, st.floats(low, high, allow_subnormal=False)]))
    size = draw(st.integers(1, 30))
    scores = [np.array(draw(st.lists(score, min_size=size, max_size=size))) for _ in range(2)]
    relative = draw(st.booleans())
    if relative and abs(scores[1].mean()) < 1e-6:
        scores[1] = np.full(size, high if high else low)
    return {
        "candidate": scores[0],
        "baseline": scores[1],
        "bounds": (low, high),
        "higher_is_better": draw(st.booleans()),
        "relative": relative,
    }


def point(case: dict[str, object]) -> float:
    candidate, baseline = case["candidate"].mean(), case["baseline"].mean()  # type: ignore[attr-defined]
    criterion = AccuracyCriterion(
        higher_is_better=bool(case["higher_is_better"]),
        criterion="relative" if case["relative"] else "absolute",
    )
    return criterion.loss(float(candidate), float(baseline))


@given(cases(), st.floats(0.01, 0.99))
def test_the_loss_of_the_samples_is_inside(case: dict[str, object], confidence: float) -> None:
    low, high = loss_interval(**case, confidence=confidence)  # type: ignore[arg-type]
    rounding = 1e-9 * max(1.0, abs(point(case)))
    assert low - rounding <= point(case) <= high + rounding


@given(cases(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_more_confidence_is_wider(case: dict[str, object], one: float, other: float) -> None:
    narrow = loss_interval(**case, confidence=min(one, other))  # type: ignore[arg-type]
    wide = loss_interval(**case, confidence=max(one, other))  # type: ignore[arg-type]
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


@given(cases())
def test_it_is_within_what_is_possible(case: dict[str, object]) -> None:
    low, high = loss_interval(**case)  # type: ignore[arg-type]
    bounds = case["bounds"]
    assert isinstance(bounds, tuple)
    size = bounds[1] - bounds[0]
    if not case["relative"]:
        assert -size <= low <= high <= size
        return
    if bounds == (0.5, 2.0):
        assert (-3.0 <= low <= high <= 0.75) or (-0.75 <= low <= high <= 3.0)
    if bounds[0] == 0:
        assert high <= 1.0 if case["higher_is_better"] else low >= -1.0
    if bounds[1] == 0:
        assert low >= -1.0 if case["higher_is_better"] else high <= 1.0


@given(cases())
def test_the_models_can_be_exchanged(case: dict[str, object]) -> None:
    case = {**case, "relative": False}
    low, high = loss_interval(**case)  # type: ignore[arg-type]
    swapped = {**case, "candidate": case["baseline"], "baseline": case["candidate"]}
    assert loss_interval(**swapped) == (-high, -low)  # type: ignore[arg-type]
    turned = {**case, "higher_is_better": not case["higher_is_better"]}
    assert loss_interval(**turned) == (-high, -low)  # type: ignore[arg-type]


@given(cases())
def test_the_scale_can_be_turned_over(case: dict[str, object]) -> None:
    """Scores with the opposite sign, of which lower is better, are the same thing."""
    bounds = case["bounds"]
    assert isinstance(bounds, tuple)
    turned = {
        **case,
        "candidate": -case["candidate"],  # type: ignore[operator]
        "baseline": -case["baseline"],  # type: ignore[operator]
        "bounds": (-bounds[1], -bounds[0]),
        "higher_is_better": not case["higher_is_better"],
    }
    expected = loss_interval(**case)  # type: ignore[arg-type]
    assert loss_interval(**turned) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


@given(cases())
def test_it_is_the_same_each_time(case: dict[str, object]) -> None:
    assert loss_interval(**case) == loss_interval(**case)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"confidence": 1.0}, "confidence must be above 0 and below 1, but got 1.0"),
        ({"confidence": 0}, "confidence must be above 0"),
        ({"bounds": (1.0, 1.0)}, "bounds must be two finite numbers"),
        ({"bounds": (0.0, math.inf)}, "bounds must be two finite numbers"),
        ({"baseline": np.ones(3)}, "the same samples, but there are 4 and 3"),
        ({"candidate": np.ones((4, 1))}, r"candidate must be .* has the shape \(4, 1\)"),
        ({"candidate": np.ones(0)}, "at least one"),
        ({"candidate": np.array([0, 1, 2, 1.0])}, r"candidate has the score 2.0.*\(0.0, 1.0\)"),
        ({"baseline": np.array([0, 1, np.nan, 1])}, "baseline has the score nan"),
        ({"baseline": np.zeros(4)}, "mean of the baseline is 0"),
    ],
)
def test_what_makes_no_sense_is_an_error(changed: dict[str, object], message: str) -> None:
    fits = {
        "candidate": np.ones(4),
        "baseline": np.ones(4),
        "bounds": (0.0, 1.0),
        "higher_is_better": True,
        "relative": True,
    }
    with pytest.raises(ValueError, match=message):
        loss_interval(**{**fits, **changed})  # type: ignore[arg-type]
