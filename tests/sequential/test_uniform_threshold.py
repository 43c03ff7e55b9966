"""The test over groups: never against the truth at the end, seldom before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.sequential.uniform_threshold import PartialSum
from optuna_quant.sequential.uniform_threshold import UniformThresholdTest
from optuna_quant.sequential.uniform_threshold import mean_bounds


ALPHA = 0.001


def history(
    scores: np.ndarray, baseline: np.ndarray | None = None, *, batch: int = 8
) -> list[PartialSum]:
    """What is known after each batch."""
    size = len(scores)
    steps = [*range(batch, size, batch), size]
    return [
        PartialSum(
            s, float(scores[:s].sum()), None if baseline is None else float(baseline[:s].sum())
        )
        for s in steps
    ]


@st.composite
def populations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a candidate and of a baseline, in any order, also the worst."""
    size = draw(st.integers(1, 60))
    score = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 1)]))
    scores = st.lists(score, min_size=size, max_size=size)
    return np.array(draw(scores)), np.array(draw(scores))


@given(populations(), st.floats(-0.1, 1.1), st.integers(1, 20), st.booleans())
def test_the_last_sample_tells_the_truth(
    scores: tuple[np.ndarray, np.ndarray], threshold: float, batch: int, paired: bool
) -> None:
    candidate, baseline = scores
    mean = candidate.mean()
    if abs(mean - threshold) < 1e-6:
        threshold = mean
    test = UniformThresholdTest(
        len(candidate), threshold, baseline=baseline.mean() if paired else None
    )
    for seen in history(candidate, baseline if paired else None, batch=batch):
        test.update(*seen)
        if seen.total >= threshold * len(candidate):
            assert not test.rejects(ALPHA)  # Nothing can take that away.
    assert test.rejects(ALPHA) == (mean < threshold)


@given(populations(), st.booleans())
def test_wealth_grows_with_the_threshold(
    scores: tuple[np.ndarray, np.ndarray], paired: bool
) -> None:
    candidate, baseline = scores
    thresholds = np.linspace(-0.2, 1.2, 57)
    test = UniformThresholdTest(
        len(candidate), thresholds, baseline=baseline.mean() if paired else None
    )
    for seen in history(candidate, baseline if paired else None, batch=7):
        test.update(*seen)
        assert np.isfinite(test.log_wealth).all()
        assert (np.diff(test.log_wealth) >= -1e-9).all()


@given(populations(), st.floats(0, 1), st.booleans())
def test_many_thresholds_at_once_are_one_by_one(
    scores: tuple[np.ndarray, np.ndarray], threshold: float, paired: bool
) -> None:
    candidate, baseline = scores
    given_baseline = baseline.mean() if paired else None
    one = UniformThresholdTest(len(candidate), threshold, baseline=given_baseline)
    many = UniformThresholdTest(len(candidate), [[0.1, threshold]], baseline=given_baseline)
    for seen in history(candidate, baseline if paired else None):
        one.update(*seen)
        many.update(*seen)
        assert many.log_wealth.shape == (1, 2)
        assert many.log_wealth[0, 1] == pytest.approx(float(one.log_wealth), abs=1e-9)


@given(populations(), st.booleans())
def test_bounds_lie_within_the_exact_ones(
    scores: tuple[np.ndarray, np.ndarray], paired: bool
) -> None:
    candidate, baseline = scores
    size = len(candidate)
    seen = history(candidate, baseline if paired else None)
    given_baseline = float(baseline.mean()) if paired else None
    for end in (1, len(seen)):
        last = seen[end - 1]
        low, high = mean_bounds(seen[:end], size, error_probability=ALPHA, baseline=given_baseline)
        assert last.total / size - 1e-9 <= low <= high + 1e-9
        assert high <= (last.total + size - last.samples) / size + 1e-9
    assert low == pytest.approx(candidate.mean(), abs=1e-6)
    assert high == pytest.approx(candidate.mean(), abs=1e-6)


def test_nothing_seen_nothing_known() -> None:
    assert mean_bounds([], 10, error_probability=ALPHA) == (0.0, 1.0)
    assert not UniformThresholdTest(10, 0.5).rejects(ALPHA)


