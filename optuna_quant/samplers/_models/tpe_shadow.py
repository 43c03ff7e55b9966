"""A shadow study in memory, in which TPE is asked for proposals."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
import logging
import math
from typing import TYPE_CHECKING
from typing import Any
import uuid

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optuna_quant.samplers._models.model_based import Observation
from optuna_quant.samplers._models.model_based import Pending


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_quant.samplers._models.points import Point


class ShadowStudy:
    """A study in memory whose parameters have only the allowed choices.

    What is new is added. Only if it does not come in the order of the trials, which TPE's result
    depends on, the shadow is rebuilt.

    Args:
        allowed:
            For each parameter, the positions of the choices that may be proposed.
        tpe_kwargs:
            Arguments of TPE.
    """

    def __init__(self, allowed: Sequence[Sequence[int]], tpe_kwargs: Mapping[str, Any]) -> None:
        self._allowed = allowed
        self._tpe_kwargs = tpe_kwargs
        # A choice is its number among the allowed ones, so that all parameters with as many can
        # share one distribution: Optuna copies what a trial has, each object once.
        shared = {len(p): CategoricalDistribution(range(len(p))) for p in allowed}
        self._distributions: dict[str, BaseDistribution] = {
            str(number): shared[len(positions)]
            for number, positions in enumerate(allowed)
            if len(positions) > 1
        }
        self._choice_of = [{p: i for i, p in enumerate(positions)} for positions in allowed]
        self._clear()

    def _clear(self) -> None:
        self._study = _quiet_study()
        self._finished: dict[int, Observation] = {}
        self._running: dict[int, tuple[Pending, int]] = {}  # With the number in the shadow.
        self._last = -1

    def update(self, observations: Sequence[Observation], pending: Sequence[Pending]) -> None:
        """Bring the shadow to this state.

        Args:
            observations:
                What is known, by trial number.
            pending:
                What is running, by trial number.
        """
        if not self._advance(observations, pending):
            self._clear()
            self._advance(observations, pending)

    def _advance(self, observations: Sequence[Observation], pending: Sequence[Pending]) -> bool:
        """Add new trials; :obj:`False` if earlier ones have changed as well."""
        current = {o.number: o for o in observations}
        if any(current.get(number) != known for number, known in self._finished.items()):
            return False
        running = {p.number: p for p in pending}
        for number, (known, place) in list(self._running.items()):
            if running.get(number) == known:
                continue
            del self._running[number]
            ended = current.get(number)
            if ended is None:
                self._study.tell(place, state=TrialState.FAIL)
            elif ended.point != known.point or ended.score == -math.inf:
                return False
            else:
                self._study.tell(place, ended.score)
                self._finished[number] = ended
        known_numbers = self._finished.keys() | self._running.keys()
        entries: list[Observation | Pending] = [*observations, *pending]
        new = [entry for entry in entries if entry.number not in known_numbers]
        for entry in sorted(new, key=lambda entry: entry.number):
            if entry.number < self._last:
                return False
            self._last = entry.number
            self._add(entry)
        return True

    def _add(self, entry: Observation | Pending) -> None:
        params = {
            name: self._choice_of[int(name)][entry.point[int(name)]]
            for name in self._distributions
        }
        state, value = TrialState.RUNNING, None
        if isinstance(entry, Observation):
            # TPE ranks what was pruned without a value behind everything else.
            failed = entry.score == -math.inf
            state = TrialState.PRUNED if failed else TrialState.COMPLETE
            value = None if failed else entry.score
            self._finished[entry.number] = entry
        else:
            self._running[entry.number] = entry, len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            optuna.create_trial(
                state=state, value=value, params=params, distributions=self._distributions
            )
        )

    def ask(self, seed: int) -> Point:
        """The point that TPE proposes with this seed."""
        self._study.sampler = _TPE(
            self._distributions, **self._tpe_kwargs, n_startup_trials=1, seed=seed
        )
        trial = self._study.ask(fixed_distributions=self._distributions)
        params = trial.params
        self._study.tell(trial, state=TrialState.FAIL)
        return tuple(
            positions[params.get(str(number), 0)] for number, positions in enumerate(self._allowed)
        )


class _TPE(TPESampler):
    """TPE for a study whose trials all have the same, known parameters."""

    def __init__(self, parameters: Mapping[str, BaseDistribution], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # With other than the default options, TPE treats parameters one by one or in groups.
        by_itself = kwargs.get("multivariate") is False or kwargs.get("group")
        self._parameters = None if by_itself else parameters

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self._parameters is None:
            return super().infer_relative_search_space(study, trial)
        return dict(self._parameters)


def _quiet_study() -> optuna.Study:
    """A study in memory, without the message that there is one."""
    name = f"optuna_quant shadow {uuid.uuid4()}"
    with _without_messages_of(name):
        return optuna.create_study(
            study_name=name, storage=InMemoryStorage(), direction="maximize"
        )


@contextmanager
def _without_messages_of(name: str) -> Iterator[None]:
    logger = logging.getLogger(InMemoryStorage.__module__)

    def is_other(entry: logging.LogRecord) -> bool:
        return name not in entry.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
