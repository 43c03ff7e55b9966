"""The TPE sampler's own: its shadow of the study, and the arguments of TPE."""

from __future__ import annotations

from collections.abc import Callable
import math

import optuna
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
import pytest
from spaces import keys
from spaces import make_space
from spaces import objective_of

from optuna_quant.samplers._models.model_based import Observation
from optuna_quant.samplers._models.model_based import Pending
from optuna_quant.samplers._models.tpe_shadow import ShadowStudy
from optuna_quant.samplers._tpe import TPEQuantSampler


ALLOWED = [(0, 1, 2), (1, 3), (2,), (0, 1, 2, 3)]
POINTS = [(i % 3, (1, 3)[i % 2], 2, (i * 7) % 4) for i in range(12)]


def observation(number: int, score: float | None = None) -> Observation:
    score = float(POINTS[number][0] - POINTS[number][3]) if score is None else score
    return Observation(number, POINTS[number], score, allowed=True, floating=False)


def asked(shadow: ShadowStudy) -> list[tuple[int, ...]]:
    return [shadow.ask(seed) for seed in range(8)]


def rebuilt(observations: list[Observation], pending: list[Pending] | None = None) -> ShadowStudy:
    shadow = ShadowStudy(ALLOWED, {})
    shadow.update(observations, pending or [])
    return shadow


def test_mirror_proposes_allowed_choices() -> None:
    points = asked(rebuilt([observation(i) for i in range(12)]))
    assert all(i in allowed for point in points for i, allowed in zip(point, ALLOWED, strict=True))
    assert len(set(points)) > 1


def test_mirror_grows_into_what_it_would_have_been() -> None:
    everything = [observation(i) for i in range(12)]
    shadow = ShadowStudy(ALLOWED, {})
    for count in range(1, 13):
        shadow.update(everything[:count], [])
        asked(shadow)  # What was asked leaves no trace.
    assert asked(shadow) == asked(rebuilt(everything))


def test_mirror_does_not_depend_on_the_order_of_arrival() -> None:
    everything = [observation(i) for i in range(12)]
    shadow = ShadowStudy(ALLOWED, {})
    for known in (everything[3:6], everything[3:], everything[1:], everything):
        shadow.update(known, [])
    assert asked(shadow) == asked(rebuilt(everything))


def test_mirror_follows_running_trials() -> None:
    shadow = ShadowStudy(ALLOWED, {})
    known = [observation(i) for i in range(6)]
    running = [Pending(i, POINTS[i]) for i in (6, 7, 8)]
    shadow.update(known, running)
    assert asked(shadow) == asked(rebuilt(known, running))
    # 7 has ended; then 6 has failed and is gone, 8 has failed for good and 9 is new.
    known.append(observation(7))
    shadow.update(known, [running[0], running[2]])
    assert asked(shadow) == asked(rebuilt(known, [running[0], running[2]]))
    known += [observation(8, -math.inf), observation(9)]
    shadow.update(known, [])
    assert asked(shadow) == asked(rebuilt(known))


def test_mirror_takes_back_what_has_changed() -> None:
    shadow = rebuilt([observation(i) for i in range(12)])
    changed = [observation(i, 100.0 if i == 4 else None) for i in range(12)]
    shadow.update(changed, [])
    assert asked(shadow) == asked(rebuilt(changed))


def test_running_trials_count_as_bad() -> None:
    """As with TPE's constant liar, so that others look elsewhere."""
    known = [observation(i) for i in range(8)]
    points = asked(rebuilt(known))
    favourite = max(points, key=points.count)
    pending = [Pending(i, favourite) for i in range(8, 12)]
    assert asked(rebuilt(known, pending)).count(favourite) < points.count(favourite)


def test_the_mirror_is_not_announced(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    rebuilt([observation(i) for i in range(3)]).ask(0)
    assert capfd.readouterr().err == ""
    optuna.create_study(study_name="announced")
    assert "announced" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "tpe_kwargs",
    [{"multivariate": False}, {"group": True}, {"n_ei_candidates": 2}, {"constant_liar": False}],
)
def test_options_of_tpe(tpe_kwargs: dict[str, object]) -> None:
    space = make_space(10)
    studies = []
    for given in (tpe_kwargs, {"multivariate": True}):
        study = optuna.create_study(
            direction="maximize",
            sampler=TPEQuantSampler(space, fallback=True, n_startup_trials=3, tpe_kwargs=given),
        )
        study.optimize(
            objective_of(space, lambda config: -float(len(config.fallback_ops))), n_trials=12
        )
        assert len(set(keys(study, space))) == 12
        studies.append(keys(study, space))
    same = "constant_liar" in tpe_kwargs or "group" in tpe_kwargs
    assert (studies[0] == studies[1]) == same


@pytest.mark.parametrize("name", ["seed", "n_startup_trials"])
def test_what_is_ours_is_refused_among_the_options_of_tpe(name: str) -> None:
    with pytest.raises(ValueError, match=f"tpe_kwargs must not have '{name}': pass {name} to"):
        TPEQuantSampler(make_space(2), tpe_kwargs={name: 3})


def test_unknown_options_of_tpe_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="candidates"):
        TPEQuantSampler(make_space(2), tpe_kwargs={"candidates": 3})


class _Sampler:
    @pytest.fixture(params=[1, 10])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: TPEQuantSampler(make_space(3), n_startup_trials=request.param)


# What takes all values of all parameters is tested with the Bayesian sampler, which is alike.


class TestBasic(_Sampler, BasicSamplerTestCase):
    test_combination_of_different_distributions_objective = None


class TestRelative(_Sampler, RelativeSamplerTestCase):
    test_sample_relative_numerical = None


class TestMultiObjective(_Sampler, MultiObjectiveSamplerTestCase):
    pass
