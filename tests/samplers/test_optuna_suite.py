"""Optuna's own test suite for samplers, for each of ours."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
import pytest
from spaces import blocks_of
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import HAWQV2QuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.space.config import QuantConfig


# The suite minimizes.
CRITERION = AccuracyCriterion(higher_is_better=False)


def scores(config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
    return {op: float(len(op)) for op in ops}


# TPE and Bayesian have the suite in their own files.
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "basic": lambda: BasicQuantSampler(make_space(3)),
    "basic with blocks": lambda: BasicQuantSampler(make_space(4), blocks=blocks_of(make_space(4))),
    "exhaustive": lambda: ExhaustiveQuantSampler(make_space(3)),
    "random": lambda: RandomQuantSampler(make_space(3), seed=1),
    "auto": lambda: AutoQuantSampler(make_space(3), criterion=CRITERION),
    "auto, as neural-compressor": lambda: AutoQuantSampler(
        make_space(3), criterion=CRITERION, compat="inc2"
    ),
    "surrogate": lambda: SurrogateQuantSampler(
        make_space(3), criterion=CRITERION, sensitivity=scores
    ),
    "surrogate with blocks": lambda: SurrogateQuantSampler(
        make_space(4), criterion=CRITERION, blocks=blocks_of(make_space(4))
    ),
    "conservative": lambda: ConservativeQuantSampler(make_space(3), criterion=CRITERION),
    "mse": lambda: MSEQuantSampler(make_space(3), sensitivity=scores),
    "mse_v2": lambda: MSEV2QuantSampler(make_space(3), criterion=CRITERION, sensitivity=scores),
    "hawq_v2": lambda: HAWQV2QuantSampler(make_space(3), sensitivity=scores),
}


# One of each kind has all values of all parameters; the others treat parameters as these do.
IN_FULL = ["basic", "exhaustive", "surrogate"]


class _InFull:
    @pytest.fixture(params=IN_FULL)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return SAMPLERS[request.param]


class _Others:
    @pytest.fixture(params=sorted(SAMPLERS.keys() - set(IN_FULL)))
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return SAMPLERS[request.param]


class TestBasic(_InFull, BasicSamplerTestCase):
    pass


class TestRelative(_InFull, RelativeSamplerTestCase):
    pass


class TestMultiObjective(_InFull, MultiObjectiveSamplerTestCase):
    pass


class TestOthers(_Others, BasicSamplerTestCase, RelativeSamplerTestCase):
    test_combination_of_different_distributions_objective = None
    test_sample_relative_numerical = None
