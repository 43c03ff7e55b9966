"""Samplers that search a tuning space, one per strategy."""

from optuna_quant.samplers._auto import AutoQuantSampler
from optuna_quant.samplers._base import QuantSampler
from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._bayesian import BayesianQuantSampler
from optuna_quant.samplers._conservative import ConservativeQuantSampler
from optuna_quant.samplers._earlier_study import study_prior
from optuna_quant.samplers._exhaustive import ExhaustiveQuantSampler
from optuna_quant.samplers._mse import HAWQV2QuantSampler
from optuna_quant.samplers._mse import MSEQuantSampler
from optuna_quant.samplers._mse import MSEV2QuantSampler
from optuna_quant.samplers._pareto import ParetoQuantSampler
from optuna_quant.samplers._prior import StudyPrior
from optuna_quant.samplers._random import RandomQuantSampler
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._registry import strategies
from optuna_quant.samplers._reports import Abandoned
from optuna_quant.samplers._reports import RaceReport
from optuna_quant.samplers._reports import Speculation
from optuna_quant.samplers._requests import Evaluation
from optuna_quant.samplers._requests import Plan
from optuna_quant.samplers._requests import Race
from optuna_quant.samplers._requests import Scoring
from optuna_quant.samplers._requests import SeesSamples
from optuna_quant.samplers._requests import Stage
from optuna_quant.samplers._scores import Sensitivity
from optuna_quant.samplers._staged import StagedQuantSampler
from optuna_quant.samplers._surrogate import SurrogateQuantSampler
from optuna_quant.samplers._surrogate_policy import Belief
from optuna_quant.samplers._tpe import TPEQuantSampler


__all__ = [
    "Abandoned",
    "AutoQuantSampler",
    "BasicQuantSampler",
    "BayesianQuantSampler",
    "Belief",
    "ConservativeQuantSampler",
    "Evaluation",
    "ExhaustiveQuantSampler",
    "HAWQV2QuantSampler",
    "MSEQuantSampler",
    "MSEV2QuantSampler",
    "ParetoQuantSampler",
    "Plan",
    "QuantSampler",
    "Race",
    "RaceReport",
    "RandomQuantSampler",
    "Scoring",
    "SeesSamples",
    "Sensitivity",
    "Speculation",
    "Stage",
    "StagedQuantSampler",
    "StudyPrior",
    "SurrogateQuantSampler",
    "TPEQuantSampler",
    "register_strategy",
    "strategies",
    "study_prior",
]
