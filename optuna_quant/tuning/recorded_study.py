"""Find the study of a model in a storage, and one of its trials."""

from __future__ import annotations

from dataclasses import dataclass
import math
import os
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.printable import listed
from optuna_quant.callbacks.wording import rounded_estimate
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.recorded_objective import objective_name
from optuna_quant.costs.recorded_objective import recorded_objective
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import fp32_trial
from optuna_quant.selection.answer import ranked
from optuna_quant.storages.address import check_file_exists
from optuna_quant.storages.open import open_storage
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.criterion import criterion_or_default
from optuna_quant.study.names import model_of_study
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.measured_once import measured_first
from optuna_quant.tuning.second_evaluation import is_refuted


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.trial import FrozenTrial

    from optuna_quant.costs.objective import Objective
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.storages.open import Storage


BEST = "best"


def check_trial(trial: object) -> None:
    """Refuse what does not name a trial, before anything is opened.

    Raises:
        ValueError:
            If it is neither :data:`BEST` nor a number.
    """
    if trial == BEST:
        return
    if isinstance(trial, bool) or not isinstance(trial, int) or trial < 0:
        raise ValueError(f"trial must be 'best' or the number of a trial, but got {trial!r}.")


def find_recorded(storage: Storage, name: str | None, model: str) -> optuna.Study:
    """The study of a name; without one, the study of a model, or the only one that there is.

    Args:
        storage:
            The storage, or its address. It is not made if it is not there.
        name:
            The name of the study.
        model:
            What tells the model from others, see :func:`optuna_quant.study.names.model_of`.

    Raises:
        NotOpenedError:
            If the storage cannot be opened.
        ValueError:
            If there is no such storage or study, or several are meant.
    """
    if storage is None:
        raise ValueError("storage: name the storage that holds the study.")
    if isinstance(storage, str | os.PathLike):
        check_file_exists(os.fspath(storage), "storage")
    opened = open_storage(storage, heartbeat=False)
    names = optuna.get_all_study_names(opened)
    if name is None:
        name = _only(opened, names, model)
    elif name not in names:
        raise ValueError(
            f"study_name: there is no study {name!r} in the storage.{did_you_mean(name, names)} "
            f"It has {_shown(names)}."
        )
    return optuna.load_study(storage=opened, study_name=name)


def _only(storage: optuna.storages.BaseStorage, names: list[str], model: str) -> str:
    if len(names) == 1:
        return names[0]
    of_model = [
        name
        for name in names
        if model_of_study(optuna.load_study(storage=storage, study_name=name)) == model
    ]
    if len(of_model) == 1:
        return of_model[0]
    if of_model:
        raise ValueError(
            f"study_name: the storage has {len(of_model)} studies of this model: "
            f"{listed(list(map(repr, of_model)))}. Name the one that is meant."
        )
    raise ValueError(f"storage: it has no study of this model. It has {_shown(names)}.")


def _shown(names: list[str]) -> str:
    return f"the studies {listed(list(map(repr, names)))}" if names else "no study"


