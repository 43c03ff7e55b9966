"""Run a search in a study."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import optuna

from optuna_quant._common.steps import doing
from optuna_quant._common.steps import listening
from optuna_quant.callbacks import Progress
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.display import Display
from optuna_quant.callbacks.open_display import open_display
from optuna_quant.callbacks.publishing import annotate_all
from optuna_quant.callbacks.publishing import begin_all
from optuna_quant.callbacks.publishing import offer_to_all
from optuna_quant.costs.search_problem import SearchProblem
from optuna_quant.costs.search_problem import check_can_be_known
from optuna_quant.costs.study_costs import StudyCosts
from optuna_quant.evaluation.batches import SampleDependence
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.criterion import note_of
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.open import open_storage
from optuna_quant.study.compatibility import signature_of_models
from optuna_quant.study.data_warnings import keep_warnings
from optuna_quant.study.gone import StudyGoneError
from optuna_quant.study.gone import named_if_gone
from optuna_quant.study.missing_ranges import MissingRangesKeeper
from optuna_quant.study.names import find_name
from optuna_quant.study.others import is_searched
from optuna_quant.study.others import running_elsewhere
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.repeated_failures import try_again
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.deciding import decide_for
from optuna_quant.tuning.finish import finish
from optuna_quant.tuning.opening import MOST_RENEWALS
from optuna_quant.tuning.opening import is_new
from optuna_quant.tuning.opening import was_replaced
from optuna_quant.tuning.optimize import in_turn
from optuna_quant.tuning.optimize import optimize
from optuna_quant.tuning.options.search import SearchOptions
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.promising import finish_promising
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.usual_recipes import started_with
from optuna_quant.tuning.warm_start import WarmStart
from optuna_quant.tuning.warm_start import warm_start
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.setup import TuningSetup


_DEFAULT_STUDY_STEM = "optuna_quant"


@storage_errors()
def run_search(
    setup: TuningSetup,
    *,
    storage: Storage = None,
    study_name: str | None = None,
    options: SearchOptions | None = None,
    on_stuck: Callable[[str], None] | None = None,
) -> TuningResult:
    """Open the study and search; for the storage and its study see :func:`optuna_quant.tune`.

    Args:
        setup:
            The search.
        storage:
            Where the study is kept.
        study_name:
            Its name.
        options:
            How the search goes about it: workers, callbacks, progress, artifacts.
        on_stuck:
            That of :class:`~optuna_quant.QuantObjective`.

    Returns:
        The result; that of what is in the study if the search was interrupted.

    Raises:
        BaselineError:
            If the FP32 model cannot be evaluated.
        KeyboardInterrupt:
            If it was interrupted before there was a study.
        StudyGoneError:
            If the study was deleted, or its file removed, meanwhile.
        ValueError:
            If the storage cannot be opened, the study that is continued does not fit, or the
            model that was found cannot be built again.
    """
    options = SearchOptions() if options is None else options
    journal = storage_file(storage)
    if setup.saver is not None and journal is not None:
        check_output(setup.saver.path, inputs={"storage": journal})
    run = TuningRun(setup, storage, study_name, options=options, on_stuck=on_stuck)
    try:
        with open_display(show=options.show_progress) as display, listening(display.doing):
            return run.run(display)
    except KeyboardInterrupt:
        if run.study is None:
            raise
    return run.interrupted()


class TuningRun:
    """One run of a search in a study.

    Args:
        setup:
            The search.
        storage:
            Where the study is kept.
        study_name:
            Its name.
        options:
            How the search goes about it.
        on_stuck:
            That of :class:`~optuna_quant.QuantObjective`.

    Attributes:
        study:
            The study as far as it was opened; :obj:`None` before.
    """

    def __init__(
        self,
        setup: TuningSetup,
        storage: Storage,
        study_name: str | None,
        *,
        options: SearchOptions,
        on_stuck: Callable[[str], None] | None,
    ) -> None:
        self._setup = setup
        self._storage = storage
        self._study_name = study_name
        self._options = options
        self._on_stuck = on_stuck
        self._is_decided = False
        self.study: optuna.Study | None = None

    def run(self, display: Display) -> TuningResult:
        """Open the study, decide for what and in which space it is searched, and search.

        Args:
            display:
                Shows what is done.
        """
        opened = open_storage(self._storage, heartbeat=False)
        study, problem, start = self._decide(opened)
        setup = self._setup.decided(problem)
        if problem.no_gain is not None and self._setup.space.has_fp32 and not is_searched(study):
            setup = setup.without_gain(problem.no_gain)
            self._options = replace(self._options, n_jobs=1)
        study.sampler = setup.sampler
        self._setup, self.study, self._is_decided = setup, study, True
        return self._search(study, problem, start, display)

    def _decide(self, opened: BaseStorage) -> tuple[optuna.Study, SearchProblem, WarmStart]:
        """Open the study, and decide for what and in which space it is searched."""
        setup, study_name = self._setup, self._study_name
        if study_name is None and self._storage is not None:
            study_name = find_name(opened, _DEFAULT_STUDY_STEM, setup.model)
        models = signature_of_models(setup.backend, setup.space)
        costs_in = partial(
            StudyCosts,
            setup.backend,
            signature=models,
            given=setup.costs,
            before=partial(
                share_calibration,
                backend=setup.backend,
                artifact_store=self._options.artifact_store,
            ),
        )
        if setup.objective is not None and is_new(opened, study_name):
            check_can_be_known(setup.objective, costs_in(setup.space))
        with doing("Looking at what ops cost"):
            for attempts_left in reversed(range(MOST_RENEWALS)):
                study = setup.opener.open(opened, study_name)
                self.study = study
                try:
                    with named_if_gone(study):
                        space = started_with(study, (setup.space, *setup.other_spaces))
                        costs = costs_in(space)
                        start = warm_start(
                            study,
                            setup.from_study,
                            storage=opened,
                            models=models,
                            evaluation=signature_of(setup.measure),
                            space=space,
                        )
                        if start.source is not None:
                            costs.take_over(study, start.source)
                        study, problem = decide_for(
                            study,
                            space=space,
                            objective=setup.objective,
                            costs=costs,
                            may_narrow=setup.may_narrow,
                            model=setup.model,
                        )
                    return study, problem, start
                except StudyGoneError:
                    # This process has done nothing in it yet.
                    if not attempts_left or not was_replaced(opened, study_name):
                        raise
        raise AssertionError("unreachable")

    def _search(
        self, study: optuna.Study, problem: SearchProblem, start: WarmStart, display: Display
    ) -> TuningResult:
        """Search in the study, or in a new one if it has no results and does not fit."""
        setup, options = self._setup, self._options
        progress = Progress(setup.policy, display=display, left_out=len(setup.left_out))
        begin_all(options.callbacks, setup.backend)
        objective = QuantObjective(
            setup.backend,
            setup.space,
            setup.measure,
            setup.criterion,
            stopping=setup.stopping,
            seed=setup.seed,
            watch=progress.watch if display.is_live else None,
            started=progress.start if display.is_live else None,
            artifact_store=options.artifact_store,
            evaluation_timeout=setup.evaluation_timeout,
            on_stuck=self._on_stuck,
            costs=problem.objective.measures_of,
            annotate=annotate_all(options.callbacks),
            on_met=offer_to_all(options.callbacks),
        )
        study = self.study = setup.opener.fitting(study, objective, self._storage)
        start.keep(study)  # It may be a new one.
        keep_warnings(study, setup.warnings)
        problem.keep(study)
        if not running_elsewhere(study):
            try_again(study, setup.space)
        ranges = MissingRangesKeeper(setup.backend)
        ranges.keep(study)  # What costs were measured of.
        observers = self._observers(ranges, progress)
        with named_if_gone(study):
            stop = optimize(study, objective, setup.policy, observers, n_jobs=options.n_jobs)
            if stop.reason not in (StopReason.MET, StopReason.INTERRUPTED):
                stop = finish_promising(study, objective, observers, stop, policy=setup.policy)
            ranges.keep(study)
            return finish(setup, study, stop, objective, callbacks=options.callbacks)

    def _observers(
        self, ranges: MissingRangesKeeper, progress: Progress
    ) -> list[Callable[[optuna.Study, FrozenTrial], None]]:
        """What is told of each trial that has ended, in this order."""
        setup, options = self._setup, self._options
        own: list[Callable[[optuna.Study, FrozenTrial], None]] = [ranges]
        if options.show_progress:
            own.append(progress)
        if setup.saver is not None:
            own.append(setup.saver)
        observers = [in_turn(own), *options.callbacks]
        if isinstance(setup.measure, DataEvaluation) and this_rank().is_leader:
            observers.append(
                SampleDependence(setup.measure, lambda: setup.backend.quantize(setup.space.fp32()))
            )
        return observers

    def interrupted(self) -> TuningResult:
        """What the study holds; nothing is measured or evaluated for it."""
        assert self.study is not None
        study, setup, space, when = self.study, self._setup, self._setup.space, ""
        sampler = study.sampler
        if not self._is_decided:
            when = " while it looked at what ops cost"
            # What was started earlier may leave out ops, or have other recipes: the sampler is not
            # of that space yet.
            study.sampler = optuna.samplers.RandomSampler()
            with contextlib.suppress(ValueError):
                space = recorded_space(study, space.prefix)
        try:
            result = conclude(
                TuningResult,
                study,
                Stop(StopReason.INTERRUPTED, f"The search was interrupted{when}."),
                setup.policy,
                backend=setup.backend,
                space=space,
                left_out=setup.left_out,
            )
        finally:
            study.sampler = sampler
        return replace(result, note=note_of(setup.measure), call=setup.call)
