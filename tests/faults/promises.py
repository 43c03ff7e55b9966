"""What must be true of a study whose workers had a hard time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from samplers.parallel_worker import LEARNING
from samplers.parallel_worker import Log
from samplers.parallel_worker import answer
from samplers.parallel_worker import key_of
from samplers.parallel_worker import sampler_of
from samplers.parallel_worker import undisturbed
import services

from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


def check(
    url: str, log: Log, name: str, *, study_name: str = "study", dead: Collection[int] = ()
) -> list[FrozenTrial]:
    """Nothing was lost, nothing evaluated twice, and the answer is that of one process.

    A strategy that learns has an answer, which may be another one.

    Args:
        url:
            The storage.
        log:
            The log.
        name:
            The strategy.
        study_name:
            The study.
        dead:
            The processes that were killed, or whose trials others could take for stale.

    Returns:
        The trials.
    """
    space, sampler = sampler_of(name)
    study = optuna.load_study(
        storage=services.open_as_users_do(url), study_name=study_name, sampler=sampler
    )
    assert sampler.is_exhausted(study)
    trials = study.get_trials(deepcopy=False)
    complete = {t.number: t for t in trials if t.state == TrialState.COMPLETE}
    started = log.read("begin", study=study_name)
    # Nothing lost.
    for line in log.read("told", study=study_name):
        assert complete[line["number"]].value == line["value"]
    for line in started:
        if line["number"] in complete:
            assert key_of(space, complete[line["number"]]) == line["key"]
    # Nothing twice, but for what had to be done again.
    last = {n for n, t in complete.items() if TrialView(t).claim.stage == record.EXHAUSTED_STAGE}
    counts = Counter(key_of(space, t) for n, t in complete.items() if n not in last)
    assert set(counts.values()) == {1}, counts
    for line in started:
        assert line["number"] in complete or line["pid"] in dead, line
    assert set(complete) <= {line["number"] for line in started}
    # The same answer.
    done, found = undisturbed(name)
    if name in LEARNING:
        assert len(answer(study, space, sampler)) == len(found)
    else:
        assert {key_of(space, trial) for trial in complete.values()} >= done
        assert answer(study, space, sampler) == found
    # Nothing is left running but what cannot be known to be ours.
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            assert TrialView(trial).worker is None, trial
        else:
            assert trial.state in (TrialState.COMPLETE, TrialState.FAIL), trial
    return trials