@dataclass(frozen=True)
class RecordedTrials:
    """The trials of a study that may be exported.

    Args:
        study:
            The study, which is only read.
    """

    study: optuna.Study

    @property
    def criterion(self) -> AccuracyCriterion:
        """The criterion that the study was started with; 1% relative loss if it records none."""
        return criterion_or_default(self.study)

    def find(self, trial: int | str) -> FrozenTrial:
        """The trial of a number, or the best one by the study's criterion and objective.

        Raises:
            ValueError:
                If there is no such trial, it has not ended, or none meets the criterion.
        """
        if isinstance(trial, str):
            return self._best()
        trials = self.study.get_trials(deepcopy=False)
        name = self.study.study_name
        if trial >= len(trials):
            count = f"{len(trials)} trials, 0 to {len(trials) - 1}" if trials else "no trials"
            raise ValueError(f"trial: there is no trial {trial}; the study {name!r} has {count}.")
        found = trials[trial]
        if not found.state.is_finished():
            state = "waiting to be run" if found.state == TrialState.WAITING else "still running"
            raise ValueError(f"trial: trial {trial} of the study {name!r} is {state}.")
        return found

    def _best(self) -> FrozenTrial:
        name, criterion = self.study.study_name, self.criterion
        objective = self.objective()
        found = candidates(self.study, criterion)
        met = measured_first(self.study, ranked(found, objective), objective)
        if not met:
            nearest = closest(found, objective)
            comes = "" if nearest is None else f" The closest is trial {nearest.trial.number}."
            raise ValueError(
                f"trial: no model of the study {name!r} meets its criterion ({criterion}).{comes} "
                "Give the number of a trial."
            )
        best, baseline = met[0].trial, get_baseline(self.study)
        assert baseline is not None
        if is_refuted(self.study, best, criterion, baseline=baseline.value):
            raise ValueError(
                f"trial: the best of the study {name!r}, trial {best.number}, met the criterion, "
                "but not when evaluated again. Give the number of a trial."
            )
        return best

    def objective(self) -> Objective:
        """What the study makes small, relative to what its record says of the FP32 model.

        Raises:
            ValueError:
                If it is a function, which the record does not have.
        """
        objective = recorded_objective(self.study)
        if objective is None:
            raise ValueError(
                f"The objective of the study {self.study.study_name!r} is a function "
                f"({objective_name(self.study)!r}), so its record does not say which trial is "
                "best. Give the number of a trial."
            )
        trial = fp32_trial(self.study)
        return RelativeToRecord(objective, {} if trial is None else measures_of(TrialView(trial)))

    def describe(self, trial: FrozenTrial) -> str:
        """What the record says of a trial, in a sentence."""
        view, criterion = TrialView(trial), self.criterion
        head = f"Trial {trial.number} of the study {self.study.study_name!r}"
        baseline, evidence = get_baseline(self.study), view.evidence
        if trial.state == TrialState.FAIL:
            reason = f": {view.failure}" if view.failure else ""
            return f"{head}, whose evaluation failed{reason}"
        if trial.state == TrialState.COMPLETE and view.metric is not None:
            said = f"metric {view.metric:.6g}"
            if baseline is None or not view.is_quantized:
                return f"{head}: {said}."
            loss = criterion.show(criterion.loss(view.metric, baseline.value))
            met = "met" if criterion.meets(view.metric, baseline.value) else "NOT met"
            return f"{head}: {said}, FP32 {baseline.value:.6g}, loss {loss}: {met} ({criterion})."
        if evidence is None or evidence.estimate is None:
            return f"{head}, which was not evaluated to its end."
        met = "NOT met" if view.met is False else "not evaluated to its end"
        return (
            f"{head}: metric {rounded_estimate(evidence.estimate, evidence.samples)} on "
            f"{evidence.samples} of {evidence.of} samples: {met} ({criterion})."
        )


@dataclass(frozen=True)
class RelativeToRecord:
    """An objective that knows what the FP32 model costs by the record.

    Args:
        objective:
            The objective.
        fp32:
            The measures of the FP32 model, by name.
    """

    objective: Objective
    fp32: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.objective.name

    @property
    def measures(self) -> tuple[str, ...]:
        return self.objective.measures

    @property
    def fp32_cost(self) -> float:
        return self.cost(self.fp32, {})

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        try:
            return self.objective.cost(measures, {**self.fp32, **fp32})
        except (KeyError, ZeroDivisionError):
            return math.inf

    def show(self, cost: float) -> str:
        return self.objective.show(cost)


def measures_of(view: TrialView) -> dict[str, float]:
    """What a trial has recorded of what its model costs, by measure.

    Args:
        view:
            The trial.
    """
    size = view.model_bytes
    sizes = {} if size is None else {SIZE: float(size)}
    return {**view.costs, OPS: float(view.fallback_ops), **sizes}
