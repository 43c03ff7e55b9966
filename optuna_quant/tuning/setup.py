"""A search that is ready to run, as one value."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.costs.search_problem import SearchProblem
from optuna_quant.costs.search_problem import check_can_be_known
from optuna_quant.costs.study_costs import StudyCosts
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.batches import Batches
from optuna_quant.evaluation.holdout_split import HoldoutSplit
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.samplers._engine.contract import claim_timeout_of
from optuna_quant.samplers._fp32_only import FP32OnlySampler
from optuna_quant.study.compatibility import signature_of_models
from optuna_quant.study.names import model_of
from optuna_quant.tuning.opening import StudyOpener
from optuna_quant.tuning.output import SaveBest


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs import Costs
    from optuna_quant.costs import KnownObjective
    from optuna_quant.costs import Objective
    from optuna_quant.costs import OpGain
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.sequential import EarlyStopping
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.call import Call
    from optuna_quant.tuning.earlier_study import FromStudy


@dataclass(frozen=True, kw_only=True)
class TuningSetup:
    """What a search is for and what it works with: model, data, options and files were checked.

    Attributes:
        backend:
            Builds the models.
        space:
            The tuning space.
        sampler:
            The strategy.
        criterion:
            When a metric is good enough.
        policy:
            When the search stops.
        measure:
            Gives the metric of a model.
        saver:
            Keeps the best model so far in a file; :obj:`None` if there is none.
        calibration_data:
            What latency is measured on.
        inputs:
            The inputs that are the same for all samples.
        transform:
            What makes inputs of samples.
        holdout:
            Gives the metric of a model on the hold-out set; :obj:`None` if there is none.
        evaluation_timeout:
            After how many seconds the evaluation of a model is ended; :obj:`None` for never.
        split:
            Which of the samples are the hold-out set; :obj:`None` if it is of others, or none.
        batches:
            How models with dynamic quantization are evaluated; :obj:`None` if there are none.
        verify:
            Whether the answer is evaluated a second time.
        objective:
            What is to be small, as the user has said it; :obj:`None` for the default.
        costs:
            What the user has given as costs.
        may_narrow:
            Whether it is left to the library which ops are tuned.
        measure_gain:
            Whether the answer is measured beside the FP32 model.
        with_space:
            Gives the sampler of another tuning space, with an objective that knows its costs.
        other_spaces:
            Tuning spaces with other recipes, of which a study may be continued.
        left_out:
            The ops that the tuning space does not have because of what they cost.
        from_study:
            The earlier study that the search begins from; :obj:`None` if there is none.
        stopping:
            When the evaluation of a model ends early; :obj:`None` if all samples are seen.
        seed:
            The seed of everything random.
        call:
            What has started the search, for its report.
        warnings:
            What is suspicious about the data, as far as it is known before anything is evaluated.
    """

    backend: Backend
    space: TuningSpace
    sampler: BaseSampler
    criterion: AccuracyCriterion
    policy: ExitPolicy
    measure: Evaluate
    saver: SaveBest | None
    calibration_data: CalibrationLike | None
    stopping: EarlyStopping | None
    seed: int
    holdout: Evaluate | None = None
    evaluation_timeout: float | None = None
    inputs: InputValues | None = None
    transform: Transform | None = None
    split: HoldoutSplit | None = None
    batches: Batches | None = None
    verify: bool = True
    objective: Objective | None = None
    costs: Costs | None = None
    may_narrow: bool = False
    measure_gain: bool = True
    with_space: Callable[[TuningSpace, KnownObjective], BaseSampler] | None = None
    other_spaces: tuple[TuningSpace, ...] = ()
    left_out: Mapping[str, OpGain | None] = field(default_factory=dict)
    from_study: FromStudy | None = None
    call: Call | None = None
    warnings: tuple[str, ...] = ()

    @property
    def opener(self) -> StudyOpener:
        """Opens the study, and starts it again if it does not fit."""
        return StudyOpener(
            direction=self.criterion.direction,
            sampler=self.sampler,
            split=self.split,
            batches=self.batches,
        )

    @property
    def model(self) -> str:
        """What tells the FP32 model from others."""
        return model_of(self.backend, self.space)

    def check_objective(self) -> None:
        """Refuse an objective that a new study could not know, before one is started or deleted.

        Raises:
            ValueError:
                If the objective needs what is neither given nor measured nor counted.
        """
        signature = signature_of_models(self.backend, self.space)
        costs = StudyCosts(self.backend, self.space, signature=signature, given=self.costs)
        check_can_be_known(self.objective, costs)

    def decided(self, problem: SearchProblem) -> TuningSetup:
        """This search with what its study is to make small, in the space that follows."""
        policy = self.policy.with_objective(problem.objective)
        sampler, saver = self.sampler, self.saver
        if self.with_space is not None:
            sampler = self.with_space(problem.space, problem.objective)
        if saver is not None:
            saver = SaveBest(saver.path, backend=self.backend, space=problem.space, policy=policy)
        return replace(
            self,
            policy=policy,
            sampler=sampler,
            saver=saver,
            space=problem.space,
            left_out=problem.left_out,
        )

    def without_gain(self, message: str) -> TuningSetup:
        """This search where it is not worth starting: the FP32 model, and what was enqueued."""
        sampler = FP32OnlySampler(
            self.space,
            criterion=self.criterion,
            seed=self.seed,
            claim_timeout=claim_timeout_of(self.sampler),
        )
        return replace(self, policy=self.policy.without_gain(message), sampler=sampler)
