"""How long to search, with which strategy, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
from numbers import Integral
from numbers import Real
from typing import Any

from optuna_quant.costs.objective import ObjectiveLike
from optuna_quant.costs.objective import as_objective


@dataclass(frozen=True, kw_only=True)
class TuningCriterion:
    """How to search, for how long, and which of the good models is the best.

    Args:
        timeout:
            0: stop at the first configuration that meets the accuracy criterion. A positive
            number: search for that many seconds, and take the best. :obj:`None`: search until
            ``max_trials``, or until the strategy has nothing left.
        max_trials:
            The most trials that are evaluated, over all workers, without the FP32 baseline and
            without trials that took over the result of an equal model. :obj:`None` for no limit.
        strategy:
            The name of the strategy; :obj:`None` to let ``quant_level`` choose it.
        strategy_kwargs:
            Options of the strategy's sampler.
        objective:
            What is best among the models that meet the criterion: ``"latency"`` (the fastest on
            this machine), ``"size"`` (the smallest), ``"ops"`` (the fewest ops in fallback),
            ``"multiply_adds"`` or ``"bit_operations"``; weights of several, such as
            ``{"latency": 0.7, "size": 0.3}``, each relative to FP32; a function that gives the
            cost of a configuration; or an :class:`~optuna_quant.costs.Objective`. Default: the
            latency, where the backend measures what ops cost and that predicts whole models; the
            size, where it does not predict; and ``"ops"`` where the backend knows no costs.
        stop_at_first:
            Whether to stop at the first configuration that meets the criterion. Default: only if
            ``timeout`` is 0. Set it to :obj:`True` to have a time limit as well.

    Raises:
        TypeError:
            If an argument has another type.
        ValueError:
            If an argument is out of its range.
    """

    timeout: float | None = 0
    max_trials: int | None = 100
    strategy: str | None = None
    strategy_kwargs: Mapping[str, Any] | None = None
    objective: ObjectiveLike | None = None
    stop_at_first: bool | None = None

    def __post_init__(self) -> None:
        check_limits(self.timeout, self.max_trials, self.stop_at_first)
        if self.objective is not None:
            as_objective(self.objective)
        if self.strategy is not None and not isinstance(self.strategy, str):
            raise TypeError(f"strategy must be a name, but got {self.strategy!r}.")
        if not isinstance(self.strategy_kwargs, Mapping | None):
            raise TypeError(f"strategy_kwargs must be a dict, but got {self.strategy_kwargs!r}.")
        object.__setattr__(self, "strategy_kwargs", dict(self.strategy_kwargs or {}))


def check_limits(
    timeout: float | None, max_trials: int | None, stop_at_first: bool | None
) -> None:
    """Refuse limits that make no sense.

    Args:
        timeout:
            Seconds, at least 0; :obj:`None` for no limit.
        max_trials:
            A number of trials, at least 1; :obj:`None` for no limit.
        stop_at_first:
            Whether to stop at the first success; :obj:`None` for the default.

    Raises:
        TypeError:
            If a limit has another type.
        ValueError:
            If a limit is out of its range, or the limits contradict each other.
    """
    if timeout is not None:
        seconds = _number("timeout", timeout)
        if not 0 <= seconds < math.inf:
            raise ValueError(
                f"timeout must be a number of seconds of at least 0, but got {timeout}; use None "
                "for no limit."
            )
    if max_trials is not None:
        if isinstance(max_trials, bool) or not isinstance(max_trials, Integral):
            raise TypeError(f"max_trials must be an integer or None, but got {max_trials!r}.")
        if max_trials < 1:
            raise ValueError(f"max_trials must be at least 1, but got {max_trials}.")
    if timeout == 0 and stop_at_first is False:
        raise ValueError(
            "timeout=0 means to stop at the first configuration that meets the criterion, which "
            "contradicts stop_at_first=False; use timeout=None to search on without a time limit."
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but got {value!r}.")
    return float(value)
