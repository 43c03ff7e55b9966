"""What the user has put into a study's queue is evaluated, or said to be left."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
from places import TESTS
import pytest

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study import record
from optuna_quant.study.enqueued import only_enqueued
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.01, "c": 0.0, "d": 0.0}
SPACE = FakeBackend(DAMAGE).tuning_space()


class Search:
    """A search that is called again and again on one study."""

    def __init__(
        self, storage: Any = None, duplicates: Sequence[str] = (), **options: Any
    ) -> None:
        self.duplicates = duplicates
        self.storage = optuna.storages.InMemoryStorage() if storage is None else storage
        self.evaluate = CountingEvaluation()
        self._options = {"strategy": "conservative", "timeout": None, "max_trials": 100} | options

    def run(self) -> TuningResult:
        self.evaluate.seen.clear()
        return tune(
            backend=FakeBackend(DAMAGE, duplicates=self.duplicates),
            evaluate=self.evaluate,
            storage=self.storage,
            study_name="mine",
            accuracy_criterion=CRITERION,
            tuning_criterion=TuningCriterion(**self._options),
        )


def unknown(result: TuningResult, count: int) -> list[dict[str, Any]]:
    """The parameters of configurations that the study does not hold."""
    known = [trial.params for trial in result.study.trials]
    every = (SPACE.params_of(SPACE.config_at(i)) for i in range(SPACE.size))
    return [params for params in every if params not in known][:count]


def states(result: TuningResult) -> list[str]:
    return [trial.state.name for trial in result.study.trials]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, "exhausted"), ({"timeout": 0, "strategy": "basic"}, "met")],
)
def test_what_is_enqueued_after_the_end_is_evaluated(options: dict[str, Any], reason: str) -> None:
    search = Search(**options)
    result = search.run()
    assert result.stopped_because == reason
    new = unknown(result, 2)
    for params in new:
        result.study.enqueue_trial(params)
    before = len(result.study.trials) - 2
    result = search.run()
    assert [SPACE.params_of(model.config) for model in search.evaluate.seen] == new
    assert [trial.params for trial in result.study.trials[before:]] == new
    assert set(states(result)) == {"COMPLETE"}
    assert result.stopped_because == reason
    assert "not evaluated" not in result.message


def test_a_better_one_that_was_enqueued_is_the_answer() -> None:
    search = Search(strategy="exhaustive", timeout=0)
    result = search.run()
    worse = result.config
    assert worse is not None
    best = SPACE.default().with_fallback("a")
    if SPACE.params_of(best) in [trial.params for trial in result.study.trials]:
        pytest.fail("choose another strategy: the best is known already")
    result.study.enqueue_trial(SPACE.params_of(best))
    assert search.run().config == best


def test_what_gives_an_equal_model_is_evaluated_all_the_same() -> None:
    search = Search(duplicates=["d"])
    result = search.run()
    equal = SPACE.default().with_fallback("d")
    result.study.enqueue_trial(SPACE.params_of(equal))
    result = search.run()
    assert [model.config for model in search.evaluate.seen] == [equal]
    assert record.REUSED_FROM not in result.study.trials[-1].user_attrs


def test_the_same_configuration_is_not_evaluated_again() -> None:
    search = Search()
    result = search.run()
    result.study.enqueue_trial(result.study.trials[2].params)
    result = search.run()
    assert search.evaluate.seen == []
    assert result.study.trials[-1].user_attrs[record.REUSED_FROM] == 2


def test_limits_hold_for_the_queue() -> None:
    result = Search(max_trials=2).run()
    for params in unknown(result, 3):
        result.study.enqueue_trial(params)
    search = Search(result.study._storage, max_trials=2)
    result = search.run()
    assert search.evaluate.seen == []
    assert states(result).count("WAITING") == 3
    assert result.message.endswith("3 enqueued trials were not evaluated.")
    assert result.study.user_attrs[record.STOPPED_BECAUSE]["message"] == result.message
    search = Search(result.study._storage, max_trials=4)
    result = search.run()
    assert len(search.evaluate.seen) == 2
    assert result.message.endswith("1 enqueued trial was not evaluated.")


@pytest.mark.parametrize("ended", [False, True])
def test_what_does_not_fit_the_space_is_said_and_ends_nothing(
    ended: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    search = Search()
    if ended:
        search.run()
    study = optuna.create_study(
        storage=search.storage, study_name="mine", direction="maximize", load_if_exists=True
    )
    study.enqueue_trial({"quant.op:a": "int3"})
    result = search.run()
    (trial,) = [t for t in result.study.trials if t.state == TrialState.FAIL]
    reason = trial.user_attrs[record.FAILURE]
    assert (
        "Enqueued with 'quant.op:a' = 'int3', which is not one of its choices in the tu" in reason
    )
    assert "'fp32'" in reason
    assert f"Trial {trial.number} is not evaluated. Enqueued" in caplog.text
    assert result.met


def test_a_misfit_that_is_enqueued_while_trials_run_ends_nothing() -> None:
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(SPACE))
    study.enqueue_trial({"quant.op:a": "int3", "quant.op:b": "fp32"})
    objective = QuantObjective(FakeBackend(DAMAGE), SPACE, CountingEvaluation(), CRITERION)
    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert "'quant.op:a' = 'int3'" in study.trials[0].user_attrs[record.FAILURE]


def test_one_of_other_parameters_alone_is_left_and_said() -> None:
    search = Search()
    result = search.run()
    result.study.enqueue_trial({"mine": 3})
    result = search.run()
    assert search.evaluate.seen == []
    assert result.message.endswith("1 enqueued trial was not evaluated.")


def test_trial_that_was_not_enqueued_is_not_evaluated_at_the_end() -> None:
    """As where another worker has taken the last one of the queue."""
    search = Search()
    result = search.run()
    backend = FakeBackend(DAMAGE)
    objective = QuantObjective(backend, SPACE, search.evaluate, CRITERION)
    search.evaluate.seen.clear()
    used = result.message
    result.study.optimize(only_enqueued(objective), n_trials=1)
    assert search.evaluate.seen == []
    assert result.study.trials[-1].state == TrialState.FAIL
    again = search.run()
    assert again.message == used  # It counts for nothing.
    assert again.abandoned == ()


WORKER = """
import os, sys
sys.path[:0] = [sys.argv[1]]
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
from study.test_enqueued import Search
search = Search(sys.argv[2])
result = search.run()
print(result.stopped_because, len(search.evaluate.seen))
"""


@pytest.mark.slow
def test_workers_share_the_queue(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    result = Search(storage).run()
    new = unknown(result, 5)
    for params in new:
        result.study.enqueue_trial(params)
    command = [sys.executable, "-c", WORKER, str(TESTS), storage]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [words[0] for words in printed] == 3 * ["exhausted"]
    assert sum(int(words[1]) for words in printed) == 5
    assert not [t for t in result.study.trials if not t.state.is_finished()]
