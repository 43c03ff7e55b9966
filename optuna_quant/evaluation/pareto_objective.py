"""The objective function of a study with a metric and costs as its objectives."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
import math
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import ObjectiveLike
from optuna_quant.costs.objective import as_objective
from optuna_quant.evaluation.arguments import check_arguments
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs.costs import Costs
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class ParetoObjective:
    """Objective function of a study with several objectives: the metric, and costs.

    A trial does what it does with a :class:`~optuna_quant.QuantObjective`; beside the metric it
    gives the cost of the model by each objective. Any sampler can run the study: ours
    (:class:`~optuna_quant.samplers.ParetoQuantSampler`) or Optuna's. ``study.best_trials`` is the
    front.

    Example:

        .. code-block:: python

            costs = backend.costs(space)
            objective = ParetoObjective(
                backend, space, evaluate, criterion, objectives="latency", costs=costs
            )
            sampler = ParetoQuantSampler(
                space, criterion=criterion, costs=objective.costs[0].table
            )
            study = optuna.create_study(directions=objective.directions, sampler=sampler)
            study.optimize(objective, n_trials=20)

    Args:
        backend:
            Builds the models.
        space:
            The tuning space.
        evaluate:
            Gives the metric of a model, as for :class:`~optuna_quant.QuantObjective`.
        criterion:
            Which way the metric goes, and when it is good enough.
        objectives:
            What models cost, as :func:`optuna_quant.costs.as_objective` takes it: one, or a list
            of several. What is not counted in ops or bytes needs ``costs``.
        costs:
            The tables of what ops cost in their options, as ``backend.costs(space)`` gives them.
        constrain:
            Whether models that do not meet the criterion, and the FP32 model, are infeasible, so
            that the front ends where the tolerance does.
        **kwargs:
            See :class:`~optuna_quant.QuantObjective`.

    Raises:
        ValueError:
            If there is no objective, one is not known, or the costs lack what it needs.
    """

    def __init__(
        self,
        backend: Backend,
        space: TuningSpace,
        evaluate: Evaluate | SampleEvaluation,
        criterion: AccuracyCriterion,
        *,
        objectives: ObjectiveLike | Sequence[ObjectiveLike],
        costs: Costs | None = None,
        constrain: bool = False,
        **kwargs: Any,
    ) -> None:
        check_arguments("ParetoObjective", backend, space, evaluate, criterion)
        several = isinstance(objectives, list | tuple)
        given: list[Any] = list(objectives) if several else [objectives]  # type: ignore[arg-type]
        if not given:
            raise ValueError("objectives must name at least one cost, but got none.")
        self._costs = tuple(KnownObjective(as_objective(each), space, costs) for each in given)
        for known in self._costs:
            _check_known(known)
        self._criterion = criterion
        self._backend = backend
        self._fp32 = space.fp32()
        self._objective = QuantObjective(
            backend,
            space,
            evaluate,
            criterion,
            costs=self._measures_of,
            constrain=constrain,
            **kwargs,
        )

    @property
    def objective(self) -> QuantObjective:
        """What gives the metric."""
        return self._objective

    @property
    def costs(self) -> tuple[KnownObjective, ...]:
        """The objectives beside the metric."""
        return self._costs

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """The directions of the study."""
        found: list[Literal["minimize", "maximize"]] = [self._criterion.direction]
        return found + ["minimize" for _ in self._costs]

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Run one trial.

        Args:
            trial:
                The trial.

        Returns:
            The metric and the costs; NaN, which Optuna records as a failed trial, if the model
            has no metric.

        Raises:
            ValueError:
                If the study has another number of objectives, or other directions.
            Exception:
                As :meth:`QuantObjective.__call__ <optuna_quant.QuantObjective.__call__>`.
        """
        found = [direction.name.lower() for direction in trial.study.directions]
        if found != self.directions:
            raise ValueError(
                f"The study {trial.study.study_name!r} has the directions {found}, but this "
                f"objective gives a metric and {len(self._costs)} "
                f"cost{'s' if len(self._costs) > 1 else ''}: create it with "
                f"directions={self.directions}."
            )
        metric = self._objective.metric_of(trial)
        if math.isnan(metric):
            return (math.nan,) * len(self.directions)
        measures = TrialView.of_running(trial).costs
        return metric, *(known.cost(measures) for known in self._costs)

    def _measures_of(self, config: QuantConfig) -> Mapping[str, float]:
        found: dict[str, float] = {}
        if config == self._fp32:
            # A trial that takes over the baseline does not build it.
            found |= self._size_of_fp32
        for known in self._costs:
            found |= known.measures_of(config)
        return found

    @cached_property
    def _size_of_fp32(self) -> Mapping[str, float]:
        return {SIZE: float(self._backend.quantize(self._fp32).nbytes)}


def _check_known(known: KnownObjective) -> None:
    """Refuse an objective that no trial could give."""
    # The size of a model is known once it is built, if nothing is relative to FP32's.
    measured = {SIZE: 1.0} if known.measures == (SIZE,) else {}
    if math.isfinite(known.cost({**measured, **known.fp32})):
        return
    missing = [m for m in known.measures if m not in {**known.costs.tables, OPS: None}]
    raise ValueError(
        f"The objective {known.name!r} needs {' and '.join(missing) or 'its measures'} of each "
        "configuration: give costs=, such as backend.costs(space), or use 'ops' or 'size'."
    )
