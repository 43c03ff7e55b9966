"""Samplers that search a tuning space, one per strategy.

May import: `samplers._models` and what is below it.
"""

from optuna_quant.backends.base import Sensitivity
from optuna_quant.samplers._auto import AutoQuantSampler
from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._bayesian import BayesianQuantSampler
from optuna_quant.samplers._conservative import ConservativeQuantSampler
from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._engine.contract import HasClaimTimeout
from optuna_quant.samplers._engine.contract import HasCriterion
from optuna_quant.samplers._engine.contract import TellsAnswers
from optuna_quant.samplers._engine.contract import TellsExhaustion
from optuna_quant.samplers._engine.contract import TellsNewConfigs
from optuna_quant.samplers._engine.reports import Abandoned
from optuna_quant.samplers._engine.reports import RaceReport
from optuna_quant.samplers._engine.reports import ReportsRaces
from optuna_quant.samplers._engine.reports import ReportsSearch
from optuna_quant.samplers._engine.reports import Speculation
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Scoring
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._engine.staged import StagedQuantSampler
from optuna_quant.samplers._exhaustive import ExhaustiveQuantSampler
from optuna_quant.samplers._models.beliefs import Belief
from optuna_quant.samplers._models.earlier_study import study_prior
from optuna_quant.samplers._models.explanation import Explains
from optuna_quant.samplers._models.explanation import Explanation
from optuna_quant.samplers._models.explanation import FallbackOp
from optuna_quant.samplers._models.explanation import LeastLoss
from optuna_quant.samplers._models.explanation import OpError
from optuna_quant.samplers._models.explanation import Untried
from optuna_quant.samplers._models.prior import StudyPrior
from optuna_quant.samplers._mse import HAWQV2QuantSampler
from optuna_quant.samplers._mse import MSEQuantSampler
from optuna_quant.samplers._mse import MSEV2QuantSampler
from optuna_quant.samplers._pareto import ParetoQuantSampler
from optuna_quant.samplers._random import RandomQuantSampler
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._registry import strategies
from optuna_quant.samplers._surrogate import SurrogateQuantSampler
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
    "Explains",
    "Explanation",
    "FallbackOp",
    "HAWQV2QuantSampler",
    "HasClaimTimeout",
    "HasCriterion",
    "HasPerSampleScores",
    "LeastLoss",
    "MSEQuantSampler",
    "MSEV2QuantSampler",
    "OpError",
    "ParetoQuantSampler",
    "Plan",
    "QuantSampler",
    "Race",
    "RaceReport",
    "RandomQuantSampler",
    "ReportsRaces",
    "ReportsSearch",
    "Scoring",
    "Sensitivity",
    "Speculation",
    "Stage",
    "StagedQuantSampler",
    "StudyPrior",
    "SurrogateQuantSampler",
    "TPEQuantSampler",
    "TellsAnswers",
    "TellsExhaustion",
    "TellsNewConfigs",
    "Untried",
    "register_strategy",
    "strategies",
    "study_prior",
]
