"""How long to search, with which strategy, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.durations import as_seconds
from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import COUNT_OR_NONE
from optuna_quant._common.option_kinds import SECONDS_OR_NONE
from optuna_quant._common.option_kinds import SWITCH
from optuna_quant._common.option_kinds import TABLE
from optuna_quant._common.option_kinds import TEXT
from optuna_quant._common.option_kinds import WEIGHTS
from optuna_quant.tuning.options.checks import check_seconds


if TYPE_CHECKING:
    from optuna_quant.costs.objective import ObjectiveLike


@dataclass(frozen=True, kw_only=True)
class TuningCriterion:
    """How to search, for how long, and which of the good models is the best.

    Args:
        timeout:
            0: stop at the first configuration that meets the accuracy criterion. A positive
            number: search for that many seconds, and take the best; or a string such as ``"15m"``
            or ``"1h"``. :obj:`None`: search until ``max_trials``, or until the strategy has
            nothing left.
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
            size, where it does not predict, where the backend only counts sizes, or where only
            weights are quantized (``approach="weight_only"``); and ``"ops"``
            where the backend knows no costs.
        stop_at_first:
            Whether to stop at the first configuration that meets the criterion. Default: only if
            ``timeout`` is 0. Set it to :obj:`True` to have a time limit as well.

    Raises:
        TypeError:
            If an argument has another type.
        ValueError:
            If an argument is out of its range.
    """

    timeout: float | str | None = option(
        0,
        Flag(
            help="0: stop at the first model that meets the criterion; otherwise search for so "
            "long (90s, 15m, 1h, 2d, or a number of seconds) and take the best; 'none': no time "
            "limit (default: 0). It counts the time during which trials of the study ran, in all "
            "runs of the command",
            kind=SECONDS_OR_NONE,
            metavar="TIME",
            common=True,
        ),
    )
    max_trials: int | None = option(
        100,
        Flag(
            help="the most models to evaluate, or 'none' (default: 100)",
            kind=COUNT_OR_NONE,
            metavar="N",
            common=True,
        ),
    )
    strategy: str | None = option(
        None,
        Flag(
            help="auto, basic, conservative, exhaustive, random, ... (default: auto)",
            kind=TEXT,
            metavar="NAME",
            common=True,
        ),
    )
    strategy_kwargs: Mapping[str, Any] | None = option(
        None,
        Flag(
            help="options of the strategy",
            kind=TABLE,
            metavar="JSON",
            reads="file of --strategy-kwargs",
        ),
    )
    objective: ObjectiveLike | None = option(
        None,
        Flag(
            help="what is best among the models that meet the criterion: latency (the fastest "
            "on this machine), size (the smallest), ops (the fewest in FP32), multiply_adds, "
            "bit_operations, or weights of several, each relative to FP32: "
            "latency=0.7,size=0.3 (default: latency if the measured costs of the ops predict "
            "the time of whole models, otherwise size; size as well if weights alone are "
            "quantized)",
            kind=WEIGHTS,
            metavar="WHAT",
            common=True,
        ),
    )
    stop_at_first: bool | None = option(
        None,
        Flag(
            help="with --timeout TIME: stop at the first model that meets the criterion, if "
            "that is earlier",
            kind=SWITCH,
            value=True,
        ),
    )

    @property
    def seconds(self) -> float | None:
        """The timeout in seconds."""
        return as_seconds("timeout", self.timeout)

    def __post_init__(self) -> None:
        # They take long to import, and the command shows its help without them.
        from optuna_quant.callbacks.limits import check_limits
        from optuna_quant.costs.objective import as_objective

        object.__setattr__(self, "timeout", check_seconds("timeout", self.timeout))
        check_limits(self.seconds, self.max_trials, self.stop_at_first)
        if self.objective is not None:
            as_objective(self.objective)
        if self.strategy is not None and not isinstance(self.strategy, str):
            raise TypeError(f"strategy must be a name, but got {self.strategy!r}.")
        if not isinstance(self.strategy_kwargs, Mapping | None):
            raise TypeError(f"strategy_kwargs must be a dict, but got {self.strategy_kwargs!r}.")
        object.__setattr__(self, "strategy_kwargs", dict(self.strategy_kwargs or {}))
