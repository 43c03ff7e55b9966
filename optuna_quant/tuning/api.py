"""The whole search in one call."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import TYPE_CHECKING
from typing import Any

from optuna.storages import InMemoryStorage

from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.tuning_criterion import TuningCriterion
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.search import prepare
from optuna_quant.workers.launch import RANKS
from optuna_quant.workers.launch import Rank
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs.given import CostsLike
    from optuna_quant.space.narrowing import OpDict
    from optuna_quant.storages.artifacts import ArtifactStore
    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.earlier_study import FromStudy


__all__ = ["TuningResult", "tune"]


# A calibration, a callback, a metric: whatever is called here may not end the process.
@exits_are_errors("Something that tune() has called")
def tune(
    model: Any = None,
    *,
    calibration_data: Any = None,
    evaluate: Evaluate | None = None,
    data: Any = None,
    metric: Metric | None = None,
    metric_bounds: tuple[float, float] | None = None,
    output_names: str | Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    evaluation_threads: int | None = None,
    evaluation_timeout: float | None = None,
    evidence: str | None = None,
    error_probability: float = 1e-3,
    holdout: Any = None,
    verify: bool = True,
    approach: str | None = None,
    quant_level: str | int | None = None,
    accuracy_criterion: AccuracyCriterion | None = None,
    tuning_criterion: TuningCriterion | None = None,
    op_types: Sequence[str] | str = "default",
    op_type_dict: OpDict | None = None,
    op_name_dict: OpDict | None = None,
    calibration_sizes: Sequence[int] | None = None,
    storage: Storage = None,
    study_name: str | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    providers: Sequence[Any] | None = None,
    session_options: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = (),
    show_progress: bool = False,
    backend: Backend | None = None,
    n_jobs: int = 1,
    artifact_store: ArtifactStore | None = None,
    costs: CostsLike | None = None,
    measure_gain: bool = True,
    from_study: FromStudy | None = None,
) -> TuningResult:
    """Find a quantized version of a model that keeps to an accuracy criterion.

    It is a short way to write what the parts of this package do together: a backend, its tuning
    space, a sampler, :class:`~optuna_quant.QuantObjective`, a study, and
    :class:`~optuna_quant.callbacks.ExitPolicy`. With a ``storage`` the search can be interrupted
    and called again, and several processes can call it at once and share the work. Under
    ``mpirun`` or ``srun`` each process gets the result; the first one alone shows the progress
    and writes ``output`` (:func:`optuna_quant.workers.launch.this_rank` tells a script which it
    is).

    Example:

        .. code-block:: python

            result = optuna_quant.tune("model.onnx", calibration_data=batches, evaluate=evaluate)
            print(result)
            if result.met:
                result.save("model.int8.onnx")

    Args:
        model:
            The ONNX model: a path, its bytes, or an ``onnx.ModelProto``. It is not changed.
        calibration_data:
            Inputs for the static approach: a dict of arrays, a list of batches, an ``.npz``
            file, a folder of images, a data loader, or a function that returns an iterator over
            batches; see
            :class:`~optuna_quant.backends.onnxruntime.calibration.data.CalibrationData`.
        evaluate:
            Function that gives the metric of a model, as one number. It gets an
            ``onnxruntime.InferenceSession`` of the FP32 model or of a candidate. It may give one
            score for each sample instead, as an array, a list or a tensor of shape
            ``(samples,)``, whose mean is the metric; then the loss has a confidence interval, if
            the bounds of the scores are known (``metric_bounds``; those of booleans are). A
            function with a second parameter named ``indices`` (or ``samples``), which gives the
            scores of the samples of these indices, is evaluated on no more samples than it takes
            to decide; :obj:`None` asks for all. See
            :class:`~optuna_quant.evaluation.function.FunctionEvaluation`.
        data:
            Instead of ``evaluate``: labelled data, see
            :class:`~optuna_quant.evaluation.labelled.DataEvaluation`. Then a model is evaluated
            on no more samples than it takes to decide about it; what is returned as meeting the
            criterion was evaluated on all. Where a limit ends the search before anything meets
            it, up to three models that looked good are evaluated to their end.
        metric:
            The metric on ``data``: ``"accuracy"`` (default), ``"top5"``, ``"exact_match"``,
            ``"iou"``, ``"mse"``, ``"mae"``; ``"agreement"``, ``"cosine"`` or
            ``"relative_error"``, which compare with the FP32 model's outputs and need no labels;
            with scikit-learn ``"f1"``, ``"f1_macro"``, ``"roc_auc"``, ``"r2"`` and others, see
            :func:`~optuna_quant.evaluation.metrics.library.library_metric_names`; a function that
            gives the score of each sample, a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.SampleMetric` or a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.CorpusMetric`, or an object of
            torchmetrics.
        metric_bounds:
            The lowest and the highest score of a sample, for a metric that does not say it, or
            for the scores that ``evaluate`` gives. Without bounds every model is evaluated on all
            samples; without the one on the bad side, as of ``"mse"``, it is given up once it
            certainly fails.
        output_names:
            The name of the model's output that the metric is of, or the names of several, of
            which the metric's function then gets a tuple. Default: the first output; where there
            are others, a warning says so.
        inputs:
            Inputs of the model that are the same for all samples, such as a sampling rate, a flag
            or the first recurrent state: ``inputs={"sr": 16000, "state": 0}``. They are given to
            the model with all data: for calibration, sensitivities, evaluation and latency. A
            number fills the whole input; what else a value may be says
            :class:`~optuna_quant.data.constant_inputs.ConstantInputs`.
        transform:
            Function of what the data hold of one sample, an array or an image, that gives the
            input as the model takes it, without an axis of samples. It goes for ``data``,
            ``holdout`` and ``calibration_data``. Default: all are used as they are.
        batch_size:
            How many samples of ``data`` are run at once. Default: 64, but 1 for models with
            dynamic quantization, in which what a sample gets depends on the others in its batch.
            With ``evaluate``, for how many indices it is asked at once; default: 64.
        evaluation_threads:
            How many batches of ``data`` are run at the same time; without ``session_options`` they
            share the cores. By default two on processors with several cores, and one where
            ``session_options``, ``providers`` or a ``backend`` are given.
        evaluation_timeout:
            After how many seconds the evaluation of a model is ended, so that one that hangs does
            not hold up everybody else. A candidate fails then, once and for all; of the FP32
            model it is an error. The second evaluation and that of a hold-out set have as long,
            each. See :class:`~optuna_quant.QuantObjective`. Default: never.
        evidence:
            How it is decided that a model fails before all samples were seen: ``"paired"``
            (default), ``"unpaired"`` or ``"exact"``, see
            :class:`~optuna_quant.EarlyStopping`; ``"off"`` evaluates every model on all
            samples. It is about ``data``, or a function ``evaluate`` that takes indices.
        error_probability:
            With what probability a model that meets the criterion may be given up.
        holdout:
            The part of ``data`` that the search does not see, such as 0.3, drawn with the seed;
            or labelled data in the form of ``data``, or with ``evaluate`` a second such function,
            of samples that it must not see. The model that was found and the FP32 model are
            evaluated on it once, at the end; it decides nothing. What it says is in
            ``result.holdout``. Default: none.
        verify:
            Whether the model that was found is evaluated a second time, to see whether its metric
            is reproducible. With ``data`` a few samples tell, and all are evaluated again only if
            those have not given the same; ``evaluate`` is called once more (for a few samples if
            it takes indices, and gives margins or scores that are more than right and wrong). If
            the second metric does not meet the criterion, nothing is met.
        approach:
            ``"static"``, ``"dynamic"``, or ``"auto"`` (static, and dynamic for ops that allow it).
            Default: ``"static"``, and ``"auto"`` for a model of which 5 % or more are the weights
            of ops that only dynamic quantization takes (LSTM).
        quant_level:
            How the strategy is chosen: ``"auto"`` (the default strategy, ``"auto"``), 0
            (``"conservative"``) or 1 (the named strategy, or ``"basic"``). Default: the strategy
            that ``tuning_criterion`` names, otherwise ``"auto"``.
        accuracy_criterion:
            When a metric is good enough. Default: ``AccuracyCriterion()``, at most one percent
            relative loss (absolute for ``"relative_error"``). Whether more is better is what the
            metric says, unless the criterion does; of a function's number it is.
        tuning_criterion:
            The strategy, how long to search, and which of the good models is the best. Default:
            ``TuningCriterion()``, which stops at the first model that is good enough.
        op_types:
            Which ops to tune: ``"default"`` (those whose quantization pays: where latency is the
            objective, none that makes the model slower here), ``"all"``, or the op types.
        op_type_dict:
            What to allow, by op type, see :func:`optuna_quant.space.narrowing.narrow`.
        op_name_dict:
            What to allow, by op name.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first. Default: all samples.
        storage:
            Where the study is kept: a storage of Optuna, a database URL, or the path of a journal
            file, see :func:`optuna_quant.storages.open.open_storage`. Default: in memory.
        study_name:
            The study's name. A study that exists is continued. Default: ``optuna_quant-`` and a
            hash of the model, so that models can share a storage.
        output:
            A file in which the best model so far is kept, from the first one that meets the
            criterion on.
        seed:
            The seed of everything random. Processes that share a study use the same.
        providers:
            ONNX Runtime's execution providers.
        session_options:
            ONNX Runtime's session options.
        cache_dir:
            A directory in which calibration statistics are kept for the next time.
        callbacks:
            More callbacks of the study, called after each trial.
        show_progress:
            Whether to write a line per trial to ``sys.stderr``.
        backend:
            Instead of ``model`` and all that describes how to read and run it: a
            :class:`~optuna_quant.backends.base.Backend`. ``evaluate`` then gets its runtime's own
            object of a model, if there is one, else the model as it builds it.
        n_jobs:
            How many models are evaluated at a time, in threads of this process. ``evaluate`` must
            allow that.
        artifact_store:
            Where processes that share the study share what calibration gives, if that is large: a
            store of :mod:`optuna.artifacts` that all reach. Default: in the study itself.
        costs:
            What each op costs in each option, for a device that is not here or as you have
            edited it: an :class:`optuna_quant.costs.Costs`, a single
            :class:`~optuna_quant.costs.CostTable`, the path of a JSON file, or a function that
            gives the seconds of a configuration. Default: the backend measures it, once for the
            study, if the objective needs it. See ``docs/objectives.md``.
        measure_gain:
            Whether the answer is measured beside the FP32 model at the end, for about two
            seconds; for the objective ``"latency"`` those that are predicted to be about as fast
            as well, and the fastest is taken. What it says is in ``result.gain``.
        from_study:
            An earlier study of the same model, of one that was fine-tuned since (the same op
            names and types), or of one with some ops in common: a study, a
            :class:`TuningResult`, the name of a study in the same storage, or a pair ``(storage,
            name)``, with the name :obj:`None` for the only study there. What it has taught is the
            prior of the search, and its answer is the first candidate where the criterion and
            the objective are the same: if nothing has changed, that and the FP32 model are all
            that is evaluated. The earlier study is only read; what is taken from it is written
            into the new study at its beginning, so that it is not needed again. See
            ``docs/warm_start.md``.

    Returns:
        The result, also if nothing meets the criterion: ``result.met`` and
        ``result.stopped_because`` tell.

    Raises:
        BaselineError:
            If the FP32 model cannot be evaluated.
        OutputError:
            If the model that was found cannot be written to ``output``; it has the result.
        TuningInterrupted:
            If the search was interrupted: a ``KeyboardInterrupt`` that has the result.
        TypeError:
            If an argument has the wrong type.
        ValueError:
            If an argument is not valid, the study that is continued or begun from does not
            fit, several
            processes were started together and have no storage to share, or something that was
            given tries to end the process (``sys.exit``).
    """
    rank = this_rank()
    _check_shared(storage, rank)
    search = prepare(
        model,
        calibration_data=calibration_data,
        evaluate=evaluate,
        data=data,
        metric=metric,
        metric_bounds=metric_bounds,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
        batch_size=batch_size,
        evaluation_threads=evaluation_threads,
        evaluation_timeout=evaluation_timeout,
        evidence=evidence,
        error_probability=error_probability,
        holdout=holdout,
        verify=verify,
        approach=approach,
        quant_level=quant_level,
        accuracy_criterion=accuracy_criterion,
        tuning_criterion=tuning_criterion,
        op_types=op_types,
        op_type_dict=op_type_dict,
        op_name_dict=op_name_dict,
        calibration_sizes=calibration_sizes,
        output=output if rank.is_leader else None,
        seed=seed,
        providers=providers,
        session_options=session_options,
        cache_dir=cache_dir,
        backend=backend,
        costs=costs,
        measure_gain=measure_gain,
        from_study=from_study,
    )
    result = search.run(
        storage=storage,
        study_name=study_name,
        callbacks=callbacks,
        show_progress=show_progress and rank.is_leader,
        n_jobs=n_jobs,
        artifact_store=artifact_store,
    )
    if result.stopped_because == StopReason.INTERRUPTED:
        raise TuningInterrupted(result)
    return result


def _check_shared(storage: Storage, rank: Rank) -> None:
    if rank.is_alone or not (storage is None or isinstance(storage, InMemoryStorage)):
        return
    raise ValueError(
        f"{rank.size} processes were started together (this is {rank}), and without a storage "
        "that they share each would do all the work: give storage=..., such as "
        "'postgresql://USER:PASSWORD@HOST/NAME' or, on one machine, the path of a journal file. "
        f"(If each is to search on its own, set the environment variable {RANKS}=1.)"
    )
