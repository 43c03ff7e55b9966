"""Check everything that a search is given, before any study is opened."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.backends.base import simulated_target_of
from optuna_quant.backends.default import expected_inputs
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import as_objective
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.backend_checks import check_built
from optuna_quant.evaluation.backend_checks import check_described
from optuna_quant.evaluation.batches import batches_of
from optuna_quant.evaluation.batches import warn_of_batches
from optuna_quant.evaluation.data_checks import tell_forms
from optuna_quant.evaluation.data_checks import tell_unused
from optuna_quant.evaluation.data_checks import warn_of_data
from optuna_quant.evaluation.half_written import OF_BACKENDS
from optuna_quant.evaluation.half_written import warn_of_half_written
from optuna_quant.evaluation.holdout_split import HoldoutSplit
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.holdout_split import split_holdout
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.criterion import check_tolerance
from optuna_quant.evaluation.metrics.criterion import criterion_for
from optuna_quant.evaluation.metrics.library import library_bounds
from optuna_quant.evaluation.metrics.output_choice import check_outputs
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.tuning.direction import check_direction
from optuna_quant.tuning.earlier_study import check_from_study
from optuna_quant.tuning.early_stopping import make_stopping
from optuna_quant.tuning.measures import make_holdout_measure
from optuna_quant.tuning.measures import make_measure
from optuna_quant.tuning.measures import usual_threads
from optuna_quant.tuning.model_parts import backend_of
from optuna_quant.tuning.model_parts import calibration_data_of
from optuna_quant.tuning.model_parts import inputs_of
from optuna_quant.tuning.model_parts import space_of
from optuna_quant.tuning.options.checks import check_instance
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.output import SaveBest
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.sensitivities.given import given_sensitivity
from optuna_quant.tuning.sensitivities.table import as_table
from optuna_quant.tuning.setup import TuningSetup
from optuna_quant.tuning.strategies import check_begins_from
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.tuning.strategies import kind_used
from optuna_quant.tuning.strategies import make_sampler
from optuna_quant.tuning.strategies import takes_costs
from optuna_quant.tuning.strategies import tunes_recipes
from optuna_quant.tuning.usual_recipes import left_open
from optuna_quant.tuning.usual_recipes import with_usual
from optuna_quant.tuning.usual_recipes import without
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import KnownObjective
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.batches import Batches
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.options.quantization import QuantizationOptions
    from optuna_quant.tuning.options.request import TuneOptions

    _Measured: TypeAlias = Callable[[Evaluate | None, DataLike | None], Evaluate]


def prepare(request: TuneOptions) -> TuningSetup:
    """Check all that a search is given, before any study is opened.

    No model is evaluated for it; the FP32 model runs on a few samples.

    Args:
        request:
            What :func:`optuna_quant.tune` was given.

    Raises:
        TypeError:
            If an option has the wrong type.
        ValueError:
            If an option is not valid.
    """
    check_instance("backend", request.backend)
    options, tuning = request.evaluation, request.tuning_criterion or TuningCriterion()
    strategy = _strategy(request, tuning)
    inputs = inputs_of(request)
    measured = _measured(request, inputs)
    measure = measured(request.evaluate, request.data)
    accuracy, asked = _criterion(request, measure)
    calibration_data = calibration_data_of(request)
    held_out = _held_out(request, measured)
    stopping = make_stopping(
        measure,
        early_stopping=options.early_stopping,
        error_probability=options.error_probability,
    )
    _check_output(request)
    policy = _policy(accuracy, tuning)
    _check_before_export(request, measure, held_out)
    leaves_open = _leaves_recipes_open(request)
    recipes = request.quantization.recipes
    backend = backend_of(
        request,
        calibration_data,
        inputs,
        recipes=with_usual(recipes) if leaves_open else recipes,
    )
    spaces = _spaces(request, strategy, tuning, space_of(backend, request.quantization))
    space = spaces[0]
    if request.backend is not None:
        warn_of_half_written(backend, OF_BACKENDS)
    fitted = _fitted(request, measure, held_out, backend=backend, space=space)
    costs = request.search.costs
    given_costs = None if costs is None else as_costs(costs, space)
    scores = _given_scores(request, strategy, tuning, space)
    samplers = _samplers(
        request, strategy, tuning, policy, backend, outputs=fitted.outputs, given=scores
    )
    sampler = samplers(space)
    batches, warnings = _told_batches(fitted.measure, backend, space, fitted.fp32)
    return TuningSetup(
        backend=backend,
        space=space,
        sampler=sampler,
        criterion=accuracy,
        policy=policy,
        measure=fitted.measure,
        saver=_saver(request, backend, space, policy),
        calibration_data=calibration_data,
        stopping=stopping,
        seed=request.seed,
        holdout=fitted.held_out,
        evaluation_timeout=options.evaluation_seconds,
        inputs=inputs,
        transform=options.transform,
        split=fitted.split,
        batches=batches,
        warnings=(*([asked] if asked else []), *warnings),
        verify=options.verify,
        objective=None if tuning.objective is None else as_objective(tuning.objective),
        costs=given_costs,
        may_narrow=_may_narrow(request.quantization),
        # Times here say nothing about a device that is elsewhere.
        measure_gain=options.measure_gain and simulated_target_of(backend) is None,
        with_space=_with_space(strategy, space, sampler, samplers),
        other_spaces=spaces[1:],
        from_study=request.search.from_study,
    )


def _leaves_recipes_open(request: TuneOptions) -> bool:
    """Whether the library may choose which recipes are tuned.

    A backend that is given has its own, and given sensitivities say nothing of recipes.
    """
    return request.backend is None and request.quantization.sensitivities is None


def _spaces(
    request: TuneOptions, strategy: str, tuning: TuningCriterion, space: TuningSpace
) -> tuple[TuningSpace, ...]:
    """The space of a new search, and those of which a study may be continued.

    They differ in the recipes that the user has left open, which only a strategy tunes that has a
    place for them.
    """
    usual = left_open(space, request.quantization.recipes) if _leaves_recipes_open(request) else ()
    if not usual:
        return (space,)
    found = space, without(space, usual)
    return found if tunes_recipes(strategy, tuning.strategy_kwargs or {}) else found[::-1]


def _strategy(request: TuneOptions, tuning: TuningCriterion) -> str:
    strategy = choose_strategy(request.search.quant_level, tuning.strategy)
    if request.search.from_study is not None:
        check_from_study(request.search.from_study)
        check_begins_from(strategy, tuning.strategy_kwargs or {})
    return strategy


def _measured(request: TuneOptions, inputs: InputValues | None) -> _Measured:
    """Makes what gives the metric of a model, of a function or of data."""
    options = request.evaluation
    threads = options.evaluation_threads
    if threads is None:
        runtime = request.runtime
        said = (runtime.session_options, runtime.threads, runtime.providers, request.backend)
        threads = usual_threads() if all(each is None for each in said) else 1
    return partial(
        make_measure,
        metric=request.metric,
        criterion=request.accuracy_criterion,
        metric_bounds=options.metric_bounds,
        output_names=options.output_names,
        inputs=inputs,
        transform=options.transform,
        batch_size=options.batch_size,
        threads=threads,
    )


def _criterion(request: TuneOptions, measure: Evaluate) -> tuple[AccuracyCriterion, str]:
    """The criterion, and what is asked about its tolerance; empty if nothing is."""
    of_data = measure.sample_metric if isinstance(measure, DataEvaluation) else None
    for function in (request.evaluate, request.metric):
        check_direction(function, request.accuracy_criterion)
    found = criterion_for(of_data, request.accuracy_criterion)
    bounds = measure.bounds if isinstance(measure, DataEvaluation) else None
    if bounds is None and of_data is not None:
        bounds = library_bounds(of_data)
    asked = check_tolerance(found, bounds=bounds)
    threads = request.evaluation.evaluation_threads
    if threads is not None and request.data is None:
        raise ValueError(f"evaluation_threads={threads!r} is for data, not for evaluate.")
    return found, asked


def _held_out(request: TuneOptions, measured: _Measured) -> Evaluate | None:
    """What measures on the hold-out set, if that is a set and not a part of the data."""
    holdout = request.evaluation.holdout
    if holdout is None or as_fraction(holdout) is not None:
        return None
    return make_holdout_measure(holdout, request.evaluate, request.data, measured)


def _check_before_export(
    request: TuneOptions, measure: Evaluate, held_out: Evaluate | None
) -> None:
    """Refuse data that do not fit a module before it is exported, which may take minutes."""
    data = [each for each in (measure, held_out) if isinstance(each, DataEvaluation)]
    if request.backend is not None or not data:
        return
    expected = expected_inputs(request.model, request.example_inputs)
    if expected is not None:
        for each in data:
            each.runs.check_inputs(expected)


def _policy(accuracy: AccuracyCriterion, tuning: TuningCriterion) -> ExitPolicy:
    return ExitPolicy(
        accuracy,
        timeout=tuning.seconds,
        max_trials=tuning.max_trials,
        objective=OPS if tuning.objective is None else tuning.objective,
        stop_at_first=tuning.stop_at_first,
    )


def _check_output(request: TuneOptions) -> None:
    """Refuse an output that cannot be written, or is one of the files that are read."""
    if request.output is None:
        return
    given = {
        "model": request.model,
        "calibration data": request.calibration_data,
        "data": request.data,
        "hold-out set": request.evaluation.holdout,
        "file of sensitivities": request.quantization.sensitivities,
    }
    paths = {name: value for name, value in given.items() if isinstance(value, str | os.PathLike)}
    check_output(request.output, inputs=paths, endings=endings_of(request.backend))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Evaluations that are known to fit the model.

    Args:
        measure:
            What the search evaluates with.
        held_out:
            What the answer is evaluated with; None without a hold-out set.
        split:
            How the data were split into the two; None if they were not.
        fp32:
            The FP32 model; None if nothing is evaluated on data.
        outputs:
            The outputs that the metric is of; None if that is not known.
    """

    measure: Evaluate
    held_out: Evaluate | None
    split: HoldoutSplit | None
    fp32: Any
    outputs: tuple[str, ...] | None


