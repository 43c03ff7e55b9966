"""What is wrong with a sampler's arguments is said where it is made, not inside the study."""

from __future__ import annotations

from typing import Any

import pytest
from sample_models import backend_of

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import TPEQuantSampler
from optuna_quant.samplers._engine.keywords import keywords_of


SPACE = backend_of().tuning_space()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"criterion": 0.01}, r"criterion must be .* as AccuracyCriterion\(tolerable_loss=0.01\)"),
        ({"criterion": AccuracyCriterion}, r"and not the class: AccuracyCriterion\(\), but got"),
        ({"criterion": "relative"}, "criterion must be an AccuracyCriterion, .*'relative'"),
        ({"independent_sampler": "tpe"}, "independent_sampler must be a sampler .* but got 'tpe'"),
    ],
)
@pytest.mark.parametrize("cls", [BasicQuantSampler, ExhaustiveQuantSampler, TPEQuantSampler])
def test_arguments_of_another_type(cls: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cls(SPACE, **given)


def test_an_argument_that_does_not_exist_is_told_the_nearest() -> None:
    with pytest.raises(
        TypeError,
        match="^BasicQuantSampler has no argument 'max_op_trials'. Did you mean "
        r"'max_op_type_trials'\? It has: max_op_type_trials, patience, .*, criterion, ",
    ):
        BasicQuantSampler(SPACE, max_op_trials=5)
    with pytest.raises(TypeError, match="^ExhaustiveQuantSampler has .* mean 'criterion'"):
        ExhaustiveQuantSampler(SPACE, critrion=None)


def test_the_class_of_the_user_is_the_one_that_is_named() -> None:
    class Own(BasicQuantSampler):
        def __init__(self, *args: Any, own: int = 0, **kwargs: Any) -> None:
            kwargs.pop("handled", None)
            super().__init__(*args, **kwargs)

    Own(SPACE, own=1, handled=True)
    with pytest.raises(TypeError, match="^Own has no argument 'oen'. Did you mean 'own'"):
        Own(SPACE, oen=1)
    assert keywords_of(Own)[0] == "own"


@pytest.mark.parametrize("cls", [ExitPolicy, AccuracyPruner])
def test_what_judges_takes_a_criterion(cls: Any) -> None:
    with pytest.raises(TypeError, match="criterion must be an AccuracyCriterion, as Acc"):
        cls(0.01)
