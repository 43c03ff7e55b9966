"""The policy of the Bayesian sampler: it fits a Gaussian process and proposes a point."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.samplers._models import gp
from optuna_quant.samplers._models.acquisition import Acquisition
from optuna_quant.samplers._models.model_based import ModelBasedPolicy
from optuna_quant.samplers._models.model_based import Observation
from optuna_quant.samplers._models.model_based import Pending
from optuna_quant.samplers._models.threads import single_threaded_blas


if TYPE_CHECKING:
    from optuna_quant.samplers._models.points import Point
    from optuna_quant.space.space import TuningSpace


# The cost of the model grows with the cube of the number of observations.
_MOST_OBSERVATIONS = 400
_MOST_FITTED = 200
_BEST_STARTS = 3
_RANDOM_STARTS = 3
_CLIMBS = 2


class BayesianPolicy(ModelBasedPolicy):
    """Fit a Gaussian process to the record, and maximize the expected improvement.

    The hyperparameters are refitted whenever there is a tenth more observations, always from
    the same start and to the first so many trials, so that every process finds the same.
    """

    def __init__(
        self, space: TuningSpace, *, fallback: bool, seed: int, n_startup_trials: int
    ) -> None:
        super().__init__(
            space,
            fallback=fallback,
            seed=seed,
            n_startup_trials=n_startup_trials,
            stage="bayesian",
        )
        self._choices = gp.Choices([len(p.choices) for p in space.parameters])
        self._fitted_to: Sequence[Observation] = ()
        self._hyper: gp.Hyperparameters | None = None

    def _learns_from(self, observation: Observation) -> bool:
        return not observation.floating

    def _propose(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Pending],
        seed: int,
        is_free: Callable[[Point], bool],
    ) -> Point | None:
        with single_threaded_blas():
            return self._maximize(observations, pending, seed, is_free)

    def _maximize(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Pending],
        seed: int,
        is_free: Callable[[Point], bool],
    ) -> Point | None:
        hyper = self._fit(observations)
        used = _best_and_newest(observations, _MOST_OBSERVATIONS)
        points, targets = _arrays(used)
        posterior = gp.Posterior(points, targets, self._choices, hyper)
        comparable = points[[observation.comparable for observation in used]]
        mean, _ = posterior.predict(comparable)
        best = comparable[np.argsort(-mean, kind="stable")[:_BEST_STARTS]]
        rng = np.random.default_rng(seed)
        random = [[rng.choice(a) for a in self._points.allowed] for _ in range(_RANDOM_STARTS)]
        claimed = np.array([p.point for p in pending], dtype=np.int64).reshape(-1, points.shape[1])
        acquisition = Acquisition(
            posterior.believe(claimed),
            # Of what was seen, the mean rather than the value, which is noisy.
            float(mean.max() if len(mean) else targets.max()),
            self._choices,
            self._points.allowed,
            is_free,
        )
        starts = [tuple(map(int, point)) for point in (*best, *random)]
        return acquisition.maximize(starts, climbs=_CLIMBS)

    def _fit(self, observations: Sequence[Observation]) -> gp.Hyperparameters:
        first = observations[: _refit_size(len(observations))]
        if self._hyper is None or first != self._fitted_to:
            points, targets = _arrays(_best_and_newest(first, _MOST_FITTED))
            self._hyper = gp.fit(points, targets, self._choices)
            self._fitted_to = first
        return self._hyper


def _refit_size(count: int) -> int:
    """The largest number up to ``count`` of 1, 2, ..., 20, 22, ..., growing by a tenth."""
    size = 1
    while (larger := size + max(1, size // 10)) <= count:
        size = larger
    return size


def _best_and_newest(observations: Sequence[Observation], most: int) -> Sequence[Observation]:
    """All, or half the best (comparable ones first) and half the newest of the others."""
    if len(observations) <= most:
        return observations
    ranked = sorted(observations, key=lambda o: (not o.comparable, -o.score))
    best, others = ranked[: most // 2], ranked[most // 2 :]
    newest = sorted(others, key=lambda o: -o.number)[: most - len(best)]
    return sorted([*best, *newest], key=lambda o: o.number)


def _arrays(observations: Sequence[Observation]) -> tuple[gp.Ints, gp.Floats]:
    """The points, and the scores with mean zero and variance one."""
    points = np.array([o.point for o in observations], dtype=np.int64)
    scores = np.array([o.score for o in observations])
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return points, np.zeros(len(scores))
    # What failed counts as the worst that was seen.
    scores = np.clip(scores, finite.min(), finite.max())
    spread = scores.std()
    return points, (scores - scores.mean()) / (spread if spread > 0.0 else 1.0)
