"""The settings that all trials of an objective share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from typing import TypeAlias
from typing import cast

from optuna_quant.evaluation.sample_evaluation import Watch


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import CandidateModel
    from optuna_quant.backends.base import NativeModel
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
    from optuna_quant.sequential import EarlyStopping
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


Evaluate: TypeAlias = "Callable[[NativeModel], object]"
"""Gives the metric of a model: a number, or the scores of all samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveSetup:
    """What an objective builds, evaluates and judges with; see
    :class:`~optuna_quant.QuantObjective` for what each is.
    """

    backend: Backend
    space: TuningSpace
    evaluate: Evaluate | SampleEvaluation
    criterion: AccuracyCriterion
    stopping: EarlyStopping | None = None
    seed: int = 0
    watch: Watch | None = None
    artifact_store: ArtifactStore | None = None
    costs: Callable[[QuantConfig], Mapping[str, float]] | None = None

    @cached_property
    def fp32(self) -> QuantConfig:
        """The configuration of the FP32 model."""
        return self.space.fp32()

    def evaluate_in_full(self, model: CandidateModel) -> object:
        """The metric of a model, or what should be one."""
        return cast("Evaluate", self.evaluate)(model)
