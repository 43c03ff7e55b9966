"""Optuna's TPE over the choices of all ops, without repeats."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import random
from typing import TYPE_CHECKING
from typing import Any

from optuna.samplers import TPESampler

from optuna_quant.samplers._models.model_based import ModelBasedPolicy
from optuna_quant.samplers._models.model_based import Observation
from optuna_quant.samplers._models.model_based import Pending
from optuna_quant.samplers._models.model_based import derive_seed
from optuna_quant.samplers._models.model_based_sampler import ModelBasedQuantSampler
from optuna_quant.samplers._models.tpe_shadow import ShadowStudy
from optuna_quant.samplers._registry import register_strategy


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.points import Point
    from optuna_quant.space.space import TuningSpace


_OURS = ("n_startup_trials", "seed")
_MOST_ASKS = 8


@register_strategy("tpe")
class TPEQuantSampler(ModelBasedQuantSampler):
    """Let :class:`optuna.samplers.TPESampler` choose among the configurations not yet evaluated.

    The default configuration comes first, then a few at random. From then on TPE is asked, with
    the results so far, restricted to the choices that may be proposed. If it proposes what has
    been evaluated or claimed already, it is asked again a few times; then a configuration that
    differs in one op is taken, and if there is no new one either, one at random.

    Use it as the standard against which to judge other strategies, or with ``tpe_kwargs`` of your
    own. :class:`BayesianQuantSampler` usually finds a better configuration in as many trials.

    Every finished trial of the study counts, whichever sampler made it, if all its choices may be
    proposed. A pruned trial counts with the last metric that it reported; a configuration that
    failed for good ranks last, and what other workers are evaluating ranks among the bad, as with
    TPE's ``constant_liar``.

    Example:

        .. code-block:: python

            study = optuna.create_study(
                direction="maximize", sampler=TPEQuantSampler(space, seed=1)
            )
            study.optimize(objective, n_trials=100)

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback may be proposed. Without (default), an op
            takes its quantized options only, unless it has none. With it, consider that the
            metric alone is followed, which draws the search to floating point.
        n_startup_trials:
            How many results there must be before TPE is asked; until then configurations are
            drawn at random.
        tpe_kwargs:
            More arguments of :class:`optuna.samplers.TPESampler`.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        TypeError:
            If ``TPESampler`` has no such argument.
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        fallback: bool = False,
        n_startup_trials: int = 10,
        tpe_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, fallback=fallback, n_startup_trials=n_startup_trials, **kwargs)
        for name in _OURS:
            if name in (tpe_kwargs or {}):
                raise ValueError(
                    f"tpe_kwargs must not have {name!r}: pass {name} to the sampler itself."
                )
        self._tpe_kwargs = dict(tpe_kwargs or {})
        TPESampler(**self._tpe_kwargs)  # It refuses what it does not know.

    def _policy(self, history: TrialHistory) -> Policy:
        return _TPEPolicy(
            self._space,
            fallback=self._fallback,
            seed=self._seed,
            n_startup_trials=self._n_startup_trials,
            tpe_kwargs=self._tpe_kwargs,
        )


class _TPEPolicy(ModelBasedPolicy):
    """Ask TPE in a shadow of the study until it proposes something new."""

    def __init__(
        self,
        space: TuningSpace,
        *,
        fallback: bool,
        seed: int,
        n_startup_trials: int,
        tpe_kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(
            space, fallback=fallback, seed=seed, n_startup_trials=n_startup_trials, stage="tpe"
        )
        self._shadow = ShadowStudy(self._points.allowed, tpe_kwargs)

    def _learns_from(self, observation: Observation) -> bool:
        return observation.comparable

    def _propose(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Pending],
        seed: int,
        is_free: Callable[[Point], bool],
    ) -> Point | None:
        self._shadow.update(
            [o for o in observations if o.comparable],
            [p for p in pending if self._points.is_allowed(p.point)],
        )
        for attempt in range(_MOST_ASKS):
            point = self._shadow.ask(derive_seed(seed, attempt))
            if is_free(point):
                return point
        changes = list(self._points.changes(point))
        random.Random(seed).shuffle(changes)
        return next((change for change in changes if is_free(change)), None)
