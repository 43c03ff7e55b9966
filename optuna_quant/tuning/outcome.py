"""The outcome of a search, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import enum
from functools import cached_property
import math
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.backends.base import TellsLeftOut
from optuna_quant.backends.base import TellsOtherRecipes
from optuna_quant.backends.base import original_of
from optuna_quant.callbacks import StopReason
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.worth import is_better
from optuna_quant.evaluation.backend_checks import executed_of
from optuna_quant.samplers._models.explanation_text import COST
from optuna_quant.samplers._models.explanation_text import NOT_ALLOWED
from optuna_quant.samplers._models.explanation_text import OPEN
from optuna_quant.samplers._models.explanation_text import cause_of
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.missing_ranges import find_missing_ranges
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.backends.base import MissingRange
    from optuna_quant.costs.gain import Gain
    from optuna_quant.costs.gain_per_op import OpGain
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.batches import Batches
    from optuna_quant.samplers import Abandoned
    from optuna_quant.samplers import Explanation
    from optuna_quant.samplers import RaceReport
    from optuna_quant.samplers import Speculation
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.study.simulation import Simulation
    from optuna_quant.tuning.call import Call
    from optuna_quant.tuning.validation import HoldoutResult
    from optuna_quant.tuning.validation import SecondEvaluation


_logger = get_logger(__name__)

NOTHING = "no quantized model was evaluated."


class ResultKind(enum.StrEnum):
    """What a search has ended with; each result is of one kind."""

    MET = "met"
    """A quantized model meets the criterion."""
    HOLDOUT_MISSED = "holdout_missed"
    """It meets the criterion on the samples of the search, but not on the hold-out set."""
    MET_WITHOUT_GAIN = "met_without_gain"
    """It meets the criterion, but is no better than FP32 by the objective."""
    FP32 = "fp32"
    """The FP32 model is the answer, because no quantized one is better by the objective."""
    NOTHING_EVALUATED = "nothing_evaluated"
    """No quantized model was evaluated."""
    NOT_REPRODUCIBLE = "not_reproducible"
    """A model met the criterion, but not when it was evaluated again."""
    NOT_FULLY_EVALUATED = "not_fully_evaluated"
    """No model was found to meet the criterion on all samples; one looks good on some."""
    NOT_MET = "not_met"
    """No quantized model meets the criterion."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The fields of :class:`~optuna_quant.TuningResult`, where they are described."""

    met: bool
    metric: float | None
    baseline: float | None
    loss: float | None
    config: QuantConfig | None
    cost: float | None
    objective: str
    study: optuna.Study
    trial: FrozenTrial | None = field(repr=False)
    stopped_because: StopReason
    message: str
    criterion: AccuracyCriterion
    backend: Backend = field(repr=False)
    space: TuningSpace = field(repr=False)
    abandoned: Sequence[Abandoned] = ()
    speculation: Speculation | None = None
    races: Sequence[RaceReport] = ()
    samples: tuple[int, int] | None = None
    full_evaluations: float = math.nan
    loss_interval: tuple[float, float] | None = None
    models_compared: int = 0
    batches: Batches | None = None
    second_evaluation: SecondEvaluation | None = None
    not_repeatable: str | None = None
    not_repeated: str | None = None
    holdout: HoldoutResult | None = None
    holdout_missing: str | None = None
    note: str | None = None
    gain: Gain | None = None
    is_chosen: bool = False
    known_objective: KnownObjective | None = field(default=None, repr=False)
    left_out: Mapping[str, OpGain | None] = field(default_factory=dict, repr=False)
    explanation: Explanation | None = field(default=None, repr=False)
    call: Call | None = field(default=None, repr=False)
    warnings: Sequence[str] = ()

    @property
    def kind(self) -> ResultKind:
        """What the search has ended with, in a word: a :class:`ResultKind` (a string)."""
        if self.met:
            if self.holdout is not None and not self.holdout.met:
                return ResultKind.HOLDOUT_MISSED
            return (
                ResultKind.MET_WITHOUT_GAIN
                if self.is_better_than_fp32 is False
                else ResultKind.MET
            )
        if self.is_fp32:
            return ResultKind.FP32
        if self.config is None:
            return ResultKind.NOTHING_EVALUATED
        if not self.is_reproducible:
            return ResultKind.NOT_REPRODUCIBLE
        if self.samples is not None and self._looks_good:
            return ResultKind.NOT_FULLY_EVALUATED
        return ResultKind.NOT_MET

    @property
    def _looks_good(self) -> bool:
        if self.metric is None or self.baseline is None:
            return False
        return self.criterion.meets(self.metric, self.baseline)

    @property
    def is_better_than_fp32(self) -> bool | None:
        """Whether the model that meets the criterion is better than FP32, by more than noise.

        Better is what the objective says: faster for ``"latency"``, smaller for ``"size"``. What
        was measured counts, and otherwise what is predicted. :obj:`None` if that is not known, or
        nothing meets the criterion; :obj:`False` as well if the FP32 model is the answer.
        """
        if self.met:
            return is_better(self.known_objective, self.config, self.gain)
        return False if self.is_fp32 else None

    @property
    def is_fp32(self) -> bool:
        """Whether the answer is the FP32 model itself, and nothing is met.

        So it is where no search was started because no quantized model is better by the cost table
        (``stopped_because`` is ``"no_gain"``), and no enqueued one meets the criterion. Then
        ``trial``, ``metric``, ``config`` (every op in fallback) and :meth:`model` are those of
        the FP32 model.
        """
        return self.config is not None and not self.config.quantized_ops

    @property
    def original(self) -> str:
        """What the model is called with nothing quantized: ``"FP32"`` unless it is not that."""
        return original_of(self.backend)

    @property
    def nbytes(self) -> int | None:
        """The size of the model in bytes; :obj:`None` if that is not known."""
        return None if self.trial is None else TrialView(self.trial).model_bytes

    @property
    def fp32_bytes(self) -> int | None:
        """That of the FP32 model; :obj:`None` if that is not known."""
        if self.gain is not None and self.gain.fp32_bytes is not None:
            return self.gain.fp32_bytes
        baseline, trials = get_baseline(self.study), views(self.study)
        if baseline is None or baseline.trial is None or baseline.trial >= len(trials):
            return None
        measured = trials[baseline.trial]
        # Another trial has measured it beside its own model.
        return measured.model_bytes if measured.is_baseline else None

    @property
    def fallback_ops(self) -> tuple[str, ...]:
        """The ops of the model that are not quantized."""
        return () if self.config is None else self.config.fallback_ops

    @property
    def is_reproducible(self) -> bool:
        """Whether a model that met the criterion did so again, as far as that was tried."""
        found = self.second_evaluation
        return self.not_repeatable is None and (found is None or found.meets(self.criterion))

    @cached_property
    def simulation(self) -> Simulation | None:
        """What the simulation of the model gave, and how far the model itself is from it.

        :obj:`None` if trials do not evaluate simulations.
        """
        if self.trial is None:
            return None
        view, known = TrialView(self.trial), views(self.study)
        if view.simulation is None and view.source < len(known):
            view = known[view.source]  # Its model was evaluated there.
        return view.simulation

    @property
    def depends_on_batch(self) -> bool:
        """Whether what the model gives for a sample depends on the others in its batch."""
        return self.trial is not None and TrialView(self.trial).depends_on_batch

    @cached_property
    def not_searched(self) -> tuple[LeftOut, ...]:
        """The ops of the model that might be quantized and were not searched, and why.

        Those in :attr:`left_out`, which are slower quantized, are not among them.
        """
        if not isinstance(self.backend, TellsLeftOut):
            return ()
        found = self.backend.ops_left_out(self.space)
        return tuple(each for each in found if each.op not in self.left_out)

    @cached_property
    def missing_ranges(self) -> Mapping[str, MissingRange]:
        """Why ops have no quantization range, and so stay in floats in static mode, by op."""
        return find_missing_ranges(self.study)

    @cached_property
    def other_recipes(self) -> tuple[str, ...]:
        """Recipes that may lower errors in this model, and were not searched."""
        backend = self.backend
        if not isinstance(backend, TellsOtherRecipes):
            return ()
        # A strategy that has no place for recipes leaves out those that the user has left open.
        left_out = [
            name for name in backend.capability().recipes if name not in self.space.recipes
        ]
        return (*left_out, *backend.other_recipes())

    @property
    def recipes_may_help(self) -> bool:
        """Whether errors stand in the way of a better answer, and recipes were not searched."""
        if self.stopped_because == StopReason.NO_GAIN or self.config is None:
            return False
        if self.is_fp32 or self.is_chosen:
            # No recipe makes a model faster; and what a search lacked is said of its own answer.
            return False
        if self.met and self.explanation is not None:
            causes = {cause_of(each, self.objective) for each in self.explanation.fallback}
            is_lacking = bool(causes - {COST, NOT_ALLOWED, OPEN})
        else:
            is_lacking = not self.met or bool(self.fallback_ops)
        return is_lacking and bool(self.other_recipes)

    @cached_property
    def executed(self) -> Mapping[str, ExecutedOp] | None:
        """What the runtime executes of the model; the runtime is asked once."""
        return None if self.config is None else executed_of(self.backend, self.config)

    @cached_property
    def known_executed(self) -> Mapping[str, ExecutedOp]:
        """The same, where a runtime that cannot be asked is no error: then nothing is known."""
        try:
            return self.executed or {}
        except Exception as error:
            _logger.warning(f"What runs of the model is not known: {error}")
            return {}
