"""How long it took to compute what a study keeps. Reports show it; nothing depends on it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
from datetime import datetime
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    import optuna

    from optuna_quant._common.json_value import Json


_logger = get_logger(__name__)

# Not with the prefix of what decides a search: earlier versions check all that has it.
_PREFIX = "optuna_quant.seconds:"
# What took less was there already.
_LEAST_SECONDS = 0.005


@dataclass(frozen=True)
class ComputingTime:
    """When and how long a worker computed a value.

    Args:
        kind:
            What was computed, such as ``"calibration"``.
        started:
            When it began.
        seconds:
            How long it took.
        worker:
            The process and thread that computed it.
    """

    kind: str
    started: datetime
    seconds: float
    worker: str


@contextlib.contextmanager
def timed(study: optuna.Study, name: str) -> Iterator[None]:
    """Keep in the study how long something takes.

    Args:
        study:
            The study.
        name:
            What is computed: the name of the value, which begins with its kind and a colon.
    """
    started, clock = datetime.now(), time.perf_counter()
    yield
    seconds = time.perf_counter() - clock
    if seconds < _LEAST_SECONDS:
        return
    kept: Json = {"at": started.isoformat(), "seconds": round(seconds, 4), "worker": this_worker()}
    try:
        _optuna.set_study_system_attr(study, f"{_PREFIX}{name}", kept)
    except Exception as error:  # The value is worth more than how long it took.
        _logger.debug(f"How long {name!r} took could not be kept: {error!r}")


def computing_times(study: optuna.Study) -> list[ComputingTime]:
    """The times that a study says its values took to compute, in the order of their start."""
    found = []
    for name, kept in _optuna.study_system_attrs(study).items():
        if name.startswith(_PREFIX):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found.append(
                    ComputingTime(
                        name.removeprefix(_PREFIX).partition(":")[0],
                        datetime.fromisoformat(kept["at"]),
                        float(kept["seconds"]),
                        str(kept["worker"]),
                    )
                )
    return sorted(found, key=lambda each: each.started)
