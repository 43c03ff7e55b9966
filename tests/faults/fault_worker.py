"""What a worker process of the fault tests does, and what befalls it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from datetime import timedelta
from datetime import tzinfo
import logging
import os
import random
import signal
import sys
import time
import types
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from samplers.parallel_worker import Log
from samplers.parallel_worker import evaluation
from samplers.parallel_worker import log_told
from samplers.parallel_worker import sampler_of
import services

from optuna_quant import _optuna
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.workers import identity


_WRITES = [
    "create_new_trial",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
]
_READS = ["get_all_trials", "get_trial", "get_study_system_attrs", "get_study_user_attrs"]

Around = Callable[[Callable[[], Any]], Any]


def work(
    url: str,
    log: str,
    name: str,
    *,
    study_name: str = "study",
    when_blocked: str = "speculate",
    seconds: float = 0.0,
    options: dict[str, Any] | None = None,
    kill_at: int | None = None,
    host: str | None = None,
    clock: float = 0.0,
    slow: tuple[float, float, float] | None = None,
    lost: bool = False,
) -> None:
    """Evaluate until the strategy has nothing left.

    Args:
        url:
            The storage.
        log:
            The path of the log.
        name:
            The strategy.
        study_name:
            The study.
        when_blocked:
            See the samplers.
        seconds:
            How long an evaluation takes.
        options:
            More options of the sampler.
        kill_at:
            At which write this process kills itself: odd numbers before it, even ones after it.
        host:
            The name of the machine on which this process seems to be.
        clock:
            By how many seconds its clock is ahead.
        slow:
            How long a storage call takes before and after it at most; how probable it is that
            it takes much longer, and how long that is.
        lost:
            Whether to go on when others have ended the trial.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if host is not None:
        # In the form of the real one: name, machine, boot, namespace.
        identity._host = lambda: f"{host} {host} boot namespace"
    if clock:
        shift_clock(clock)
    lines = Log(log)
    space, sampler = sampler_of(name, when_blocked=when_blocked, **(options or {}))
    study = optuna.create_study(
        storage=services.open_as_users_do(url),
        study_name=study_name,
        direction="maximize",
        sampler=sampler,
        load_if_exists=True,
    )
    storage, _ = _optuna.study_identity(study)
    if kill_at is not None:
        _surround(storage, _WRITES, _killer(kill_at))
    if slow is not None:
        _surround(storage, _WRITES + _READS, _slower(*slow))
    lines.add("start", study=study_name)
    objective = evaluation(space, lines, seconds=seconds)
    while not sampler.is_exhausted(study):
        try:
            study.optimize(objective, n_trials=1, callbacks=[log_told(lines)])
        except (UpdateFinishedTrialError, ValueError, AssertionError) as error:
            if not lost:
                raise
            lines.add("lost", study=study_name, kind=type(error).__name__, text=str(error))


def _surround(storage: Any, methods: list[str], around: Around) -> None:
    """Put something around methods of one storage object, which stays what it is."""

    def surrounded(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: around(lambda: method(*args, **kwargs))

    for name in methods:
        setattr(storage, name, surrounded(getattr(storage, name)))


def _killer(kill_at: int) -> Around:
    left = kill_at

    def around(call: Callable[[], Any]) -> Any:
        nonlocal left
        left -= 2
        if left == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return around


def _slower(longest: float, probability: float, stall: float) -> Around:
    def pause() -> None:
        time.sleep(stall if random.random() < probability else random.uniform(0.0, longest))

    def around(call: Callable[[], Any]) -> Any:
        pause()
        result = call()
        pause()
        return result

    return around


# Another clock.


def shift_clock(seconds: float) -> None:
    """Set the clock of this process, as Python tells it, ahead."""
    real, shift, real_time = datetime, timedelta(seconds=seconds), time.time

    class _Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Shifted(real, metaclass=_Meta):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return real(*args, **kwargs)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return real.now(tz) + shift

    shifted_module = types.ModuleType("datetime")
    vars(shifted_module).update(vars(sys.modules["datetime"]), datetime=Shifted)
    time.time = lambda: real_time() + seconds
    instead = {id(real): Shifted, id(sys.modules["datetime"]): shifted_module}
    for name, module in list(sys.modules.items()):
        if name.startswith("optuna"):
            found = vars(module).get("datetime")
            vars(module).update({"datetime": instead[id(found)]} if id(found) in instead else {})


# The whole search.


def tune_fake(
    url: str,
    log: str,
    *,
    model: str = "model",
    tolerable_loss: float = 0.06,
    seconds: float = 0.0,
    host: str | None = None,
    options: dict[str, Any] | None = None,
) -> None:
    """Tune a model that only counts what quantization costs, as a user does."""
    if host is not None:
        identity._host = lambda: f"{host} {host} boot namespace"
    lines = Log(log)
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("optuna_quant").addHandler(handler)

    def evaluate(fake: FakeModel) -> float:
        lines.add("evaluation", key=fake.config.key)
        time.sleep(seconds)
        return fake.accuracy

    result = tune(
        backend=FakeBackend({"a": 0.02, "b": 0.15, "c": 0.03, "d": 0.2}, name=model),
        evaluate=evaluate,
        storage=services.open_as_users_do(url),
        study_name="study",
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=tolerable_loss),
        tuning_criterion=TuningCriterion(
            timeout=None, max_trials=None, strategy="basic", strategy_kwargs=options
        ),
    )
    lines.add("result", met=result.met, ops=sorted(result.fallback_ops), warnings=warnings)
