"""The default strategy, and the one that neural-compressor 2 has under this name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._conservative import convert
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._surrogate import SurrogateQuantSampler


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


_OF_SURROGATE = ("min_gain", "first_ops", "thorough", "prior")
_OF_STAGES = ("accumulate", "blocks", "max_op_type_trials", "patience", "racing", "when_blocked")


@register_strategy("auto")
class AutoQuantSampler(SurrogateQuantSampler):
    """The default strategy: :class:`SurrogateQuantSampler`.

    With ``compat="inc2"`` it is that of neural-compressor 2 for ``quant_level="auto"``:

    1. ``default``: every op quantized. If that meets the criterion it is the answer.
    2. The stages of :class:`ConservativeQuantSampler` that follow: from FP32, as much as the
       criterion allows. Its answer ends a search that stops at the first success.
    3. The stages of :class:`BasicQuantSampler`, for a search that goes on, or if nothing has met
       the criterion.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        costs:
            See :class:`SurrogateQuantSampler`; of no matter with ``compat="inc2"``.
        sensitivity:
            The same.
        compat:
            ``"inc2"`` for the strategy of neural-compressor 2.
        **kwargs:
            See :class:`SurrogateQuantSampler`; with ``compat="inc2"`` :class:`BasicQuantSampler`.

    Raises:
        TypeError:
            If there is no criterion.
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None,
        costs: CostTable | None = None,
        sensitivity: Sensitivity | None = None,
        compat: str | None = None,
        **kwargs: Any,
    ) -> None:
        if compat not in (None, "inc2"):
            raise ValueError(f"compat must be None or 'inc2', but got {compat!r}.")
        if compat is not None and kwargs.get("prior") is not None:
            raise ValueError(
                "compat='inc2' cannot use an earlier study: leave one of the two out."
            )
        self._reference: _ReferenceAutoQuantSampler | None = None
        if compat == "inc2":
            options = {n: v for n, v in kwargs.items() if n not in _OF_SURROGATE}
            self._reference = _ReferenceAutoQuantSampler(
                space, criterion=criterion, compat="inc2", **options
            )
            kwargs = {n: v for n, v in kwargs.items() if n not in _OF_STAGES}
        super().__init__(
            space, criterion=criterion, costs=costs, sensitivity=sensitivity, **kwargs
        )

    def _check_study(self, study: optuna.Study) -> None:
        if self._reference is not None:
            self._reference._check_study(study)

    def _policy(self, history: TrialHistory) -> Policy:
        if self._reference is not None:
            return self._reference._policy(history)
        return super()._policy(history)


class _ReferenceAutoQuantSampler(BasicQuantSampler):
    """Everything quantized, then conservative, then basic."""

    def plan(self, space: TuningSpace) -> Plan:
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        if not default.met:
            config = yield from convert(space)
            if config.quantized_ops:
                yield Stage("answer", [config])
        yield from super().plan(space)
