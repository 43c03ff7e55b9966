"""The Bayesian sampler's own: what it fits, where it looks, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
import itertools
import math

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
import pytest
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space
from spaces import objective_of

from optuna_quant.samplers._bayesian import BayesianQuantSampler
from optuna_quant.samplers._models import bayesian_policy
from optuna_quant.samplers._models import gp
from optuna_quant.samplers._models.acquisition import Acquisition
from optuna_quant.samplers._models.bayesian_policy import BayesianPolicy
from optuna_quant.samplers._models.model_based import Observation
from optuna_quant.samplers._models.model_based import Pending
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


SIZES = [3, 2, 4, 3, 2]
ALLOWED = [(0, 1), (0, 1), (1, 2, 3), (0, 1, 2), (1,)]


def make_posterior(seed: int) -> tuple[gp.Posterior, gp.Choices, set[tuple[int, ...]]]:
    rng = np.random.default_rng(seed)
    choices = gp.Choices(SIZES)
    points = np.unique(rng.integers(0, SIZES, (14, 5)), axis=0)
    hyper = gp.Hyperparameters(rng.uniform(0.05, 0.6, 5), 1.0, 0.01)
    known = {tuple(point) for point in points.tolist()}
    return gp.Posterior(points, rng.normal(size=len(points)), choices, hyper), choices, known


@pytest.mark.parametrize("seed", range(20))
def test_the_best_free_point_is_found(seed: int) -> None:
    posterior, choices, known = make_posterior(seed)
    everything = list(itertools.product(*ALLOWED))
    free = [point for point in everything if point not in known]
    values = gp.log_expected_improvement(*posterior.predict(np.array(free)), 0.5)
    acquisition = Acquisition(posterior, 0.5, choices, ALLOWED, lambda p: p not in known)
    found = acquisition.maximize(everything[:: len(everything) // 6], climbs=6)
    assert found == free[int(np.argmax(values))]


def test_only_free_and_allowed_points_are_proposed() -> None:
    posterior, choices, known = make_posterior(0)
    everything = set(itertools.product(*ALLOWED))
    taken = set(known)
    acquisition = Acquisition(posterior, 0.5, choices, ALLOWED, lambda p: p not in taken)
    while (found := acquisition.maximize([(0, 0, 1, 0, 1)], climbs=1)) is not None:
        assert found in everything - taken
        taken.add(found)
    # Local search gives up when all around its start is taken.
    assert len(taken - known) > len(everything - known) / 2


def test_nothing_to_change_is_no_error() -> None:
    posterior, choices, _ = make_posterior(0)
    acquisition = Acquisition(posterior, 0.5, choices, [(0,)] * 5, lambda p: True)
    assert acquisition.maximize([(0, 0, 0, 0, 0)], climbs=1) is None


def observations(count: int) -> list[Observation]:
    """Scores that fall with op 0's choice and rise with op 2's, with some failures."""
    rng = np.random.default_rng(1)
    points = rng.permutation(list(itertools.product(range(3), repeat=4)))[:count]
    scores = [-math.inf if i % 9 == 5 else 2.0 * p[2] - p[0] for i, p in enumerate(points)]
    return [
        Observation(i, tuple(map(int, p)), float(s), allowed=True, floating=False)
        for i, (p, s) in enumerate(zip(points, scores, strict=True))
    ]


@pytest.fixture
def search() -> BayesianPolicy:
    space = make_space(4, (STATIC, STATIC_TENSOR, STATIC_KL))
    return BayesianPolicy(space, fallback=False, seed=0, n_startup_trials=1)


def test_the_model_is_refitted_for_every_tenth_more(
    search: BayesianPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = gp.fit

    def counting(points: gp.Ints, *args: object, **kwargs: object) -> gp.Hyperparameters:
        fitted.append(len(points))
        return fit(points, *args, **kwargs)

    monkeypatch.setattr(gp, "fit", counting)
    for count in range(17, 45):
        search._propose(observations(count), [], 0, lambda point: True)
    assert fitted == [17, 18, 19, 20, 22, 24, 26, 28, 30, 33, 36, 39, 42]


def test_proposals_follow_from_the_record_alone(search: BayesianPolicy) -> None:
    """Whenever the model was fitted before, and whatever was asked."""
    known = observations(40)
    for count in range(3, 40):
        search._propose(known[:count], [], count, lambda point: True)
    other = BayesianPolicy(search._space, fallback=False, seed=0, n_startup_trials=1)
    for seed in range(5):
        proposed = search._propose(known, [], seed, lambda point: True)
        assert proposed == other._propose(known, [], seed, lambda point: True)


def test_what_runs_is_believed_not_only_avoided() -> None:
    space = make_space(10, (STATIC, STATIC_TENSOR, STATIC_KL))
    search = BayesianPolicy(space, fallback=False, seed=0, n_startup_trials=1)
    rng = np.random.default_rng(2)
    points = [tuple(map(int, p)) for p in rng.integers(0, 3, (20, 10))]
    weights = rng.lognormal(0.0, 1.0, 10)
    known = [
        Observation(i, p, -float(weights @ p), allowed=True, floating=False)
        for i, p in enumerate(points)
    ]
    proposed = {}
    for believed in (False, True):
        pending: list[Pending] = []
        for number in range(20, 26):
            taken = {*points, *(p.point for p in pending)}
            point = search._propose(
                known, pending if believed else [], 0, lambda p, taken=taken: p not in taken
            )
            assert point is not None
            assert point not in taken
            pending.append(Pending(number, point))
        proposed[believed] = [p.point for p in pending]
    assert proposed[True][0] == proposed[False][0]
    assert proposed[True] != proposed[False]


def test_the_best_and_the_newest_are_kept() -> None:
    known = observations(60)
    kept = bayesian_policy._best_and_newest(known, 20)
    assert len(kept) == 20
    assert [o.number for o in kept] == sorted({o.number for o in kept})
    assert sorted(o.score for o in known)[-10:] == sorted(o.score for o in kept)[-10:]
    rest = [o for o in known if o not in kept]
    assert sum(o.number > max(r.number for r in rest) for o in kept) >= 1
    assert list(bayesian_policy._best_and_newest(known, 60)) == known


def test_many_trials_are_no_error(search: BayesianPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian_policy, "_MOST_OBSERVATIONS", 20)
    monkeypatch.setattr(bayesian_policy, "_MOST_FITTED", 10)
    known = observations(60)
    taken = {o.point for o in known}
    assert search._propose(known, [], 0, lambda p: p not in taken) not in taken


def test_failures_count_as_the_worst() -> None:
    _, targets = bayesian_policy._arrays(observations(20))
    scores = np.array([o.score for o in observations(20)])
    assert np.allclose(targets[np.isinf(scores)], targets.min())
    assert targets.mean() == pytest.approx(0.0)
    assert targets.std() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_optimum_of_a_sum(seed: int) -> None:
    """One of 6,561 configurations, in 40 trials."""
    options = (STATIC, STATIC_TENSOR, STATIC_KL, FP32)
    space = make_space(8, options)
    rng = np.random.default_rng(seed)
    losses = rng.lognormal(0.0, 1.0, (8, 4))

    def metric(config: QuantConfig) -> float:
        chosen = [options.index(option) for option in config.ops.values()]
        return -float(losses[np.arange(8), chosen].sum())

    study = optuna.create_study(
        direction="maximize", sampler=BayesianQuantSampler(space, seed=seed, baseline=False)
    )
    study.optimize(objective_of(space, metric), n_trials=40)
    assert study.best_value == pytest.approx(-losses[:, :3].min(axis=1).sum())


class _Sampler:
    @pytest.fixture(params=[1, 10])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: BayesianQuantSampler(make_space(3), n_startup_trials=request.param)


class TestBasic(_Sampler, BasicSamplerTestCase):
    pass


class TestRelative(_Sampler, RelativeSamplerTestCase):
    pass


class TestMultiObjective(_Sampler, MultiObjectiveSamplerTestCase):
    pass
