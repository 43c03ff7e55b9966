"""Shared by model-based searches: the trials they learn from, and the choices they may propose."""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import hashlib
import math
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.enumeration import Enumeration
from optuna_quant.samplers._engine.enumeration import Permutation
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._models.points import Point
from optuna_quant.samplers._models.points import Points
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Observation:
    """The observed metric of one configuration.

    Args:
        number:
            The number of the trial.
        point:
            The configuration.
        score:
            The metric turned so that higher is better; minus infinity if the evaluation failed.
        allowed:
            Whether the search may propose configurations with these choices.
        floating:
            Whether no op is quantized.
    """

    number: int
    point: Point
    score: float
    allowed: bool
    floating: bool

    @property
    def comparable(self) -> bool:
        """Whether the search might have proposed it as an answer."""
        return self.allowed and not self.floating


@dataclass(frozen=True)
class Pending:
    """A configuration that a running trial has claimed."""

    number: int
    point: Point


class ModelBasedPolicy(Policy):
    """Proposes the default configuration, some at random, then those that a model picks.

    The search is over when everything that it may propose has been evaluated.

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback may be proposed.
        seed:
            The seed of everything random.
        n_startup_trials:
            How many results to learn from there must be before the model is asked.
        stage:
            The name of the stage.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        fallback: bool,
        seed: int,
        n_startup_trials: int,
        stage: str,
    ) -> None:
        self._space = space
        self._points = Points(space, fallback=fallback)
        self._seed = seed
        self._n_startup_trials = n_startup_trials
        self._stage = stage
        order = Permutation(space.count(fallback=fallback), seed=seed)
        self._rest = Enumeration(space, order, fallback=fallback, stage=stage)
        self._read: dict[str, tuple[Point, bool, bool]] = {}

    @abc.abstractmethod
    def _propose(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Pending],
        seed: int,
        is_free: Callable[[Point], bool],
    ) -> Point | None:
        """What the model would evaluate next.

        Args:
            observations:
                Everything known, by trial number.
            pending:
                What running trials have claimed, by trial number.
            seed:
                The seed of this choice, which follows from the record.
            is_free:
                Whether a point is neither evaluated nor claimed.

        Returns:
            A free point with allowed choices, or :obj:`None` if the model finds none.
        """

    @abc.abstractmethod
    def _learns_from(self, observation: Observation) -> bool:
        """Whether a result counts towards ``n_startup_trials``."""

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        spare = self._rest.next(history, claimed)
        if spare is None:
            return None
        default = self._space.default()
        if default.key not in history.outcomes and default.key not in claimed:
            spare = replace(spare, config=default)
        else:
            observations = self._observations(history)
            known = sum(o.score > -math.inf and self._learns_from(o) for o in observations)
            if known >= self._n_startup_trials:
                point = self._propose(
                    observations,
                    self._pending(history, claimed),
                    derive_seed(self._seed, history.size),
                    lambda point: self._is_free(point, history, claimed),
                )
                if point is not None:
                    return Proposal(self._points.config_of(point), self._stage, positions=point)
        return replace(spare, positions=self._space.positions_of(spare.config))

    def is_over(self, history: TrialHistory) -> bool:
        return self._rest.is_over(history)

    def _is_free(self, point: Point, history: TrialHistory, claimed: Mapping[str, int]) -> bool:
        key = self._points.key_of(point)
        return key not in history.outcomes and key not in claimed

    def _observations(self, history: TrialHistory) -> list[Observation]:
        found = []
        for key, outcome in history.outcomes.items():
            if key not in self._read:
                point = self._points.from_params(outcome.params)
                # A trial that failed early may lack parameters; a later one may have them.
                if point is None:
                    continue
                allowed = self._points.is_allowed(point)
                self._read[key] = point, allowed, self._points.is_floating(point)
            point, allowed, floating = self._read[key]
            found.append(Observation(outcome.number, point, outcome.score, allowed, floating))
        return sorted(found, key=lambda observation: observation.number)

    def _pending(self, history: TrialHistory, claimed: Mapping[str, int]) -> list[Pending]:
        found = []
        for number in sorted(claimed.values()):
            trial = history.running[number]
            point = self._points.from_params(trial.params)
            if point is None:
                claim = StartedTrial(trial).claim
                if claim is None or claim.positions is None:
                    continue
                point = tuple(claim.positions)
            found.append(Pending(number, point))
        return found


def derive_seed(*parts: int) -> int:
    """A seed of 32 bits that follows from the parts, the same in every process."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
