"""What a worker concludes when others go on while it stops."""

from __future__ import annotations

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
import optuna
from optuna.trial import FrozenTrial

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study import record
from optuna_quant.tuning.optimize import optimize


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


class Scripted(ExitPolicy):
    """Decides as told, whatever the trials are."""

    def __init__(self, *decisions: str | None) -> None:
        super().__init__(CRITERION)
        self.decisions = list(decisions)

    def decide(self, study: optuna.Study) -> Stop | None:
        message = self.decisions.pop(0)
        return None if message is None else Stop(StopReason.MET, message)


def run(policy: ExitPolicy, *callbacks: object) -> tuple[Stop, optuna.Study]:
    backend = FakeBackend({name: 0.01 for name in "abcdef"})
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, criterion=CRITERION)
    )
    objective = QuantObjective(backend, space, CountingEvaluation(), CRITERION)
    stop = optimize(study, objective, policy, callbacks, n_jobs=1)  # type: ignore[arg-type]
    return stop, study


def test_search_goes_on_if_its_answer_is_none_any_more() -> None:
    # Stopped by the first trial's decision, which the one right after it takes back.
    policy = Scripted(None, "first", None, None, "second", "second", "second")
    stop, study = run(policy)
    assert stop == Stop(StopReason.MET, "second")
    assert len(study.trials) == 2
    assert not policy.decisions


def test_answer_is_named_as_it_is_at_the_end() -> None:
    stop, study = run(Scripted("trial 8", "trial 11"))
    assert stop.message == "trial 11"
    assert study.user_attrs[record.STOPPED_BECAUSE]["message"] == "trial 11"
    assert not study.trials


def test_other_callback_that_stops_is_named() -> None:
    def halt(study: optuna.Study, trial: FrozenTrial) -> None:
        study.stop()

    stop, study = run(Scripted(None, None, None), halt)
    assert stop.reason == StopReason.CALLBACK
    assert len(study.trials) == 1
