from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import BayesianQuantSampler
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import HAWQV2QuantSampler
from optuna_quant.samplers import MSEQuantSampler
from optuna_quant.samplers import MSEV2QuantSampler
from optuna_quant.samplers import ParetoQuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import TPEQuantSampler


__all__ = [
    "AutoQuantSampler",
    "BasicQuantSampler",
    "BayesianQuantSampler",
    "ConservativeQuantSampler",
    "ExhaustiveQuantSampler",
    "HAWQV2QuantSampler",
    "MSEQuantSampler",
    "MSEV2QuantSampler",
    "ParetoQuantSampler",
    "RandomQuantSampler",
    "SurrogateQuantSampler",
    "TPEQuantSampler",
]
