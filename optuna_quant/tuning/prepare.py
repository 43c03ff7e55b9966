"""Everything that a search is given is checked, before any study is opened."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks.tuning_criterion import TuningCriterion
from optuna_quant.costs.given import CostsLike
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import as_objective
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.data.loaders import kept_in_memory
from optuna_quant.evaluation.batches import batches_of
from optuna_quant.evaluation.batches import warn_of_batches
from optuna_quant.evaluation.data_checks import warn_of_data
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.holdout_split import split_holdout
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.labelled import check_count
from optuna_quant.evaluation.metrics.criterion import check_tolerance
from optuna_quant.evaluation.metrics.criterion import criterion_for
from optuna_quant.evaluation.metrics.output_choice import check_outputs
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.objective import Evaluate
from optuna_quant.evaluation.timeout import check_evaluation_timeout
from optuna_quant.tuning.earlier_study import check_from_study
from optuna_quant.tuning.early_stopping import make_pruner
from optuna_quant.tuning.measures import make_holdout_measure
from optuna_quant.tuning.measures import make_measure
from optuna_quant.tuning.measures import usual_threads
from optuna_quant.tuning.output import SaveBest
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.run import TuningRun
from optuna_quant.tuning.strategies import check_begins_from
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.tuning.strategies import make_sampler
from optuna_quant.tuning.strategies import takes_costs
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs import KnownObjective
    from optuna_quant.space.narrowing import OpDict
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.earlier_study import FromStudy


def prepare(
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
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    providers: Sequence[Any] | None = None,
    session_options: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    backend: Backend | None = None,
    costs: CostsLike | None = None,
    measure_gain: bool = True,
    from_study: FromStudy | None = None,
) -> TuningRun:
    """Check all that a search is given, before any study is opened.

    No model is evaluated for it; the FP32 model runs on a few samples.

    For the arguments see :func:`optuna_quant.tune`.

    Raises:
        TypeError:
            If an argument has the wrong type.
        ValueError:
            If an argument is not valid.
    """
    if inputs is None:
        inputs = getattr(backend, "inputs", None)
    tuning = TuningCriterion() if tuning_criterion is None else tuning_criterion
    if accuracy_criterion is not None:
        _check_type("accuracy_criterion", accuracy_criterion, AccuracyCriterion)
    _check_type("tuning_criterion", tuning, TuningCriterion)
    strategy = choose_strategy(quant_level, tuning.strategy)
    if from_study is not None:
        check_from_study(from_study)
        check_begins_from(strategy, tuning.strategy_kwargs or {})
    check_evaluation_timeout(evaluation_timeout)
    threads = evaluation_threads
    if threads is not None:
        check_count("evaluation_threads", threads)
    else:
        is_ours = session_options is None and providers is None and backend is None
        threads = usual_threads() if is_ours else 1
    measured = partial(
        make_measure,
        metric=metric,
        criterion=accuracy_criterion,
        metric_bounds=metric_bounds,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
        batch_size=batch_size,
        threads=threads,
    )
    measure = measured(evaluate, data)
    of_data = measure.sample_metric if isinstance(measure, DataEvaluation) else None
    accuracy = criterion_for(of_data, accuracy_criterion)
    check_tolerance(accuracy)
    if evaluation_threads is not None and data is None:
        raise ValueError(
            f"evaluation_threads={evaluation_threads!r} goes with data, not with evaluate."
        )
    if isinstance(calibration_data, Iterator):
        calibration_data = kept_in_memory(calibration_data, "the calibration data")
    held_out: Evaluate | None = None
    split = None
    fraction = as_fraction(holdout)
    if holdout is not None and fraction is None:
        held_out = make_holdout_measure(holdout, evaluate, data, measured)
    pruner = make_pruner(measure, accuracy, evidence=evidence, error_probability=error_probability)
    if output is not None:
        given = {"model": model, "calibration data": calibration_data, "data": data}
        given["hold-out set"] = holdout
        check_output(output, inputs={k: v for k, v in given.items() if _is_path(v)})
    policy = ExitPolicy(
        accuracy,
        timeout=tuning.timeout,
        max_trials=tuning.max_trials,
        objective=OPS if tuning.objective is None else tuning.objective,
        stop_at_first=tuning.stop_at_first,
    )
    options = {
        "approach": approach,
        "calibration_data": calibration_data,
        "calibration_sizes": calibration_sizes,
        "inputs": inputs or None,
        "transform": transform,
        "providers": providers,
        "session_options": session_options,
        "cache_dir": cache_dir,
    }
    if backend is None:
        backend = _onnxruntime(model, options)
    else:
        _check_backend_alone(model, {**options, "inputs": None, "transform": None})
    space = backend.tuning_space(
        op_types=op_types, op_type_dict=op_type_dict, op_name_dict=op_name_dict
    )
    _check_quantizes(space, op_type_dict=op_type_dict, op_name_dict=op_name_dict)
    scored = None
    fp32 = backend.quantize(space.fp32()) if isinstance(measure, DataEvaluation) else None
    if fraction is not None:
        if isinstance(measure, DataEvaluation):
            measure.check(fp32)  # The model tells a list of batches from one of samples.
        measure, held_out, split = split_holdout(measure, fraction, seed=seed)
    for each in (measure, held_out):
        if isinstance(each, DataEvaluation):
            each.check(fp32)
            if each is measure:
                scored = check_outputs(each, fp32, backend=backend, space=space)
    given_costs = None if costs is None else as_costs(costs, space)
    sampler_of = partial(
        make_sampler,
        strategy,
        criterion=accuracy,
        seed=seed,
        kwargs=tuning.strategy_kwargs or {},
        backend=backend,
        outputs=scored,
        first_ops=_default_ops(backend) if op_types == "all" else (),
    )
    sampler = sampler_of(space)

    def with_space(chosen: TuningSpace, known: KnownObjective) -> BaseSampler:
        if chosen == space and not takes_costs(strategy):
            return sampler
        return sampler_of(chosen, costs=known.table)

    if isinstance(measure, DataEvaluation) and this_rank().reports:
        measure.tell_unused(fp32)
    warn_of_data(backend, measure, lambda: fp32)
    batches = batches_of(measure, space, fp32)
    if this_rank().reports:
        warn_of_batches(measure, batches)
    saver = None
    if output is not None:
        saver = SaveBest(output, backend=backend, space=space, policy=policy)
    return TuningRun(
        backend=backend,
        space=space,
        sampler=sampler,
        criterion=accuracy,
        policy=policy,
        measure=measure,
        saver=saver,
        calibration_data=calibration_data,
        pruner=pruner,
        seed=seed,
        holdout=held_out,
        evaluation_timeout=evaluation_timeout,
        inputs=inputs,
        transform=transform,
        split=split,
        batches=batches,
        verify=verify,
        objective=None if tuning.objective is None else as_objective(tuning.objective),
        costs=given_costs,
        may_narrow=op_types == "default" and not op_type_dict and not op_name_dict,
        measure_gain=measure_gain,
        with_space=with_space,
        from_study=from_study,
    )


def _onnxruntime(model: Any, options: Mapping[str, Any]) -> Backend:
    if model is None:
        raise ValueError("A model is needed: a path, its bytes, or an onnx.ModelProto.")
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend

    given = {name: value for name, value in options.items() if value is not None}
    return cast("Backend", OnnxRuntimeBackend(model, **given))


def _check_backend_alone(model: Any, options: Mapping[str, Any]) -> None:
    given = [name for name, value in {"model": model, **options}.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: a backend that is given has its own; give them to the backend."
        )


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of the type {kind.__name__}, but got {value!r}.")


def _check_quantizes(space: TuningSpace, **dicts: OpDict | None) -> None:
    if any(tunable.quantized for tunable in space.tunables):
        return
    given = [name for name, op_dict in dicts.items() if op_dict]
    if not given:
        raise ValueError("The tuning space has no quantized option, so there is nothing to tune.")
    leave = "leaves" if len(given) == 1 else "leave"
    raise ValueError(
        f"{' and '.join(given)} {leave} no op any quantized option, so there is nothing to tune: "
        "allow a quantized mode for one op at least."
    )


def _default_ops(backend: Backend) -> Collection[str]:
    """The ops of the default space, which are searched before all others."""
    return [op.name for op in backend.capability().ops if op.default]


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)