def _fitted(
    request: TuneOptions,
    measure: Evaluate,
    held_out: Evaluate | None,
    *,
    backend: Backend,
    space: TuningSpace,
) -> _Fitted:
    """Check that data fit the model; splits the hold-out set off them if that is a part."""
    split, outputs = None, None
    on_data = any(isinstance(each, DataEvaluation) for each in (measure, held_out))
    fp32 = backend.quantize(space.fp32()) if on_data else None
    if fp32 is not None:
        check_built(backend, fp32)
        check_described(fp32)
    fraction = as_fraction(request.evaluation.holdout)
    if fraction is not None:
        if isinstance(measure, DataEvaluation):
            measure.check(fp32)  # The model tells a list of batches from one of samples.
        measure, held_out, split = split_holdout(measure, fraction, seed=request.seed)
    for each in (measure, held_out):
        if isinstance(each, DataEvaluation) and fp32 is not None:
            each.check(fp32)
            if each is measure:
                outputs = check_outputs(each, fp32, backend=backend, space=space)
    return _Fitted(measure, held_out, split, fp32, outputs)


def _samplers(
    request: TuneOptions,
    strategy: str,
    tuning: TuningCriterion,
    policy: ExitPolicy,
    backend: Backend,
    *,
    outputs: Sequence[str] | None,
    given: Sensitivity | None,
) -> Callable[..., BaseSampler]:
    """Makes the sampler of a tuning space."""
    return partial(
        make_sampler,
        strategy,
        criterion=policy.criterion,
        seed=request.seed,
        kwargs=tuning.strategy_kwargs or {},
        backend=backend,
        outputs=outputs,
        given=given,
        first_ops=_first_ops(backend, request.quantization.op_types),
        thorough=not policy.stops_at_first,
    )


