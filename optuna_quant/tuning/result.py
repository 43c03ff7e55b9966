"""What a search has found."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
import math
import os
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.printable import listed
from optuna_quant._common.printable import printable
from optuna_quant.backends.base import WeighsFloats
from optuna_quant.callbacks import StopReason
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.paying import left_out_by_cost
from optuna_quant.costs.worth import gain_columns
from optuna_quant.costs.worth import is_better
from optuna_quant.costs.worth import shown_left_out
from optuna_quant.costs.worth import shown_pays_not
from optuna_quant.costs.worth import with_costs_as_reason
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import fp32_candidate
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.selection.chosen_by_samples import models_compared
from optuna_quant.selection.chosen_by_samples import shown_doubt
from optuna_quant.selection.chosen_by_samples import shown_interval
from optuna_quant.sequential.population import is_bounded
from optuna_quant.sequential.simultaneous import chosen_loss_interval
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.evaluation_cost import full_evaluations
from optuna_quant.study.evaluation_cost import sensitivity_evaluations
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import full_scores
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.finalists import finalists
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.warm_start import shown_start
from optuna_quant.tuning.what_runs import describe_runs
from optuna_quant.tuning.what_runs import op_runs


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial
    import pandas as pd

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.callbacks import ExitPolicy
    from optuna_quant.callbacks import Stop
    from optuna_quant.costs.gain import Gain
    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.costs.paying import OpGain
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.batches import Batches
    from optuna_quant.samplers import Abandoned
    from optuna_quant.samplers import Explanation
    from optuna_quant.samplers import RaceReport
    from optuna_quant.samplers import Speculation
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.holdout import HoldoutResult
    from optuna_quant.tuning.second_evaluation import SecondEvaluation


_logger = get_logger(__name__)

_SHOWN_ABANDONED = 3
# How many samples a model must have seen, as a part of the most, to be called the closest.
_WELL_SEEN = 0.25
# What the summary has in other places.
_SAID_ANYWAY = ((OPS,), (SIZE,))
_COLUMNS = ("op", "op_type", "mode", "activation", "weight", "runs", "as_asked", "note")


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What :func:`~optuna_quant.tune` has found.

    Attributes:
        met:
            Whether a quantized model meets the criterion. If not, what follows is about the one
            that comes closest, or about the FP32 model where that is the answer, see
            :attr:`is_fp32`.
        metric:
            The metric of the model; :obj:`None` if no model was evaluated.
        baseline:
            The metric of the FP32 model; :obj:`None` if it was not measured.
        loss:
            The loss of the model against the baseline, as the criterion defines it.
        config:
            How the model is quantized.
        cost:
            What the model costs by the objective: for ``"latency"`` the seconds of a run as they
            were predicted (``gain`` has the measured ones), for ``"size"`` its bytes, for
            ``"ops"`` its ops in fallback. :obj:`None` if that is not known.
        objective:
            The name of what was best, such as ``"latency"``, ``"size"`` or ``"ops"``.
        study:
            The study.
        trial:
            The trial that evaluated the model.
        stopped_because:
            Why the search stopped, a :class:`~optuna_quant.callbacks.StopReason` (a string).
        message:
            The same as a sentence.
        criterion:
            The criterion.
        backend:
            Builds the model.
        space:
            The tuning space.
        abandoned:
            The configurations that could not be evaluated, however often it was tried.
        races:
            How ranking was decided on a part of the samples, and what that may have missed.
        samples:
            On how many of the samples the model was evaluated, ``(seen, of)``, if not on all:
            then ``metric`` and ``loss`` are estimates, and nothing is met.
        full_evaluations:
            How much was evaluated over the whole study, the FP32 model included: the samples
            that were run through models over the number of samples.
        speculation:
            How much was evaluated on a guess while workers would have waited for each other;
            :obj:`None` if the sampler does not tell.
        loss_interval:
            Between which values the loss of this model is for the population that the evaluation
            samples were drawn from, with 95 % confidence, corrected for the choice among
            ``models_compared`` models, see
            :func:`optuna_quant.sequential.simultaneous.chosen_loss_interval`. :obj:`None` if the
            scores of single samples are not in the record, or have no bounds.
        models_compared:
            Among how many different quantized models this one was chosen by the evaluation
            samples: all that the study has evaluated, on all samples or on some.
        batches:
            In what batches the model was evaluated, if its metric depends on that, as with
            dynamic quantization.
        second_evaluation:
            What evaluating the model a second time has given; :obj:`None` if it was not. If it
            does not meet the criterion again, nothing is met.
        not_repeatable:
            Why the second evaluation failed, though the first had met the criterion; then nothing
            is met. :obj:`None` if it did not fail.
        not_repeated:
            Why the model was not evaluated a second time; :obj:`None` if it was, or was not to be.
        holdout:
            What the hold-out set says; :obj:`None` if there is none, or it was not evaluated.
        note:
            What is to be known of the metric, as that it is agreement with the FP32 model and not
            accuracy; :obj:`None` if there is nothing.
        holdout_missing:
            Why the hold-out set was not evaluated; :obj:`None` if it was, or there is none.
        gain:
            What the model takes against FP32: time and size, measured side by side at the end.
            :obj:`None` if nothing meets the criterion or it was not to be measured; without
            calibration data it has the size only.
        known_objective:
            The objective with what is known of costs, for any configuration of the space.
        left_out:
            The ops that the tuning space does not have because quantizing them makes the model
            slower here, each with what it costs as far as that is known.
        explanation:
            Why the ops in fallback are there, and what the search believes of what was not tried:
            a :class:`~optuna_quant.samplers.Explanation`, whose text is in the summary.
            :obj:`None` with a strategy that has no model of the loss.
    """

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
    known_objective: KnownObjective | None = field(default=None, repr=False)
    left_out: Mapping[str, OpGain | None] = field(default_factory=dict, repr=False)
    explanation: Explanation | None = field(default=None, repr=False)

    @property
    def pays(self) -> bool | None:
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

        So it is where no search was begun because no quantized model is better by the cost table
        (``stopped_because`` is ``"no_gain"``), and no enqueued one meets the criterion. Then
        ``trial``, ``metric``, ``config`` (every op in fallback) and :meth:`model` are those of
        the FP32 model.
        """
        return self.config is not None and not self.config.quantized_ops

    @property
    def fallback_ops(self) -> tuple[str, ...]:
        """The ops of the model that are not quantized."""
        return () if self.config is None else self.config.fallback_ops

    @property
    def is_reproducible(self) -> bool:
        """Whether a model that met the criterion did so again, as far as that was tried."""
        found = self.second_evaluation
        return self.not_repeatable is None and (found is None or found.meets(self.criterion))

    @property
    def depends_on_batch(self) -> bool:
        """Whether what the model gives for a sample depends on the others in its batch."""
        return self.trial is not None and TrialView(self.trial).depends_on_batch

    def model(self) -> Any:
        """The model, built anew.

        Raises:
            ValueError:
                If no model was evaluated, or the model that is built now is another one than the
                trial has evaluated.
        """
        if self.trial is None:
            raise ValueError(f"There is no model: {_NOTHING}")
        return rebuild(self.trial, backend=self.backend, space=self.space)

    def save(self, path: str | os.PathLike[str], *, closest: bool = False) -> None:
        """Write the model to a file.

        Args:
            path:
                The file.
            closest:
                Whether to write the closest model if none meets the criterion, and the FP32 model
                where that is the answer.

        Raises:
            ValueError:
                If no model meets the criterion and ``closest`` is not set, or the file cannot be
                written or is the file of the FP32 model itself, or as :meth:`model` says.
        """
        check_output(path, inputs=files_of(self.backend))
        if self.is_fp32 and not closest:
            raise ValueError(
                f"FP32 itself is the best model here, so none is saved. {self.message} To save "
                "the FP32 model all the same use save(path, closest=True)."
            )
        if not self.met and not closest and self.config is not None:
            why = (
                "No quantized model meets the criterion"
                if self.is_reproducible
                else "The model does not meet the criterion each time that it is evaluated"
            )
            raise ValueError(
                f"{why}, so none is saved. To save the one that comes closest use save(path, "
                "closest=True)."
            )
        self.model().save(path)

    def report(self) -> pd.DataFrame:
        """What was asked of each op, and what runs.

        Returns:
            A row per op of the tuning space, with the columns ``op``, ``op_type``, ``mode``,
            ``activation`` and ``weight`` (how each is quantized, empty if not), ``runs`` (what
            the runtime executes), ``as_asked`` (whether that is of the kind that the mode asks
            for; :obj:`None` if not known) and ``note``. Where costs are known there follow
            ``seconds_gained`` and ``bytes_gained``, what the op gains in its option against FP32
            while all else is the same (0 in fallback), for another objective ``gained``; and a
            row for each op that was left out of the space as slower here. Where
            ``explanation`` knows it there follow ``error_share``, the op's part of the error that
            is expected where every op is quantized, and ``of_activations``, what part of that
            comes from its activations and not from its weights. Without a model there are no
            rows.
        """
        import pandas as pd

        if self.config is None:
            return pd.DataFrame(columns=list(_COLUMNS))
        op_types = {op: t.op_type for t in self.space.tunables for op in t.ops}
        executed = self._executed
        assert executed is not None
        columns: dict[str, Mapping[str, float | None]] = {}
        columns |= gain_columns(self.known_objective, self.space, self.config)
        errors = {} if self.explanation is None else self.explanation.errors
        if errors:
            columns["error_share"] = {op: error.share for op, error in errors.items()}
            columns["of_activations"] = {op: error.activations for op, error in errors.items()}
        rows = [
            _row(op, op_types.get(op, ""), config, executed)
            | {name: gains.get(op) for name, gains in columns.items()}
            for op, config in self.config.ops.items()
        ]
        rows += [_row_left_out(op, gain) for op, gain in self.left_out.items()]
        return pd.DataFrame(rows, columns=[*_COLUMNS, *columns])

    def front(
        self, *, objective: ObjectiveLike | None = None, partial: bool = False
    ) -> pd.DataFrame:
        """The models of the study that no other beats in both metric and cost.

        Args:
            objective:
                What models cost, as :func:`optuna_quant.costs.as_objective` takes it, such as
                ``"size"``. Default: the objective of the search.
            partial:
                Whether models that were evaluated on a part of the samples are shown as well,
                where no fully evaluated one beats their estimates.

        Returns:
            A row per model, the cheapest first, FP32 included, with the columns ``trial``,
            ``metric``, ``loss``, the cost by the objective's name, all other measures that are
            known, ``fallback_ops``, ``met`` and ``evaluated`` (the part of the samples).
            :func:`optuna_quant.selection.front_points` gives the same as values.

        Raises:
            ValueError:
                If the objective is not known, or no trial has recorded what it needs.
        """
        from optuna_quant.selection.front import front_frame
        from optuna_quant.selection.front import front_points
        from optuna_quant.tuning.choose import objective_of

        chosen = objective_of(self, objective)
        points = front_points(self.study, self.criterion, chosen, partial=partial)
        return front_frame(points, chosen)

    def choose(
        self,
        *,
        tolerable_loss: float | None = None,
        criterion: AccuracyCriterion | None = None,
        objective: ObjectiveLike | None = None,
    ) -> TuningResult:
        """The best model of the record by another criterion or objective; nothing is evaluated.

        Args:
            tolerable_loss:
                Another tolerance, of the same kind as the criterion's.
            criterion:
                Another criterion, instead.
            objective:
                What is best among the models that meet it. Default: the objective of the search.

        Returns:
            A result as of a search that ends with what the record has: if no model meets the
            criterion, it is about the one that comes closest. Its time was not measured beside
            FP32's, and it was not evaluated a second time, unless it is the model of this result.

        Raises:
            ValueError:
                If nothing is given, or both a tolerance and a criterion; if the tolerance is out
                of its range, the criterion goes the other way or the objective is not known.
        """
        from optuna_quant.tuning.choose import choose

        return choose(
            self, tolerable_loss=tolerable_loss, criterion=criterion, objective=objective
        )

    def summary(self) -> str:
        """The result in a few lines of text.

        The ops that count are those that the runtime executes in integer kernels; what was asked
        for and does not run so is named. The runtime is asked once for each result.
        """
        # What the hold-out set says is true of a chosen model as it stands, so it comes first.
        lines = [self._headline(), *self._shown_holdout()]
        if self.is_fp32:
            lines.append(f"metric {self.metric:.6g} (FP32), criterion: {self.criterion}")
        elif self.metric is not None and self.baseline is not None and self.loss is not None:
            known = self.loss_interval is not None
            judged = f", criterion: {self.criterion}" if known else f" ({self.criterion})"
            about = "" if self.samples is None else "about "
            lines.append(
                f"metric {about}{self.metric:.6g}, FP32 {self.baseline:.6g}, "
                f"{self._shown_loss(self.loss, self.loss_interval, self.models_compared)}{judged}"
            )
            lines.extend(self._shown_doubt())
        if self.note is not None:
            lines.append(self.note)
        if self.batches is not None:
            lines.append(str(self.batches))
        lines.extend(self._shown_second_evaluation())
        if self.samples is not None:
            seen, of = self.samples
            lines.append(f"not fully evaluated: estimated after {seen} of {of} samples")
        if self.config is not None and self.trial is not None and not self.is_fp32:
            runs, differs = describe_runs(self.config, self._executed_if_known())
            lines.append(f"trial {self.trial.number}: {runs}{self._shown_cost()}")
            if differs:
                lines.append(differs)
            lines.extend(self._shown_gain())
            if self.fallback_ops and self.explanation is None:
                lines.append(f"in fallback: {listed(self.fallback_ops)}")
        if self.explanation is not None:
            lines.extend(str(self.explanation).splitlines())
        if self.config is not None:
            lines.extend(shown_left_out(self.left_out))
            lines.extend(self._shown_float_weights(self.config))
        if self.abandoned:
            count = len(self.abandoned)
            were = "configuration was" if count == 1 else "configurations were"
            shown = "; ".join(map(str, self.abandoned[:_SHOWN_ABANDONED]))
            more = f"; and {count - _SHOWN_ABANDONED} more" if count > _SHOWN_ABANDONED else ""
            lines.append(f"{count} {were} abandoned: {shown}{more}")
        lines.extend(shown_start(self.study, self.space))
        if self.speculation is not None and self.speculation.evaluated:
            lines.append(f"speculation: {self.speculation}")
        if any(TrialView(trial).evidence for trial in self._finished()):
            scoring = sensitivity_evaluations(self.study)
            of_it = f" ({scoring:.2g} of it for sensitivities)" if scoring else ""
            lines.append(
                f"evaluated: {self.full_evaluations:.3g} times the evaluation set, in "
                f"{len(self._finished())} trials{of_it}"
            )
        lines.append(f"stopped: {self.message}")
        return "\n".join(map(printable, lines))

    def __str__(self) -> str:
        return self.summary()

    @cached_property
    def _executed(self) -> Mapping[str, ExecutedOp] | None:
        return None if self.config is None else self.backend.executed(self.config)

    def _executed_if_known(self) -> Mapping[str, ExecutedOp] | None:
        try:
            return self._executed
        except Exception as error:
            _logger.warning(f"What runs of the model is not known: {error}")
            return None

    def _finished(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished()]

    @property
    def _looks_good(self) -> bool:
        if self.metric is None or self.baseline is None:
            return False
        return self.criterion.meets(self.metric, self.baseline)

    def _headline(self) -> str:
        if self.met and self.holdout is not None and not self.holdout.met:
            return (
                "A quantized model meets the criterion on the samples of the search, but NOT on "
                "the hold-out set:"
            )
        if self.met and self.pays is False:
            return (
                "A quantized model meets the criterion, but it is "
                f"{shown_pays_not(self.objective)}."
            )
        if self.met:
            return "A quantized model meets the criterion."
        if self.is_fp32:
            return (
                "NO GAIN: FP32 itself is the best model here, as far as the cost table tells, so "
                "no quantized one was looked for."
            )
        if self.config is None:
            return f"NOT MET: {_NOTHING}"
        if not self.is_reproducible:
            return "NOT REPRODUCIBLE: the model met the criterion, but not when evaluated again:"
        if self.samples is not None and self._looks_good:
            return (
                "NOT FULLY EVALUATED: no model was found to meet the criterion on all samples. "
                "The one that looks best:"
            )
        return "NOT MET: no quantized model meets the criterion. The one that comes closest:"

    def _shown_loss(
        self, loss: float, interval: tuple[float, float] | None, models: int = 1
    ) -> str:
        shown = f"loss {self.criterion.show(loss)}"
        if interval is None:
            return shown
        return f"{shown} ({shown_interval(interval, self.criterion, models=models)})"

    def _shown_second_evaluation(self) -> list[str]:
        if self.not_repeatable is not None:
            return [f"a second evaluation failed: {self.not_repeatable}"]
        if self.not_repeated is not None:
            return [f"not evaluated a second time ({self.not_repeated})"]
        found = self.second_evaluation
        return [] if found is None or not found.differs else [found.shown(self.criterion)]

    def _shown_doubt(self) -> list[str]:
        evidence = None if self.trial is None else TrialView(self.trial).evidence
        if not self.met or self.loss_interval is None or evidence is None:
            return []
        doubt = shown_doubt(self.loss_interval, self.criterion, samples=evidence.of)
        return [] if doubt is None else [doubt]

    def _shown_holdout(self) -> list[str]:
        found = self.holdout
        if found is None:
            missing = self.holdout_missing
            return [] if missing is None else [f"hold-out: not evaluated ({missing})"]
        count = "" if found.samples is None else f" ({found.samples} samples)"
        return [
            f"hold-out{count}: metric {found.metric:.6g}, FP32 {found.baseline:.6g}, "
            f"{self._shown_loss(found.loss, found.loss_interval)}: "
            f"{'met' if found.met else 'NOT met'} there"
        ]

    def _shown_float_weights(self, config: QuantConfig) -> list[str]:
        """How much of the model is not quantized, and what would quantize it."""
        if not isinstance(self.backend, WeighsFloats):
            return []
        found = self.backend.float_weights(config)
        if not found.is_worth_saying:
            return []
        return [f"weights: {with_costs_as_reason(found, self.left_out)}"]

    def _shown_gain(self) -> list[str]:
        """What the model takes against FP32; if that is not known, that it is no smaller."""
        if self.gain is not None and self.gain.seconds is not None:
            return [str(self.gain)]
        baseline = get_baseline(self.study)
        trials = views(self.study)
        if self.trial is None or baseline is None or baseline.trial is None:
            return []
        if baseline.trial >= len(trials):
            return []
        measured = trials[baseline.trial]
        if not measured.is_baseline:  # Another trial has measured it beside its own model.
            return []
        here, fp32 = TrialView(self.trial).model_bytes, measured.model_bytes
        if here is None or fp32 is None or here < fp32:
            return []
        return [
            f"no smaller than FP32, which has {shown_bytes(fp32)}: it is of use only if it is "
            'faster (objective="size" or "latency" with a time limit look for that)'
        ]

    def _shown_cost(self) -> str:
        parts = []
        size = None if self.trial is None else TrialView(self.trial).model_bytes
        if size is not None:
            parts.append(shown_bytes(size))
        known = self.known_objective
        if known is not None and self.cost is not None and known.measures not in _SAID_ANYWAY:
            told = "predicted " if known.measures == (LATENCY,) else ""
            parts.append(f"{told}{known.show(self.cost)}")
        return "".join(f", {part}" for part in parts)


def conclude(
    study: optuna.Study,
    stop: Stop,
    policy: ExitPolicy,
    *,
    backend: Backend,
    space: TuningSpace,
    measure: Callable[[Sequence[Candidate]], tuple[Candidate, Gain]] | None = None,
    left_out: Mapping[str, OpGain | None] | None = None,
) -> TuningResult:
    """Choose the answer from the record; what does not meet the criterion is called so.

    Args:
        study:
            The study.
        stop:
            Why it stopped.
        policy:
            Its exit policy: it knows the criterion, and what is best.
        backend:
            Builds the models.
        space:
            The tuning space.
        measure:
            Measures candidates beside FP32 and gives the fastest, with what it is worth.
            Default: nothing is measured.
        left_out:
            The ops that the space does not have because of what they cost.
    """
    criterion, objective = policy.criterion, policy.objective
    found = candidates(study, criterion)
    met = ranked(found, objective)
    best = met[0] if met else _without_answer(study, found, policy, stop)
    gain = None
    if met and measure is not None and stop.reason != StopReason.INTERRUPTED:
        try:
            best, gain = measure(finalists(met, objective))
        except KeyboardInterrupt:
            told = f"{stop.message} Interrupted: time and size were not compared with FP32."
            stop = replace(stop, reason=StopReason.INTERRUPTED, message=told)
        except Exception as error:
            # Whoever writes the model or asks for it is told so again.
            _logger.warning(f"What the model is worth could not be measured: {error}")
    cost = None
    if best is not None and math.isfinite(best.cost(objective)):
        cost = best.cost(objective)
    baseline = get_baseline(study)
    compared = models_compared(study)
    # Other samplers than ours do not tell.
    abandoned = getattr(study.sampler, "abandoned", None)
    speculation = getattr(study.sampler, "speculation", None)
    races = getattr(study.sampler, "races", None)
    return TuningResult(
        met=bool(met),
        metric=None if best is None else best.metric,
        baseline=None if baseline is None else baseline.value,
        loss=None
        if best is None or baseline is None
        else criterion.loss(best.metric, baseline.value),
        config=None if best is None else space.config_from_params(best.trial.params),
        cost=cost,
        objective=objective.name,
        study=study,
        trial=None if best is None else best.trial,
        stopped_because=stop.reason,
        message=stop.message,
        criterion=criterion,
        backend=backend,
        space=space,
        races=() if races is None else races(study),
        abandoned=() if abandoned is None else abandoned(study),
        speculation=None if speculation is None else speculation(study),
        samples=None if best is None else best.samples,
        full_evaluations=full_evaluations(study),
        loss_interval=None
        if best is None
        else recorded_interval(study, best.trial, criterion, models=compared),
        models_compared=compared,
        gain=gain,
        known_objective=objective if isinstance(objective, KnownObjective) else None,
        left_out={} if left_out is None else left_out,
        explanation=_explanation(study, policy, None if best is None else best.trial, space),
    )


def _without_answer(
    study: optuna.Study, found: Sequence[Candidate], policy: ExitPolicy, stop: Stop
) -> Candidate | None:
    """What the result is about if nothing is met: FP32 if that is best, else what is closest."""
    fp32 = None
    if stop.reason == StopReason.NO_GAIN:
        fp32 = fp32_candidate(study, policy.criterion)
    return fp32 or _closest(study, found, policy)


def _explanation(
    study: optuna.Study, policy: ExitPolicy, trial: FrozenTrial | None, space: TuningSpace
) -> Explanation | None:
    """What the sampler says of an answer."""
    # Only those with a model of the loss have something to say.
    explain: Callable[..., Explanation | None] | None = getattr(study.sampler, "explain", None)
    if explain is None:
        return None
    config = None if trial is None else space.config_from_params(trial.params)
    return explain(study, config, objective=policy.objective)


def _closest(
    study: optuna.Study, found: Sequence[Candidate], policy: ExitPolicy
) -> Candidate | None:
    """What comes closest, of those that were evaluated on all samples or on some."""
    partial = partial_candidates(study, policy.criterion)
    # What was seen of few samples may look better than it is.
    most = max((c.samples[0] for c in partial if c.samples), default=0)
    seen = [c for c in partial if c.samples and c.samples[0] >= _WELL_SEEN * most]
    return closest([*found, *seen], policy.objective)


_NOTHING = "no quantized model was evaluated."


def recorded_interval(
    study: optuna.Study, trial: FrozenTrial, criterion: AccuracyCriterion, *, models: int
) -> tuple[float, float] | None:
    """Between which values the loss of a trial's model is, with 95 % confidence.

    Args:
        study:
            The study.
        trial:
            A complete trial of it.
        criterion:
            Says what the loss is.
        models:
            Among how many models it was chosen.

    Returns:
        The interval; :obj:`None` if the record does not have the scores of all samples.
    """
    try:
        population = read_population(study)
    except ValueError as error:  # The order of the samples is not known here.
        _logger.warning(f"The confidence interval of the loss is not known. {error}")
        return None
    if population is None or not is_bounded(population.bounds):
        return None
    scores = full_scores(study, TrialView(trial), population.samples)
    if scores is None:
        return None
    # In the data's own order: that of the evaluation depends on what the baseline scores.
    candidate = np.empty(population.samples)
    candidate[population.order.indices] = scores
    return chosen_loss_interval(
        candidate,
        population.baseline,
        models=models,
        bounds=population.bounds,
        higher_is_better=criterion.higher_is_better,
        relative=criterion.criterion == "relative",
    )


def _row_left_out(op: str, gain: OpGain | None) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
    row |= {"op": op, "mode": "fp32", "as_asked": None, "note": "left out"}
    if gain is not None:
        row |= {"op_type": gain.op_type, "note": f"left out, {left_out_by_cost(gain).reason}"}
    return row


def _row(
    op: str, op_type: str, config: OpConfig, executed: Mapping[str, ExecutedOp]
) -> dict[str, object]:
    runs = op_runs(executed, op)
    return {
        "op": op,
        "op_type": op_type,
        "mode": config.mode,
        "activation": "" if config.activation is None else config.activation.label,
        "weight": "" if config.weight is None else config.weight.label,
        "runs": runs.kernel,
        "as_asked": None if runs.integer is None else runs.integer == config.is_quantized,
        "note": runs.note,
    }