def binary(populations: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidates right on 0.8 of the samples, baselines on 0.9; 0.2 of them disagree."""
    rng = np.random.default_rng(seed)
    places = rng.permuted(np.tile(np.arange(size) / size, (populations, 1)), axis=1)
    return (places < 0.75) | (places >= 0.95), places < 0.9


def near(populations: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are no coin flips."""
    rng = np.random.default_rng(seed)
    baseline = np.cbrt(rng.random((populations, size)))
    noise = 0.1 * rng.standard_normal(baseline.shape)
    return np.clip(baseline - 0.02 + noise, 0, 1), baseline


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("draw", [binary, near])
def test_seldom_rejects_what_meets(draw: object, paired: bool) -> None:
    populations, size, batch, alpha = 2000, 480, 16, 0.05
    candidate, baseline = draw(populations, size, 0)  # type: ignore[operator]
    test = UniformThresholdTest(
        size, candidate.mean(axis=1), baseline=baseline.mean(axis=1) if paired else None
    )
    rejected = np.zeros(populations, bool)
    for seen in range(batch, size + 1, batch):
        total = candidate[:, :seen].sum(axis=1)
        test.update(seen, total, baseline[:, :seen].sum(axis=1) if paired else None)
        rejected |= test.rejects(alpha)
    assert rejected.mean() <= alpha


@pytest.mark.parametrize("paired", [False, True])
def test_bounds_hold(paired: bool) -> None:
    size, alpha = 256, 0.1
    candidates, baselines = binary(100, size, 1)
    wrong = [0, 0]
    for candidate, baseline in zip(candidates, baselines, strict=True):
        seen = history(candidate, baseline if paired else None, batch=16)[:8]
        low, high = mean_bounds(
            seen, size, error_probability=alpha, baseline=baseline.mean() if paired else None
        )
        wrong[0] += low > candidate.mean()
        wrong[1] += high < candidate.mean()
        assert high - low < 0.4
    assert max(wrong) <= 10


def test_the_bound_is_where_rejection_begins() -> None:
    (candidate,), (baseline,) = binary(1, 1000, 2)
    seen = history(candidate, baseline, batch=20)[:20]
    _, high = mean_bounds(seen, 1000, error_probability=ALPHA, baseline=baseline.mean())
    test = UniformThresholdTest(1000, [high - 1e-4, high + 1e-6], baseline=baseline.mean())
    for point in seen:
        test.update(*point)
    assert test.rejects(ALPHA).tolist() == [False, True]


def test_decides_long_before_the_exact_bound() -> None:
    size = 10_000
    candidates, baselines = binary(20, size, 3)
    test = UniformThresholdTest(size, np.full(20, 0.89), baseline=baselines.mean(axis=1))
    for seen in range(32, 1000, 32):
        test.update(seen, candidates[:, :seen].sum(axis=1), baselines[:, :seen].sum(axis=1))
    assert test.rejects(ALPHA).sum() >= 18


def test_pairing_helps_where_scores_agree() -> None:
    size = 4096
    rng = np.random.default_rng(4)
    baseline = rng.random(size)
    candidate = np.maximum(baseline - 0.1, 0)
    wealth = {}
    for given_baseline in (None, baseline.mean()):
        test = UniformThresholdTest(size, baseline.mean() - 0.01, baseline=given_baseline)
        for seen in history(candidate, baseline, batch=1)[:160]:
            test.update(*seen)
        wealth[given_baseline is None] = float(test.log_wealth)
    assert wealth[False] > 2 * wealth[True]


def test_without_a_common_step_a_paired_test_is_an_unpaired_one() -> None:
    (candidate,), (baseline,) = binary(1, 1000, 5)
    paired = UniformThresholdTest(1000, 0.9, baseline=baseline.mean())
    alone = UniformThresholdTest(1000, 0.9)
    for seen in history(candidate, batch=20)[:10]:
        paired.update(*seen)
        alone.update(*seen)
        assert paired.log_wealth == alone.log_wealth
    # The first common step changes nothing of what has been won or lost.
    paired.update(220, candidate[:220].sum(), baseline[:220].sum())
    alone.update(220, candidate[:220].sum())
    assert paired.log_wealth == pytest.approx(alone.log_wealth)


def test_only_common_steps_count_once_there_was_one() -> None:
    (candidate,), (baseline,) = binary(1, 1000, 6)
    all_steps = history(candidate, baseline, batch=20)
    some = UniformThresholdTest(1000, 0.9, baseline=baseline.mean())
    common = UniformThresholdTest(1000, 0.9, baseline=baseline.mean())
    for i, seen in enumerate(all_steps):
        if i % 3 == 0:
            some.update(*seen)
            common.update(*seen)
        else:
            some.update(seen.samples, seen.total)
    assert some.log_wealth == common.log_wealth


@pytest.mark.parametrize("samples", [0, 5, 11])
def test_samples_go_on_and_end(samples: int) -> None:
    test = UniformThresholdTest(10, 0.5)
    test.update(5, 2)
    with pytest.raises(
        ValueError, match="more than 5, the number at the last update, and at most 10"
    ):
        test.update(samples, 3)