def _given_scores(
    request: TuneOptions, strategy: str, tuning: TuningCriterion, space: TuningSpace
) -> Sensitivity | None:
    """The sensitivities that the user gives in the place of those that the strategy measures."""
    given = request.quantization.sensitivities
    if given is None:
        return None
    wanted = kind_used(strategy, tuning.strategy_kwargs or {})
    return given_sensitivity(as_table(given), space, wanted=wanted, strategy=strategy)


def _with_space(
    strategy: str,
    space: TuningSpace,
    sampler: BaseSampler,
    samplers: Callable[..., BaseSampler],
) -> Callable[[TuningSpace, KnownObjective], BaseSampler]:
    """Gives the sampler once it is known what is searched, and by what cost."""

    def with_space(chosen: TuningSpace, known: KnownObjective) -> BaseSampler:
        if chosen == space and not takes_costs(strategy):
            return sampler
        return samplers(chosen, costs=known.table)

    return with_space


def _saver(
    request: TuneOptions, backend: Backend, space: TuningSpace, policy: ExitPolicy
) -> SaveBest | None:
    if request.output is None:
        return None
    return SaveBest(request.output, backend=backend, space=space, policy=policy)


def _may_narrow(allowed: QuantizationOptions) -> bool:
    """Whether it is left to the library which ops are tuned."""
    given = allowed.op_type_dict or allowed.op_name_dict
    return allowed.op_types == "default" and not given


def _told_batches(
    measure: Evaluate, backend: Backend, space: TuningSpace, fp32: Any
) -> tuple[Batches | None, tuple[str, ...]]:
    """How models with dynamic quantization are evaluated; says what is odd about the data."""
    is_leader = this_rank().is_leader
    if isinstance(measure, DataEvaluation) and is_leader:
        tell_unused(measure, fp32)
        tell_forms(measure, fp32)
    warnings = warn_of_data(backend, measure, lambda: fp32)
    batches = batches_of(measure, space, fp32)
    if is_leader:
        warn_of_batches(measure, batches)
    return batches, warnings


def _first_ops(backend: Backend, op_types: Sequence[str] | str) -> Collection[str]:
    """The ops of the default space, which are searched before all others if there are others."""
    if op_types == "default" or (op_types != "all" and "default" not in op_types):
        return ()
    return [op.name for op in backend.capability().ops if op.default]
