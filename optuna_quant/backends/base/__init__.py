"""The protocols of a backend: what the library asks of whatever quantizes and runs a model.

:class:`Backend` and :class:`Model` are what a backend must be. The others are what it may offer
on top; the library looks for each with ``isinstance``. What a backend offers about costs are the
protocols of :mod:`optuna_quant.costs`: :class:`~optuna_quant.costs.MeasuresCosts`,
:class:`~optuna_quant.costs.CountsCosts` and :class:`~optuna_quant.costs.HasCostConditions`.
``docs/backends.md`` shows how to write one, and :mod:`optuna_quant.testing` tests it.

May import: `data` and what is below it.
"""

from optuna_quant.backends.base.backend import Backend
from optuna_quant.backends.base.backend import ExecutedOp
from optuna_quant.backends.base.backend import HasBlocks
from optuna_quant.backends.base.backend import HasConstantInputs
from optuna_quant.backends.base.backend import HasFileEndings
from optuna_quant.backends.base.backend import HasSignature
from optuna_quant.backends.base.backend import NamesOriginal
from optuna_quant.backends.base.backend import NamesSizes
from optuna_quant.backends.base.backend import OpRuns
from optuna_quant.backends.base.backend import ReadsFiles
from optuna_quant.backends.base.backend import SimulatesCandidates
from optuna_quant.backends.base.backend import SimulatesTarget
from optuna_quant.backends.base.backend import TracesOutputs
from optuna_quant.backends.base.backend import WeighsFloats
from optuna_quant.backends.base.backend import original_of
from optuna_quant.backends.base.backend import shown_sizes_of
from optuna_quant.backends.base.backend import simulated_target_of
from optuna_quant.backends.base.calibration import Calibrates
from optuna_quant.backends.base.calibration import CalibratesForConfigs
from optuna_quant.backends.base.calibration import ChoosesLatencyFeed
from optuna_quant.backends.base.calibration import PreviewsCalibration
from optuna_quant.backends.base.calibration import SharesCalibration
from optuna_quant.backends.base.calibration import TellsCalibrationBytes
from optuna_quant.backends.base.calibration import latency_feed_of
from optuna_quant.backends.base.files import atomic_write
from optuna_quant.backends.base.graph import GraphNode
from optuna_quant.backends.base.graph import HasGraph
from optuna_quant.backends.base.left_out import MissingRange
from optuna_quant.backends.base.left_out import TellsLeftOut
from optuna_quant.backends.base.left_out import TellsMissingRanges
from optuna_quant.backends.base.left_out import TellsOtherRecipes
from optuna_quant.backends.base.model import CandidateModel
from optuna_quant.backends.base.model import CompilesForUse
from optuna_quant.backends.base.model import Feed
from optuna_quant.backends.base.model import HasNative
from optuna_quant.backends.base.model import HasOptionalInputs
from optuna_quant.backends.base.model import HasThreads
from optuna_quant.backends.base.model import MayDependOnBatch
from optuna_quant.backends.base.model import Model
from optuna_quant.backends.base.model import ModelLoadError
from optuna_quant.backends.base.model import NativeModel
from optuna_quant.backends.base.model import RunnableModel
from optuna_quant.backends.base.model import RunsConcurrently
from optuna_quant.backends.base.model import ShowsInputs
from optuna_quant.backends.base.model import as_used
from optuna_quant.backends.base.model import depends_on_batch
from optuna_quant.backends.base.model import native_of
from optuna_quant.backends.base.parts import KeepsParts
from optuna_quant.backends.base.parts import SharesParts
from optuna_quant.backends.base.sensitivity import CountsPasses
from optuna_quant.backends.base.sensitivity import HasKey
from optuna_quant.backends.base.sensitivity import OffersSensitivities
from optuna_quant.backends.base.sensitivity import ScoresTogether
from optuna_quant.backends.base.sensitivity import ScoresWeightsApart
from optuna_quant.backends.base.sensitivity import Sensitivity
from optuna_quant.backends.base.sensitivity import SensitivityFactory
from optuna_quant.backends.base.sensitivity import SensitivityKind
from optuna_quant.backends.base.sensitivity import TakesBatches
from optuna_quant.backends.base.sensitivity import TakesSamples
from optuna_quant.backends.base.training import TrainingFunctionError
from optuna_quant.backends.base.training import TrainingTrial
from optuna_quant.backends.base.training import TrainsCandidates


__all__ = [
    "Backend",
    "Calibrates",
    "CalibratesForConfigs",
    "CandidateModel",
    "ChoosesLatencyFeed",
    "CompilesForUse",
    "CountsPasses",
    "ExecutedOp",
    "Feed",
    "GraphNode",
    "HasBlocks",
    "HasConstantInputs",
    "HasFileEndings",
    "HasGraph",
    "HasKey",
    "HasNative",
    "HasOptionalInputs",
    "HasSignature",
    "HasThreads",
    "KeepsParts",
    "MayDependOnBatch",
    "MissingRange",
    "Model",
    "ModelLoadError",
    "NamesOriginal",
    "NamesSizes",
    "NativeModel",
    "OffersSensitivities",
    "OpRuns",
    "PreviewsCalibration",
    "ReadsFiles",
    "RunnableModel",
    "RunsConcurrently",
    "ScoresTogether",
    "ScoresWeightsApart",
    "Sensitivity",
    "SensitivityFactory",
    "SensitivityKind",
    "SharesCalibration",
    "SharesParts",
    "ShowsInputs",
    "SimulatesCandidates",
    "SimulatesTarget",
    "TakesBatches",
    "TakesSamples",
    "TellsCalibrationBytes",
    "TellsLeftOut",
    "TellsMissingRanges",
    "TellsOtherRecipes",
    "TracesOutputs",
    "TrainingFunctionError",
    "TrainingTrial",
    "TrainsCandidates",
    "WeighsFloats",
    "as_used",
    "atomic_write",
    "depends_on_batch",
    "latency_feed_of",
    "native_of",
    "original_of",
    "shown_sizes_of",
    "simulated_target_of",
]
