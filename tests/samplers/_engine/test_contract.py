"""What a search asks of samplers, and what holds if they do not answer."""

from __future__ import annotations

import optuna
import pytest
from sample_models import backend_of
from sample_models import sampler_of

from optuna_quant import AccuracyCriterion
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import HasClaimTimeout
from optuna_quant.samplers import HasCriterion
from optuna_quant.samplers import TellsAnswers
from optuna_quant.samplers import TellsExhaustion
from optuna_quant.samplers import TellsNewConfigs
from optuna_quant.samplers._engine.contract import LAST_TRIALS_SECONDS
from optuna_quant.samplers._engine.contract import claim_timeout_of
from optuna_quant.samplers._engine.contract import criterion_of


CRITERION = AccuracyCriterion(tolerable_loss=0.01)
ALL = (HasClaimTimeout, HasCriterion, TellsAnswers, TellsExhaustion, TellsNewConfigs)


@pytest.mark.parametrize("protocol", ALL)
def test_samplers_of_optuna_have_none_of_them(protocol: type) -> None:
    assert not isinstance(optuna.samplers.RandomSampler(), protocol)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("name", ["random", "basic", "mse", "surrogate", "tpe"])
def test_our_samplers_have_all_of_them(name: str, protocol: type) -> None:
    assert isinstance(sampler_of(name, backend_of()), protocol)


def test_criterion_is_that_of_the_sampler_or_pruner() -> None:
    assert criterion_of(AccuracyPruner(CRITERION)) == CRITERION
    assert criterion_of(optuna.samplers.RandomSampler()) is None
    assert criterion_of(optuna.pruners.NopPruner()) is None


def test_claim_timeout_is_that_of_the_sampler() -> None:
    class Never(optuna.samplers.RandomSampler):
        claim_timeout = None

    assert claim_timeout_of(Never()) is None
    assert claim_timeout_of(optuna.samplers.RandomSampler()) == LAST_TRIALS_SECONDS
