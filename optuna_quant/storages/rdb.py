"""A database storage that reads trials with many parameters quickly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from typing import TypeAlias

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from optuna_quant._optuna import HookedRDBStorage
from optuna_quant._optuna import TrialRow
from optuna_quant._optuna import database_models
from optuna_quant.storages.database import database_session
from optuna_quant.storages.distribution_texts import DistributionTexts


_Params: TypeAlias = dict[str, tuple[BaseDistribution, Any]]

_MOST_REMEMBERED = 32


class CachingRDBStorage(HookedRDBStorage):
    """Optuna's database storage, which parses each distribution once.

    Optuna parses the distribution of every parameter of every trial, twice: with 500 parameters
    that is most of the time of reading a trial. Few of them differ. What this process has just
    written is not read again. Arguments as for :class:`optuna.storages.RDBStorage`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._texts = DistributionTexts()
        # The parameters of trials that this process has just written, by the trial's number.
        self._written: OrderedDict[int, _Params] = OrderedDict()
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            # Otherwise it keeps a connection for as long as the error is kept, and a server that
            # has no room gets none from further attempts.
            engine = getattr(self, "engine", None)
            if engine is not None:
                self.scoped_session.remove()
                engine.dispose()
            raise

    def remember(self, trial_id: int, params: _Params) -> None:
        """Take it that a trial of this process has these parameters and no others."""
        self._written[trial_id] = params
        while len(self._written) > _MOST_REMEMBERED:
            self._written.popitem(last=False)

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._written.clear()  # SQLite gives the numbers of its trials to others.

    def parameter_was_written(self, trial_id: int) -> None:
        self._written.pop(trial_id, None)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna does, but SQLite gives a trial of the queue to one worker only.

        SQLite has no locks on rows, on which Optuna relies when it looks and then writes.
        """
        if state == TrialState.RUNNING and self.engine.dialect.name == "sqlite":
            from sqlalchemy import update

            trials = database_models().TrialModel
            taken = (
                update(trials)
                .where(trials.trial_id == trial_id, trials.state == TrialState.WAITING)
                .values(state=state, datetime_start=datetime.now())
                .execution_options(synchronize_session=False)
            )
            with database_session(self) as session:
                result: Any = session.execute(taken)
                if result.rowcount:
                    return True
        return super().set_trial_state_values(trial_id, state, values)

    def parameters_of(self, trial: TrialRow) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        written = self._written.get(trial.trial_id)
        if written is not None:
            values = {name: value for name, (_, value) in written.items()}
            return values, {name: each for name, (each, _) in written.items()}
        found = sorted(trial.params, key=lambda param: param.param_id)
        parsed = {param.param_name: self._texts.read(param.distribution_json) for param in found}
        values = {
            param.param_name: parsed[param.param_name].to_external_repr(param.param_value)
            for param in found
        }
        return values, parsed
