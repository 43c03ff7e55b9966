"""The mathematics of the Gaussian process, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal
from scipy.stats import norm

from optuna_quant.samplers._models import gp


SIZES = [3, 2, 4, 2]
HYPER = gp.Hyperparameters(np.array([0.5, 0.0, 1.5, 0.1]), 2.0, 0.3)


def make_points(count: int, sizes: list[int] = SIZES, seed: int = 0) -> gp.Ints:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, count) for size in sizes], axis=1)


def dense_covariance(a: gp.Ints, b: gp.Ints, hyper: gp.Hyperparameters) -> gp.Floats:
    """The kernel as it is written down."""
    return np.array(
        [[hyper.variance * np.exp(-(hyper.relevance * (x != y)).sum()) for y in b] for x in a]
    )


@pytest.fixture
def choices() -> gp.Choices:
    return gp.Choices(SIZES)


@pytest.fixture
def theta() -> gp.Floats:
    return np.log([0.5, 0.02, 1.5, 0.1, 2.0, 0.3])


def test_points_are_encoded_as_one_per_parameter(choices: gp.Choices) -> None:
    encoded = choices.encode(np.array([[2, 0, 3, 1]]))
    assert encoded.tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1]]
    assert choices.owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]


def test_covariance_is_the_kernel(choices: gp.Choices) -> None:
    a, b = make_points(7), make_points(5, seed=1)
    found = gp.covariance(choices.encode(a), choices.encode(b), choices, HYPER)
    np.testing.assert_allclose(found, dense_covariance(a, b, HYPER))


def test_negative_log_posterior_is_likelihood_times_priors(choices: gp.Choices) -> None:
    points, prior = make_points(9), gp.Prior()
    targets = np.random.default_rng(2).normal(size=9)

    def plain(theta: gp.Floats) -> float:
        hyper = gp.Hyperparameters(np.exp(theta[:4]), np.exp(theta[4]), np.exp(theta[5]))
        matrix = dense_covariance(points, points, hyper) + hyper.noise * np.eye(9)
        likelihood = multivariate_normal(np.zeros(9), matrix).logpdf(targets)
        return -likelihood - norm(prior.centre(4), prior.width(4)).logpdf(theta).sum()

    def ours(theta: gp.Floats) -> float:
        return gp.negative_log_posterior(theta, choices.encode(points), targets, choices, prior)[0]

    first, second = np.random.default_rng(3).normal(-1.0, 1.0, (2, 6))
    # Both are known up to the same constant.
    assert ours(first) - ours(second) == pytest.approx(plain(first) - plain(second))


@pytest.mark.parametrize("seed", range(5))
def test_gradient_is_the_slope(seed: int, choices: gp.Choices) -> None:
    rng = np.random.default_rng(seed)
    encoded, targets = choices.encode(make_points(12, seed=seed)), rng.normal(size=12)
    theta = rng.normal(-1.0, 1.0, 6)

    def value(theta: gp.Floats) -> float:
        return gp.negative_log_posterior(theta, encoded, targets, choices, gp.Prior())[0]

    _, gradient = gp.negative_log_posterior(theta, encoded, targets, choices, gp.Prior())
    step = 1e-5
    slopes = [(value(theta + e) - value(theta - e)) / (2 * step) for e in step * np.eye(6)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)


def test_posterior_is_the_conditional_normal(choices: gp.Choices) -> None:
    points, others = make_points(10), make_points(6, seed=1)
    targets = np.random.default_rng(2).normal(size=10)
    matrix = dense_covariance(points, points, HYPER) + HYPER.noise * np.eye(10)
    cross = dense_covariance(others, points, HYPER)
    mean, deviation = gp.Posterior(points, targets, choices, HYPER).predict(others)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(matrix, targets))
    explained = cross @ np.linalg.solve(matrix, cross.T)
    np.testing.assert_allclose(deviation**2, HYPER.variance - np.diag(explained))


def test_changes_are_predicted_as_the_changed_points(choices: gp.Choices) -> None:
    posterior = gp.Posterior(make_points(10), np.linspace(-1, 1, 10), choices, HYPER)
    point, columns = np.array([1, 0, 2, 1]), np.arange(11)
    changed = np.repeat(point[None], 11, axis=0)
    changed[columns, choices.owner] = columns - choices.starts[choices.owner]
    for found, expected in zip(
        posterior.predict_changes(point, columns), posterior.predict(changed), strict=True
    ):
        np.testing.assert_allclose(found, expected)


def test_believing_changes_the_deviation_alone(choices: gp.Choices) -> None:
    posterior = gp.Posterior(make_points(8), np.linspace(-1, 1, 8), choices, HYPER)
    believed, everywhere = make_points(2, seed=5), make_points(30, seed=6)
    mean, deviation = posterior.predict(everywhere)
    mean_after, deviation_after = posterior.believe(believed).predict(everywhere)
    np.testing.assert_allclose(mean_after, mean, atol=1e-12)
    assert np.all(deviation_after <= deviation + 1e-12)
    assert deviation_after.sum() < deviation.sum() - 0.01
    assert posterior.believe(np.empty((0, 4), dtype=np.int64)) is posterior


def test_fit_finds_what_matters() -> None:
    sizes = [3] * 12
    points = make_points(80, sizes)
    values = 2.0 * points[:, 3] - 1.5 * (points[:, 7] == 1)
    targets = (values - values.mean()) / values.std()
    hyper = gp.fit(points, targets, gp.Choices(sizes))
    assert set(np.argsort(-hyper.relevance)[:2]) == {3, 7}
    assert hyper.relevance[[3, 7]].min() > 10 * np.delete(hyper.relevance, [3, 7]).max()
    assert hyper.noise < 0.01


def test_fit_leaves_the_prior_where_there_is_nothing_to_learn() -> None:
    sizes = [2] * 30
    hyper = gp.fit(make_points(3, sizes), np.zeros(3), gp.Choices(sizes))
    prior = gp.Prior()
    assert np.all(np.abs(np.log(hyper.relevance * 30 / prior.total_relevance)) < 0.5)


def test_fit_sees_noise() -> None:
    targets = np.random.default_rng(0).normal(size=60)
    hyper = gp.fit(make_points(60, [4] * 8), targets, gp.Choices([4] * 8))
    assert hyper.noise > 0.3


@pytest.mark.parametrize("z", [-30.0, -8.0, -1.0 - 1e-9, -1.0, -0.5, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("deviation", [1e-3, 1.0, 20.0])
def test_log_expected_improvement(z: float, deviation: float) -> None:
    best = 0.7
    # The integral of improvement times density, with the largest exponent taken out.
    width = 1.0 / max(1.0, -z)
    improvement = np.linspace(0.0, 50.0 * width + max(0.0, 2.0 * z), 400_001)
    exponent = -0.5 * (improvement - z) ** 2
    top = exponent.max()
    expected = np.log(trapezoid(improvement * np.exp(exponent - top), improvement)) + top
    expected += np.log(deviation) - 0.5 * np.log(2.0 * np.pi)
    mean = np.array([best + z * deviation])
    found = gp.log_expected_improvement(mean, np.array([deviation]), best)
    assert found[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_log_expected_improvement_far_below_the_best() -> None:
    z = -np.logspace(2, 9, 2000)
    found = gp.log_expected_improvement(z, np.ones_like(z), 0.0)
    series = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z) + np.log1p(-3 / z**2)
    np.testing.assert_allclose(found, series, rtol=1e-9, atol=1e-6)
    assert np.all(np.diff(found) < 0)
