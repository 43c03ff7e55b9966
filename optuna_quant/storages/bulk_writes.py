"""Write a trial in one transaction, where Optuna's storages would write value by value.

What a storage holds afterwards is what as many calls of its methods would have left there.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
from typing import NoReturn

from optuna.distributions import BaseDistribution
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import StorageInternalError
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage

from optuna_quant._optuna import append_parameters
from optuna_quant._optuna import bare_storage
from optuna_quant._optuna import database_models
from optuna_quant._optuna import database_session
from optuna_quant._optuna import known_distributions
from optuna_quant._optuna import remember_distributions
from optuna_quant._optuna import set_attributes
from optuna_quant.storages.distribution_texts import DistributionTexts
from optuna_quant.storages.lost_connection import is_lost_connection
from optuna_quant.storages.rdb import CachingRDBStorage
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from sqlalchemy.orm import Session


_ATTEMPTS = 5
_NAMES_AT_ONCE = 500


class Parameter(NamedTuple):
    """A parameter as ``BaseStorage.set_trial_param`` takes it."""

    name: str
    internal_value: float
    distribution: BaseDistribution


def write_trial(
    storage: BaseStorage,
    trial_id: int,
    params: Sequence[Parameter],
    *,
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> None:
    """Write what is known of a running trial: all of it or, if the storage fails, nothing.

    A database gets one transaction, a journal one entry after the other in one piece. Other
    storages are given them one by one.

    Args:
        storage:
            The storage of a study.
        trial_id:
            The trial's number in the storage.
        params:
            The parameters, in order.
        user_attrs:
            User attributes, which are numbers, strings, lists and dictionaries of those.
        system_attrs:
            System attributes, as above.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError:
            If the trial has ended.
        ValueError:
            If the study has another kind of distribution for a parameter. Those before it are
            written.
        KeyError:
            If there is no such trial.
    """
    if not params and not user_attrs and not system_attrs:
        return
    inner = storage.inner if isinstance(storage, RetryingStorage) else storage
    bare = bare_storage(inner)
    if isinstance(storage, RetryingStorage) and isinstance(bare, RDBStorage | JournalStorage):
        storage.repeat(
            lambda: write_trial(
                inner, trial_id, params, user_attrs=user_attrs, system_attrs=system_attrs
            )
        )
        return
    attrs = _Attributes(user_attrs, system_attrs)
    if isinstance(bare, RDBStorage):
        _write_to_database(storage, bare, trial_id, params, attrs)
    elif isinstance(bare, JournalStorage):
        _write_to_journal(bare, trial_id, params, attrs)
    else:
        for param in params:
            storage.set_trial_param(trial_id, *param)
        for key, value in user_attrs.items():
            storage.set_trial_user_attr(trial_id, key, value)
        for key, value in system_attrs.items():
            storage.set_trial_system_attr(trial_id, key, value)


class _Attributes(NamedTuple):
    user: Mapping[str, Any]
    system: Mapping[str, Any]


def _compatible(params: Sequence[Parameter], known: Mapping[str, BaseDistribution]) -> int:
    """How many of the parameters, from the first on, fit what the study has."""
    for position, param in enumerate(params):
        try:
            _check(param, known)
        except ValueError:
            return position
    return len(params)


def _check(param: Parameter, known: Mapping[str, BaseDistribution]) -> None:
    if param.name in known:
        check_distribution_compatibility(known[param.name], param.distribution)


def _refuse(trial_number: int) -> NoReturn:
    raise UpdateFinishedTrialError(
        f"Trial#{trial_number} has already finished and can not be updated."
    )


# Databases.


def _write_to_database(
    storage: BaseStorage,
    database: RDBStorage,
    trial_id: int,
    params: Sequence[Parameter],
    attrs: _Attributes,
) -> None:
    from sqlalchemy.exc import IntegrityError

    info, known = known_distributions(storage, trial_id)
    backoff = Backoff(first=0.5, longest=1.0, spread=(0.0, 1.0))
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found, is_all = _transaction(database, trial_id, params, attrs, known)
            break
        except IntegrityError:
            # Another thread writes for the same trial: what it wrote is seen the next time.
            if attempt == _ATTEMPTS:
                raise
        except StorageInternalError as error:
            # As in Optuna where it makes a trial: another transaction was in the way.
            if attempt == _ATTEMPTS or is_lost_connection(error) or not _may_pass(error):
                raise
            backoff()
    known |= found
    count = _compatible(params, known)
    written = {param.name: param.distribution for param in params[:count]}
    remember_distributions(storage, info, found | written)
    if isinstance(database, CachingRDBStorage) and is_all:
        database.remember(
            trial_id,
            {
                param.name: (
                    param.distribution,
                    param.distribution.to_external_repr(param.internal_value),
                )
                for param in params[:count]
            },
        )
    if count < len(params):
        _check(params[count], known)


def _may_pass(error: BaseException) -> bool:
    from sqlalchemy.exc import OperationalError

    return isinstance(error.__cause__, OperationalError)


def _transaction(
    database: RDBStorage,
    trial_id: int,
    params: Sequence[Parameter],
    attrs: _Attributes,
    known: Mapping[str, BaseDistribution],
) -> tuple[dict[str, BaseDistribution], bool]:
    """Write what fits.

    Returns:
        What the study has for the names that were not known, and whether the trial had no
        parameters before.
    """
    from sqlalchemy import insert
    from sqlalchemy import select

    models = database_models()
    table = models.TrialParamModel
    texts = DistributionTexts()
    with database_session(database) as session:
        # Locked, so that no worker ends the trial between the look and the write.
        trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if trial.state.is_finished():
            _refuse(trial.number)
        unknown = [param.name for param in params if param.name not in known]
        found = _distributions(session, trial.study_id, unknown, texts)
        params = params[: _compatible(params, {**known, **found})]
        present = set(session.scalars(select(table.param_name).where(table.trial_id == trial_id)))
        is_all = not present
        rows = []
        for param in params:
            if param.name not in present:
                present.add(param.name)
                rows.append(
                    {
                        "trial_id": trial_id,
                        "param_name": param.name,
                        "param_value": param.internal_value,
                        "distribution_json": texts.write(param.distribution),
                    }
                )
        if rows:
            session.execute(insert(table), rows)
        set_attributes(database, session, trial_id, user=attrs.user, system=attrs.system)
    return found, is_all


def _distributions(
    session: Session, study_id: int, names: Sequence[str], texts: DistributionTexts
) -> dict[str, BaseDistribution]:
    """What a study has for parameters; any trial will do, since all of them fit each other."""
    from sqlalchemy import func
    from sqlalchemy import select

    if not names:
        return {}
    models = database_models()
    table, trials = models.TrialParamModel, models.TrialModel
    # The parameters of one trial are usually all there are, and much quicker to find.
    one = (
        select(table.trial_id)
        .join(trials)
        .where(trials.study_id == study_id)
        .order_by(table.trial_id.desc())
        .limit(1)
    )
    latest = session.scalar(one)
    if latest is None:
        return {}
    row = select(table.param_name, table.distribution_json)
    found = {name: text for name, text in session.execute(row.where(table.trial_id == latest))}
    rest = [name for name in names if name not in found]
    for start in range(0, len(rest), _NAMES_AT_ONCE):
        some = rest[start : start + _NAMES_AT_ONCE]
        first = (
            select(func.min(table.param_id))
            .join(trials)
            .where(trials.study_id == study_id, table.param_name.in_(some))
            .group_by(table.param_name)
        )
        ids = list(session.scalars(first))
        if ids:
            found |= {n: t for n, t in session.execute(row.where(table.param_id.in_(ids)))}
    return {name: texts.read(found[name]) for name in names if name in found}


# Journals.


def _write_to_journal(
    journal: JournalStorage, trial_id: int, params: Sequence[Parameter], attrs: _Attributes
) -> None:
    texts = DistributionTexts()
    entries: list[dict[str, Any]] = [
        {
            "param_name": param.name,
            "param_value_internal": param.internal_value,
            "distribution": texts.write(param.distribution),
        }
        for param in params
    ]
    known: dict[str, BaseDistribution] = {}

    def check(trial: FrozenTrial | None, distributions: dict[str, BaseDistribution]) -> int:
        if trial is None:
            raise KeyError(f"There is no trial {trial_id} in this journal.")
        if trial.state.is_finished():
            _refuse(trial.number)
        known.update(distributions)
        return _compatible(params, known)

    trial = append_parameters(
        journal, trial_id, entries, check, user_attrs=attrs.user, system_attrs=attrs.system
    )
    for param in params:
        _check(param, known)
    if trial is None:
        raise KeyError(f"There is no trial {trial_id} in this journal.")
    # Another worker may have been quicker, between the look and the write.
    missing = [param for param in params if param.name not in trial.distributions]
    if missing and trial.state.is_finished():
        _refuse(trial.number)
    if missing:
        raise ValueError(
            f"Parameter {missing[0].name!r} does not match what another trial has just written."
        )
