"""A storage as optuna-dashboard should see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.dashboard.callback import LEGACY_CONSTRAINTS
from optuna_quant.dashboard.callback import legacy_constraints
from optuna_quant.dashboard.overview import fp32_measures
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.dashboard.publish import space_of
from optuna_quant.dashboard.short_options import short_options
from optuna_quant.dashboard.trial_words import TrialWords
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.study import record
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.recorded_study import RecordedTrials


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from optuna_quant._common.json_value import Json


MOST_PARAMETERS = 40
"""With more parameters in each trial, the pages of the dashboard become slow and unreadable."""

MOST_CELLS = 10_240
"""So many parameters of all trials together: each is sent with all choices that it has."""

FEWEST_PARAMETERS = 5
"""So many are shown of the longest studies as well."""

_OF_FILES, _DELETED = "artifacts:", "null"
_FIXED = "fixed_params"
_ENOUGH_TRIALS = 30
_LONGEST = 1024
_FOR_PROGRAMS = frozenset({record.COSTS, record.EVIDENCE, record.FINGERPRINT})
"""Attributes of trials that ``result`` and ``gain`` put into words."""


class ShownStorage(RetryingStorage):
    """Shows a storage to optuna-dashboard (0.21), and passes on what it writes.

    The trials of our studies get short strings (``stage``, ``result``, ``gain``,
    ``configuration``) and their feasibility in the form that the dashboard reads; the best trial
    is the answer of the study instead of the best metric, which is mostly that of the FP32 model.
    Of many parameters, those whose options differ most between trials are shown, and options by
    short names (``INT8 per_channel``). Nothing of this is written. Studies that are not ours are
    shown as they are.

    Args:
        inner:
            The storage.
        max_parameters:
            How many parameters of a trial are shown. Default: 40, and fewer where there are more
            than 256 trials, down to 5.

    Raises:
        ValueError:
            If ``max_parameters`` is negative.
    """

    def __init__(self, inner: BaseStorage, *, max_parameters: int | None = None) -> None:
        if max_parameters is not None and max_parameters < 0:
            raise ValueError(f"max_parameters must not be negative, but got {max_parameters}.")
        super().__init__(inner.inner if isinstance(inner, RetryingStorage) else inner)
        self._max_parameters = max_parameters
        self._options = _ShortOptions()
        self._shown: dict[int, FrozenTrial] = {}
        self._words: dict[int, TrialWords | None] = {}
        self._parameters: dict[int, tuple[int, frozenset[str] | None]] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials of a study, as they are shown."""
        trials = super().get_all_trials(study_id, deepcopy=False, states=states)
        words = self._words_of(study_id)
        if words is None:
            return copy.deepcopy(trials) if deepcopy else trials
        kept = self._parameters_of(study_id, trials)
        is_settled = study_id in self._parameters and bool(words.fp32)
        shown = [self._show(trial, words, kept, keep=is_settled) for trial in trials]
        return copy.deepcopy(shown) if deepcopy else shown

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The answer of a study, or what comes closest to one."""
        words = self._words_of(study_id)
        if words is not None:
            best = read_overview(self._study(study_id)).best
            if best is not None:
                return self.get_all_trials(study_id, deepcopy=False)[best.trial.number]
        return super().get_best_trial(study_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Json) -> None:
        """Write an attribute of a trial.

        That a file of a trial was deleted is written into the study and then into the trial, which
        cannot be written to if it has ended: the first is enough.
        """
        try:
            super().set_trial_system_attr(trial_id, key, value)
        except UpdateFinishedTrialError:
            if not (key.startswith(_OF_FILES) and value == _DELETED):
                raise

    def delete_study(self, study_id: int) -> None:
        """Delete a study; what is known of it is forgotten."""
        self._words.pop(study_id, None)
        self._parameters.pop(study_id, None)
        super().delete_study(study_id)

    def _study(self, study_id: int) -> optuna.Study:
        """The study as it is stored, not as it is shown."""
        name = self.inner.get_study_name_from_id(study_id)
        return optuna.load_study(study_name=name, storage=self.inner)

    def _words_of(self, study_id: int) -> TrialWords | None:
        """What puts the trials of a study into words; None if it is not one of ours."""
        known = self._words.get(study_id)
        if known is not None and known.fp32:
            return known
        study = self._study(study_id)
        space = space_of(study)
        words = None
        if space is not None:
            words = TrialWords(
                criterion=RecordedTrials(study).criterion,
                fp32=fp32_measures(study),
                space=space,
                left_out=len(recorded_left_out(study)),
            )
        self._words[study_id] = words
        return words

    def _parameters_of(
        self, study_id: int, trials: Sequence[FrozenTrial]
    ) -> frozenset[str] | None:
        """The parameters that are shown; None for all. They are seldom chosen again."""
        most = self._max_parameters
        if most is None:
            most = parameters_of_as_many(len(trials))
        known = self._parameters.get(study_id)
        if known is not None and known[0] == most:
            return known[1]
        finished = [trial for trial in trials if trial.state.is_finished()]
        kept = most_varied([trial.params for trial in finished], most)
        if len(finished) >= _ENOUGH_TRIALS:
            self._parameters[study_id] = most, kept
            self._shown.clear()
        return kept

    def _show(
        self, trial: FrozenTrial, words: TrialWords, kept: frozenset[str] | None, *, keep: bool
    ) -> FrozenTrial:
        key = _optuna.trial_id(trial)
        if key in self._shown:
            return self._shown[key]
        view = TrialView(trial)
        shown = copy.copy(trial)
        shown.user_attrs = {**words.of(view), **_short(trial.user_attrs)}
        constraints = legacy_constraints(trial.constraints)
        if not constraints and view.met is False:
            constraints = [1.0]  # It was stopped early, and is infeasible by an unknown amount.
        # Of each trial of the queue it sends all parameters a second time.
        shown.system_attrs = {k: v for k, v in trial.system_attrs.items() if k != _FIXED}
        if constraints:
            shown.system_attrs[LEGACY_CONSTRAINTS] = constraints
        names = trial.distributions if kept is None else kept
        shown.params, shown.distributions = self._options.shown(trial, names)
        if keep and trial.state.is_finished():
            self._shown[key] = shown
        return shown


def parameters_of_as_many(trials: int) -> int:
    """How many parameters of a trial are shown where there are as many trials.

    Args:
        trials:
            The number of trials; what is shown changes when it doubles.
    """
    up_to = 1 << max(trials - 1, 1).bit_length()
    return max(FEWEST_PARAMETERS, min(MOST_PARAMETERS, MOST_CELLS // up_to))


def most_varied(params: Sequence[Mapping[str, Any]], most: int) -> frozenset[str] | None:
    """The parameters whose values differ most between trials.

    Args:
        params:
            The parameters of each trial.
        most:
            How many to choose.

    Returns:
        Their names; of equally varied ones those that come first. :obj:`None` if there are no
        more than that.
    """
    values: dict[str, Counter[Any]] = {}
    for each in params:
        for name, value in each.items():
            values.setdefault(name, Counter())[value] += 1
    if len(values) <= most:
        return None
    order = sorted(values, key=lambda name: -_spread(values[name]))
    return frozenset(order[:most])


def _spread(counts: Counter[Any]) -> float:
    """How likely two trials differ (the Gini impurity)."""
    total = sum(counts.values())
    return float(1 - sum((count / total) ** 2 for count in counts.values()))


def _short(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that are for programs, and without the ends of long strings.

    The dashboard cuts everything else.
    """
    return {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in attrs.items()
        if name not in _FOR_PROGRAMS
    }


class _ShortOptions:
    """Shows the options of ops by short names; distributions are shared by all trials."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], _Renamed | None] = {}

    def shown(
        self, trial: FrozenTrial, names: Container[str]
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """The parameters of these names, and their distributions."""
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for name, distribution in trial.distributions.items():
            if name not in names:
                continue
            renamed = self._renamed(distribution)
            value = trial.params[name]
            params[name] = value if renamed is None else renamed.names[value]
            distributions[name] = distribution if renamed is None else renamed.distribution
        return params, distributions

    def _renamed(self, distribution: BaseDistribution) -> _Renamed | None:
        if not isinstance(distribution, CategoricalDistribution):
            return None
        choices = distribution.choices
        if choices not in self._known:
            names = short_options(choices)
            renamed = None
            if names is not None:
                renamed = _Renamed(names, CategoricalDistribution(list(names.values())))
            self._known[choices] = renamed
        return self._known[choices]


@dataclass(frozen=True)
class _Renamed:
    names: Mapping[object, str]
    distribution: CategoricalDistribution
