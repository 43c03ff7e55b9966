"""The outcome of a search from its record alone: without the model, the data or a runtime."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
from dataclasses import replace
import json
import re
from typing import TYPE_CHECKING
from typing import NoReturn

from optuna_quant._optuna import study_system_attrs
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.recorded_objective import objective_name
from optuna_quant.costs.recorded_objective import recorded_objective
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.selection.answer import fp32_trial
from optuna_quant.study import record
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.record_check import check_record
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.findings import find_findings
from optuna_quant.tuning.outcome import Outcome
from optuna_quant.tuning.recorded_study import RecordedTrials
from optuna_quant.tuning.recorded_study import RelativeToRecord
from optuna_quant.tuning.recorded_study import measures_of
from optuna_quant.tuning.second_evaluation import recorded_second_evaluation


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna

    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.backends.base import Model
    from optuna_quant.costs.gain_per_op import OpGain
    from optuna_quant.costs.objective import Objective
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.wishes import OpDict
    from optuna_quant.tuning.findings import Findings


_NOT_ENDED = "The record does not say that the search has ended."
_NOT_IN_RECORD = "its result is not in the record"


@dataclass(frozen=True)
class NoBackend:
    """Stands for the backend of a search of which only the record is known.

    Args:
        not_searched:
            The ops that were not searched, as the record says it.
    """

    not_searched: tuple[LeftOut, ...] = ()

    def capability(self) -> Capability:
        """Nothing is known of the model."""
        self._refuse()

    def tuning_space(
        self,
        *,
        op_types: Sequence[str] | str = "default",
        op_type_dict: OpDict | None = None,
        op_name_dict: OpDict | None = None,
        prefix: str = "quant",
    ) -> TuningSpace:
        """Nothing is known of the model."""
        self._refuse()

    def quantize(self, config: QuantConfig) -> Model:
        """There is no model to build from."""
        self._refuse()

    def fingerprint(self, config: QuantConfig) -> str:
        """There is no model to build from."""
        self._refuse()

    def executed(self, config: QuantConfig) -> Mapping[str, ExecutedOp]:
        """It is not known of any op."""
        return {}

    def ops_left_out(self, space: TuningSpace) -> Sequence[LeftOut]:
        """The ops that the search has told of at its end."""
        return self.not_searched

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "Only the record of the search is known here, and not its model: use "
            "optuna_quant.export to build the model of a trial."
        )


def is_recorded(result: Outcome) -> bool:
    """Whether a result is from a record alone."""
    return isinstance(result.backend, NoBackend)


def recorded_outcome(study: optuna.Study) -> Outcome:
    """The outcome of a search, as far as the record of its study tells.

    The answer is the one that the search has measured as the best at its end. If trials have ended
    since, or it did not come to its end, it is the best by the costs that are in the record.

    Args:
        study:
            The study. It is only read.

    Raises:
        DamagedRecordError:
            If the record was damaged.
        ValueError:
            If it holds no search of this package, or several that differ in their prefix.
    """
    check_record(study)
    space = recorded_space(study)
    criterion = RecordedTrials(study).criterion
    objective = _objective(study, space)
    policy = ExitPolicy(criterion, objective=objective)
    sampler = study.sampler
    if _has_scores(study):
        table = objective.table if isinstance(objective, KnownObjective) else None
        study.sampler = SurrogateQuantSampler(space, criterion=criterion, costs=table)
    end = find_findings(study)
    is_of_now = end is not None and end.is_of_now(study)
    try:
        found = conclude(
            Outcome,
            study,
            _stop(study),
            policy,
            backend=NoBackend((None if end is None else end.not_searched) or ()),
            space=space,
            measure=end.measured if end is not None and is_of_now else None,
            left_out=_left_out(study, space),
        )
    finally:
        study.sampler = sampler
    found = replace(found, call=None if end is None else end.call)
    if end is not None and is_of_now:
        found = _with_holdout(found, end)
    elif record.HOLDOUT_SPLIT in study_system_attrs(study):
        found = replace(found, holdout_missing=_NOT_IN_RECORD)
    if found.trial is None or found.baseline is None or not found.met:
        return found
    again, why = recorded_second_evaluation(study, found.trial, baseline=found.baseline)
    found = replace(found, second_evaluation=again, not_repeatable=why)
    return replace(found, met=found.is_reproducible)


def _with_holdout(found: Outcome, end: Findings) -> Outcome:
    """The outcome with what the hold-out set says of its model."""
    is_same = found.trial is not None and found.trial.number == end.trial
    missing = end.holdout_missing
    if not is_same and end.holdout is not None:
        missing = _NOT_IN_RECORD
    return replace(found, holdout=end.holdout if is_same else None, holdout_missing=missing)


def _stop(study: optuna.Study) -> Stop:
    stored = study.user_attrs.get(record.STOPPED_BECAUSE)
    if not isinstance(stored, Mapping):
        return Stop(StopReason.INTERRUPTED, _NOT_ENDED)
    return Stop(StopReason(stored["reason"]), str(stored["message"]))


def _objective(study: optuna.Study, space: TuningSpace) -> Objective:
    """The objective of the study, with the costs that it keeps or that its trials have."""
    trial = fp32_trial(study)
    view = None if trial is None else TrialView(trial)
    objective = recorded_objective(study)
    if objective is None:  # A function of the user's: the trials have recorded what it gave.
        given = _Recorded(objective_name(study))
        return RelativeToRecord(given, {} if view is None else measures_of(view))
    costs = _costs(study, space)
    if costs is not None:
        size = None if view is None else view.model_bytes
        return KnownObjective(objective, space, costs, fp32_bytes=size)
    return RelativeToRecord(objective, {} if view is None else measures_of(view))


@dataclass(frozen=True)
class _Recorded:
    """An objective of which the record has the name, and what each trial costs by it.

    Args:
        name:
            Its name.
    """

    name: str

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.name,)

    def cost(self, measures: Mapping[str, float], fp32: Mapping[str, float]) -> float:
        return measures[self.name]

    def show(self, cost: float) -> str:
        return f"{cost:.4g}"


def _costs(study: optuna.Study, space: TuningSpace) -> Costs | None:
    """The costs that the study keeps of this space: those that were given go first."""
    attrs = study_system_attrs(study)
    for kind in (record.GIVEN_COSTS, record.MEASURED_COSTS, record.COUNTED_COSTS):
        pattern = re.compile(rf"optuna_quant:({kind}:[0-9a-f]+)")
        for found in filter(None, map(pattern.fullmatch, attrs)):
            data = find_bytes(attrs, found[1], study_name=study.study_name)
            if data is None or "failed" in json.loads(data):
                continue
            costs = Costs.loads(data.decode())
            with contextlib.suppress(ValueError):  # It is of another space.
                costs.check(space)
                return replace(costs, is_given=kind == record.GIVEN_COSTS)
    return None


def _left_out(study: optuna.Study, space: TuningSpace) -> Mapping[str, OpGain | None]:
    """The ops that the space leaves out; what they cost is not told."""
    return dict.fromkeys(recorded_left_out(study, space.prefix))


def _has_scores(study: optuna.Study) -> bool:
    """Whether the record has what a model of the loss rests on."""
    begin = f"optuna_quant:{record.OPTION_SCORES}:"
    return any(name.startswith(begin) for name in study_system_attrs(study))
