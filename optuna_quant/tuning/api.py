"""The whole search in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import enum
import os
from typing import TYPE_CHECKING
from typing import Any

from optuna.storages import InMemoryStorage

from optuna_quant._common.steps import listening
from optuna_quant._common.user_traceback import from_user_lines
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.display import LineDisplay
from optuna_quant.callbacks.display import NoDisplay
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.errors import TrainingError
from optuna_quant.tuning.call import Call
from optuna_quant.tuning.call import python_call
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.prepare import prepare
from optuna_quant.tuning.quiet import without_info
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.run import run_search
from optuna_quant.workers.launch import RANKS
from optuna_quant.workers.launch import Rank
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from typing import Unpack

    from optuna_quant.backends.default import ModelLike
    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.metrics.sample_metrics import Metric
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.options.flat import FurtherOptions


__all__ = ["TuningResult", "tune"]


class NotGiven(enum.Enum):
    """Stands for an argument that was not given, where None says something."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return self.name


NOT_GIVEN = NotGiven.NOT_GIVEN
LIMITS = ("max_trials", "timeout")
"""Of these None says something: no limit."""


# A calibration, a callback, a metric: whatever is called here may not end the process.
@exits_are_errors("Something that tune() has called")
@without_info()
def tune(
    model: ModelLike | None = None,
    *,
    calibration_data: CalibrationLike | None = None,
    evaluate: Evaluate | None = None,
    data: DataLike | None = None,
    metric: Metric | None = None,
    tolerable_loss: float | None = None,
    objective: ObjectiveLike | None = None,
    strategy: str | None = None,
    max_trials: int | NotGiven | None = NOT_GIVEN,
    timeout: float | str | NotGiven | None = NOT_GIVEN,
    storage: Storage = None,
    study_name: str | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    **options: Unpack[FurtherOptions],
) -> TuningResult:
    """Find a quantized version of a model that keeps to an accuracy criterion.

    It assembles the parts of this package: a backend, its tuning space, a sampler,
    :class:`~optuna_quant.QuantObjective`, a study, and
    :class:`~optuna_quant.callbacks.ExitPolicy`. With a ``storage`` you can interrupt the search
    and call it again, and several processes can call it at once and share the work. Under
    ``mpirun`` or ``srun`` each process gets the result, but only the first one shows the progress
    and writes ``output`` (:func:`optuna_quant.workers.launch.this_rank` tells a script its rank).

    Example:

        .. code-block:: python

            result = optuna_quant.tune("model.onnx", calibration_data=batches, evaluate=evaluate)
            print(result)
            if result.met:
                result.save("model.int8.onnx")

    Args:
        model:
            The ONNX model: a path, its bytes, or an ``onnx.ModelProto``; or a
            :class:`torch.nn.Module`, which is exported once, with ``example_inputs=``: what its
            ``forward`` takes, as a tensor, a tuple of arguments, or a dict by name, see
            :func:`~optuna_quant.backends.onnxruntime.export_module`. It is not changed. For any
            other model give ``backend=`` instead, see ``options``.
        calibration_data:
            Inputs for the static approach: a dict of arrays, a list of batches, an ``.npz``
            file, a folder of images, a data loader, or a function that returns an iterator over
            batches; see
            :class:`~optuna_quant.backends.calibration.data.CalibrationData`.
        evaluate:
            Function that returns the metric of a model, as one number. It gets an
            ``onnxruntime.InferenceSession`` of the FP32 model or of a candidate; for a PyTorch
            module, what is called with tensors as the module is, with the attribute ``session``;
            with ``backend=``, the object of that backend's runtime. It may return one
            score for each sample instead, as an array, a list or a tensor of shape
            ``(samples,)``, whose mean is the metric; then the loss has a confidence interval, if
            the bounds of the scores are known (``metric_bounds``; those of booleans are). If the
            function has a second parameter named ``indices`` (or ``samples``) and returns the
            scores of these samples, evaluations stop early; :obj:`None` asks for all. See
            :class:`~optuna_quant.evaluation.function.FunctionEvaluation`.
        data:
            Instead of ``evaluate``: labelled data, see
            :class:`~optuna_quant.evaluation.labelled.DataEvaluation`. Evaluations stop early, as
            soon as they are decided; a model returned as meeting the criterion was evaluated on
            all samples. If a limit ends the search before any model meets the criterion, up to
            three models that looked good are evaluated to the end.
        metric:
            The metric on ``data``: ``"accuracy"`` (default), ``"top5"``, ``"exact_match"``,
            ``"iou"``, ``"mse"``, ``"mae"``; ``"agreement"``, ``"cosine"`` or
            ``"relative_error"``, which compare with the FP32 model's outputs and need no labels;
            with scikit-learn ``"f1"``, ``"f1_macro"``, ``"roc_auc"``, ``"r2"`` and others, see
            :func:`~optuna_quant.evaluation.metrics.library.library_metric_names`; a function that
            gives the score of each sample, a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.SampleMetric` or a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.CorpusMetric`, or an object of
            torchmetrics or Keras.
        tolerable_loss:
            The largest loss that is good enough, relative to the FP32 model's metric: 0.01
            (default) is one percent. It is absolute, in units of the metric, for
            ``"relative_error"``, and with ``criterion="absolute"``. The metric defines whether
            higher is better, unless ``higher_is_better`` does; for a function, higher is better.
        objective:
            What to optimize among the models that meet the criterion: ``"latency"``, ``"size"``,
            ``"ops"`` and others, see :class:`~optuna_quant.TuningCriterion`.
        strategy:
            The name of the strategy, see ``docs/strategies``. Default: ``"auto"``.
        max_trials:
            The maximum number of models to evaluate; :obj:`None` for no limit. Default: 100.
        timeout:
            0 (default): stop at the first model that is good enough. A positive number: search
            for that many seconds, and take the best; or a string such as ``"15m"`` or ``"1h"``.
            :obj:`None`: no time limit.
        storage:
            Where the study is kept: a storage of Optuna, a database URL, or the path of a journal
            file, see :func:`optuna_quant.storages.open.open_storage`. Default: in memory.
        study_name:
            The study's name. A study that exists is continued. Default: ``optuna_quant-`` and a
            hash of the model, so that models can share a storage.
        output:
            A file for the best model so far, written as soon as a model meets the criterion.
        seed:
            The seed of everything random. Processes that share a study use the same seed.
        **options:
            Every option of :class:`~optuna_quant.AccuracyCriterion`,
            :class:`~optuna_quant.TuningCriterion`, :class:`~optuna_quant.EvaluationOptions`,
            :class:`~optuna_quant.QuantizationOptions`, :class:`~optuna_quant.RuntimeOptions` and
            :class:`~optuna_quant.SearchOptions` by its name, such as ``holdout=0.3``; or such
            values themselves, to be used again, as ``accuracy_criterion=``,
            ``tuning_criterion=``, ``evaluation=``, ``quantization=``, ``runtime=`` and
            ``search=``. And ``backend=``, a
            :class:`~optuna_quant.backends.base.Backend` instead of ``model`` and all that
            describes how to read and run it; ``evaluate`` then gets its runtime's own object of a
            model, if there is one, else the model as it builds it.

    Returns:
        The result, also if nothing meets the criterion: ``result.met`` and
        ``result.stopped_because`` tell.

    Raises:
        BaselineError:
            If the FP32 model cannot be evaluated.
        TrainingError:
            If the function that trains models (``train`` of a
            :class:`~optuna_quant.backends.torch.TorchBackend`) fails in the first training.
        OutputError:
            If the model that was found cannot be written to ``output``; it has the result.
        TuningInterrupted:
            If it was interrupted, in whatever phase: a ``KeyboardInterrupt`` that has the result.
        TypeError:
            If there is no such option, or one has the wrong type.
        ValueError:
            If an argument is not valid or given twice, the study that is continued or started from
            does not fit, several processes were started together and have no storage to share, or
            something that was given tries to end the process (``sys.exit``).
    """
    named = {
        "tolerable_loss": tolerable_loss,
        "objective": objective,
        "strategy": strategy,
        "max_trials": max_trials,
        "timeout": timeout,
    }
    not_given = dict.fromkeys(LIMITS, NOT_GIVEN)
    given = {name: value for name, value in named.items() if value is not not_given.get(name)}
    everything = {
        "model": model,
        "calibration_data": calibration_data,
        "evaluate": evaluate,
        "data": data,
        "metric": metric,
        "storage": storage,
        "study_name": study_name,
        "output": output,
        "seed": seed,
        **given,
        **options,
    }
    request = collect(TuneOptions, everything)
    try:
        result = _searched(request, everything, storage=storage, study_name=study_name)
    except KeyboardInterrupt:
        result = None
    except (BaselineError, TrainingError) as error:
        # What went wrong is in the user's function, or in what was given to it.
        raise from_user_lines(error) from error.__cause__
    if result is None or result.stopped_because == StopReason.INTERRUPTED:
        raise TuningInterrupted(result)
    return result


def _searched(
    request: TuneOptions,
    everything: Mapping[str, Any],
    *,
    storage: Storage,
    study_name: str | None,
) -> TuningResult:
    """Check all that was given, and search."""
    rank = this_rank()
    _check_shared(storage, rank)
    shows = request.search.show_progress and rank.is_leader
    with LineDisplay() if shows else NoDisplay() as display, listening(display.doing):
        search = prepare(request if rank.is_leader else replace(request, output=None))
    said = {
        name: value for name, value in everything.items() if name in LIMITS or value is not None
    }
    search = replace(search, call=Call("python", python_call(said), request.seed))
    return run_search(
        search,
        storage=storage,
        study_name=study_name,
        options=replace(request.search, show_progress=shows),
    )


def _check_shared(storage: Storage, rank: Rank) -> None:
    if rank.is_alone or not (storage is None or isinstance(storage, InMemoryStorage)):
        return
    raise ValueError(
        f"{rank.size} processes were started together (this is {rank}), and without a shared "
        "storage each would do all the work: give storage=..., such as "
        "'postgresql://USER:PASSWORD@HOST/NAME' or, on one machine, the path of a journal "
        f"file. (If each is to search on its own, set the environment variable {RANKS}=1.)"
    )
