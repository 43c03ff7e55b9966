"""The result of a search, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
import os
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.selection.front import front_frame
from optuna_quant.selection.front import front_points
from optuna_quant.tuning.choose import choose
from optuna_quant.tuning.choose import objective_of
from optuna_quant.tuning.notebook import result_html
from optuna_quant.tuning.op_reasons import explain_op
from optuna_quant.tuning.outcome import NOTHING
from optuna_quant.tuning.outcome import Outcome
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.summary import shown_best
from optuna_quant.tuning.summary import summary
from optuna_quant.tuning.table import report


if TYPE_CHECKING:
    import pandas as pd

    from optuna_quant.backends.base import Model
    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.criteria import AccuracyCriterion


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class TuningResult(Outcome):
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
            The configurations whose evaluation failed every time.
        races:
            How configurations were ranked on a part of the samples, and what that may have missed.
        samples:
            The number of samples that the model was evaluated on, ``(seen, of)``, if not on all:
            then ``metric`` and ``loss`` are estimates, and ``met`` is false.
        full_evaluations:
            The cost of the whole study, including the FP32 model: the samples that were run
            through models, divided by the number of samples.
        speculation:
            How much was evaluated ahead on a guess while workers would have waited for each
            other; :obj:`None` if the sampler does not record it.
        loss_interval:
            The confidence interval (95%) of the loss of this model for the population that the
            evaluation samples were drawn from, corrected for the choice among
            ``models_compared`` models, see
            :func:`optuna_quant.sequential.simultaneous.chosen_loss_interval`. :obj:`None` if the
            scores of single samples are not in the record, or have no bounds.
        models_compared:
            The number of different quantized models that this one was chosen from: all that the
            study has evaluated, on all samples or on some.
        batches:
            The batches in which the model was evaluated, if its metric depends on them, as with
            dynamic quantization.
        second_evaluation:
            The result of evaluating the model a second time; :obj:`None` if it was not. If the
            model does not meet the criterion again, ``met`` is false.
        not_repeatable:
            Why the second evaluation failed, although the first met the criterion; then ``met``
            is false. :obj:`None` if it did not fail.
        not_repeated:
            Why the model was not evaluated a second time; :obj:`None` if it was, or was not to be.
        holdout:
            The result on the hold-out set; :obj:`None` if there is none, or it was not evaluated.
        simulation:
            What the simulation of the model gave, where trials evaluate simulations: its metric,
            and how far the outputs of both are from each other on some samples, a
            :class:`~optuna_quant.study.simulation.Simulation`.
        note:
            A remark on the metric, such as that it is agreement with the FP32 model and not
            accuracy; :obj:`None` if there is none.
        holdout_missing:
            Why the hold-out set was not evaluated; :obj:`None` if it was, or there is none.
        gain:
            The time and size of the model against FP32, measured alternately at the end.
            :obj:`None` if nothing meets the criterion or ``measure_gain`` is false; without
            calibration data it has the size only.
        is_chosen:
            Whether :meth:`choose` has made it from the record of a search.
        known_objective:
            The objective with the known costs, for any configuration of the space.
        left_out:
            The ops that are not in the tuning space because quantizing them makes the model
            slower on this machine, each with its costs as far as they are known.
        explanation:
            Why the ops in fallback are there, and how likely untried configurations are to meet
            the criterion: a :class:`~optuna_quant.samplers.Explanation`, whose text is in the
            summary. Where the FP32 model is the answer it says by how much no quantized one is
            better. :obj:`None` with a strategy that has no model of the loss.
        call:
            The call or the command that has started the search, for reports; without secrets.
            :obj:`None` if that is not known.
        warnings:
            What is suspicious about the data, such as a FP32 model that is no better than chance.
        not_searched:
            The ops that might be quantized and are not in the tuning space for another reason
            than their cost: :class:`~optuna_quant.space.left_out.LeftOut`, each with its reason
            and what to do.
        other_recipes:
            The recipes that may lower errors in this model, and that were not searched.
    """

    def model(self) -> Model:
        """Build the model again.

        Raises:
            ValueError:
                If no model was evaluated, or the model built now differs from the one that the
                trial has evaluated.
        """
        if self.trial is None:
            raise ValueError(f"There is no model: {NOTHING}")
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
        check_output(path, inputs=files_of(self.backend), endings=endings_of(self.backend))
        if self.is_fp32 and not closest:
            raise ValueError(
                f"{shown_best(self)}, so none is saved. {self.message} To save "
                f"{self.original} all the same use save(path, closest=True)."
            )
        if not self.met and not closest and self.config is not None:
            why = (
                "No quantized model meets the criterion"
                if self.is_reproducible
                else "The model does not meet the criterion every time it is evaluated"
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
            for; :obj:`None` if not known) and ``note`` (what the runtime says, and why an op is in
            fallback); also ``accuracy_level`` where ops in
            weight-only mode have one. Where costs are known there follow
            ``seconds_gained`` and ``bytes_gained``, what the op gains in its option against FP32
            while all else is the same (0 in fallback), for another objective ``gained``; and a
            row for each op that was left out of the space as slower here, and for each that might
            be quantized and was not searched, with the reason as its ``note``. Where
            ``explanation`` knows it there follow ``error_share``, the op's part of the error that
            is expected where every op is quantized, and ``of_activations``, what part of that
            comes from its activations and not from its weights. Without a model there are no
            rows.
        """
        return report(self)

    def explain(self, op: str) -> str:
        """Why an op runs as it does in the answer, in words.

        The words rest on what the search knows: :attr:`explanation` (a loss that is "expected" is
        an estimate from the sensitivities and all trials), the costs, what the runtime executes,
        and any trial whose model differs from the answer in this op alone.

        Args:
            op:
                The name of the op.

        Raises:
            ValueError:
                If there is no such op in the model; it names those that are most like it.
        """
        return explain_op(self, op)

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
                of its range, the criterion goes the other way, or the objective is not known, or
                what the models cost by it.
        """
        return choose(
            self, tolerable_loss=tolerable_loss, criterion=criterion, objective=objective
        )

    def summary(self) -> str:
        """The result in a few lines of text.

        The ops that count are those that the runtime executes in integer kernels; what was asked
        for and does not run so is named. The runtime is asked once for each result.
        """
        return summary(self)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write a report of the search to a file, in the form that its ending says.

        Args:
            path:
                The file: ``.html`` for a page to read and to pass on (it needs jinja2), ``.json``
                for programs, ``.csv`` for the table of :meth:`report`. It is replaced as a whole.

        Raises:
            ImportError:
                If the page needs a package that is not installed; it names the extra.
            ValueError:
                If the file has another ending, cannot be written, or is one that was read.
        """
        # A report knows results, and not the other way round: it is imported where it is used.
        import_module("optuna_quant.report").save_report(self, path)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return result_html(self)
