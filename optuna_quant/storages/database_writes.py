"""Write a trial into a database, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError

from optuna_quant._optuna import database_models
from optuna_quant._optuna import set_attributes
from optuna_quant.storages.database import database_session
from optuna_quant.storages.distribution_texts import DistributionTexts
from optuna_quant.storages.lost_connection import is_lost_connection
from optuna_quant.storages.rdb import CachingRDBStorage
from optuna_quant.storages.written_values import check_compatible
from optuna_quant.storages.written_values import compatible
from optuna_quant.storages.written_values import refuse_finished
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from sqlalchemy.orm import Session

    from optuna_quant.storages.written_values import Written


_ATTEMPTS = 5
_NAMES_AT_ONCE = 500


def write_to_database(
    database: RDBStorage, trial_id: int, written: Written, known: dict[str, BaseDistribution]
) -> None:
    """Write all of it or, if the database fails, nothing.

    Args:
        database:
            The database.
        trial_id:
            The trial's number in it.
        written:
            What to write.
        known:
            See :func:`~optuna_quant.storages.bulk_writes.write_trial`, also for the errors.
    """
    from sqlalchemy.exc import IntegrityError

    params = written.params
    backoff = Backoff(first=0.5, longest=1.0, spread=(0.0, 1.0))
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found, is_all = _transaction(database, trial_id, written, known)
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
    known.update(found)
    count = compatible(params, known)
    for param in params[:count]:
        known.setdefault(param.name, param.distribution)
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
        check_compatible(params[count], known)


def _may_pass(error: BaseException) -> bool:
    from sqlalchemy.exc import OperationalError

    return isinstance(error.__cause__, OperationalError)


def _transaction(
    database: RDBStorage,
    trial_id: int,
    written: Written,
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
            refuse_finished(trial.number)
        unknown = [param.name for param in written.params if param.name not in known]
        found = _distributions(session, trial.study_id, unknown, texts)
        fitting = compatible(written.params, {**known, **found})
        present = set(session.scalars(select(table.param_name).where(table.trial_id == trial_id)))
        is_all = not present
        rows = []
        for param in written.params[:fitting]:
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
        set_attributes(
            database, session, trial_id, user=written.user_attrs, system=written.system_attrs
        )
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
