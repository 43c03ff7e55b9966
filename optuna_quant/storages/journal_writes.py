"""Write a trial into a journal, in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._optuna import append_to_trial
from optuna_quant._optuna import trial_id as id_of
from optuna_quant.storages.distribution_texts import DistributionTexts
from optuna_quant.storages.written_values import check_compatible
from optuna_quant.storages.written_values import compatible
from optuna_quant.storages.written_values import refuse_finished


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

    from optuna_quant.storages.written_values import Parameter
    from optuna_quant.storages.written_values import Written


def write_to_journal(
    journal: JournalStorage,
    study_id: int,
    trial_id: int,
    written: Written,
    known: dict[str, BaseDistribution],
) -> None:
    """Write one entry after the other, with no entries of others in between.

    Args:
        journal:
            The journal.
        study_id:
            The study's number in it.
        trial_id:
            The trial's.
        written:
            What to write.
        known:
            See :func:`~optuna_quant.storages.bulk_writes.write_trial`, also for the errors.
    """
    params = written.params
    trials = journal.get_all_trials(study_id, deepcopy=False)
    trial = next((each for each in reversed(trials) if id_of(each) == trial_id), None)
    if trial is None:
        raise KeyError(f"There is no trial {trial_id} in this journal.")
    if trial.state.is_finished():
        refuse_finished(trial.number)
    known.update(_distributions(trials, {param.name for param in params} - known.keys()))
    count = compatible(params, known)
    append_to_trial(
        journal,
        trial_id,
        params=_entries(params[:count]),
        user_attrs=written.user_attrs,
        system_attrs=written.system_attrs,
    )
    trial = journal.get_trial(trial_id)
    if count < len(params):
        check_compatible(params[count], known)
    # Another worker may have been quicker, between the look and the write.
    missing = [param for param in params if param.name not in trial.distributions]
    if missing and trial.state.is_finished():
        refuse_finished(trial.number)
    if missing:
        raise ValueError(
            f"Parameter {missing[0].name!r} does not match what another trial has just written."
        )
    for param in params:
        known.setdefault(param.name, param.distribution)


def _distributions(trials: Sequence[FrozenTrial], names: set[str]) -> dict[str, BaseDistribution]:
    """What a study has for parameters; any trial will do, since all of them fit each other."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        if len(found) == len(names):
            break
        for name in names & trial.distributions.keys() - found.keys():
            found[name] = trial.distributions[name]
    return found


def _entries(params: Sequence[Parameter]) -> list[dict[str, Any]]:
    texts = DistributionTexts()
    return [
        {
            "param_name": param.name,
            "param_value_internal": param.internal_value,
            "distribution": texts.write(param.distribution),
        }
        for param in params
    ]
