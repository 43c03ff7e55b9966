"""What is known of a trial as soon as it has started, before anything is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import TYPE_CHECKING
from typing import Any

from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.storages.trial_starts import STARTED_BY
from optuna_quant.study import record
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from typing import Self

    import optuna
    from optuna.trial import FrozenTrial


_FIXED = "fixed_params"
_OF_A_SPACE = re.compile(r"\.(op:|recipe:|calibration_size$)")


@dataclass(frozen=True)
class StartedTrial:
    """A trial's state and parameters, and who runs it for what; parsed when they are read.

    Args:
        trial:
            The trial. It is not copied, and must not be changed.
    """

    trial: FrozenTrial

    @classmethod
    def of_running(cls, trial: optuna.Trial) -> Self:
        """The view of a trial that this process runs, with attributes that are not written yet.

        Args:
            trial:
                The trial.
        """
        return cls(_optuna.latest_trial(trial))

    # Optuna's own.

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self.trial.number

    @property
    def state(self) -> TrialState:
        """Its state."""
        return self.trial.state

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, however it did."""
        return self.trial.state.is_finished()

    @property
    def is_complete(self) -> bool:
        """Whether it was evaluated in full."""
        return self.trial.state == TrialState.COMPLETE

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.trial.state == TrialState.RUNNING

    @property
    def fixed_params(self) -> dict[str, Any]:
        """The parameters that it was enqueued with; empty if it was not."""
        found: dict[str, Any] = self.trial.system_attrs.get(_FIXED, {})
        return found

    @property
    def is_enqueued(self) -> bool:
        """Whether it is from the queue."""
        return _FIXED in self.trial.system_attrs

    @property
    def known_params(self) -> Mapping[str, Any]:
        """Its parameters, with those that it was enqueued with and has not suggested yet."""
        return {**self.trial.params, **self.fixed_params}

    @property
    def other_params(self) -> dict[str, Any]:
        """Its parameters that are not of a tuning space: those of an objective of one's own."""
        params = self.trial.params
        return {name: value for name, value in params.items() if not _OF_A_SPACE.search(name)}

    @property
    def in_space(self) -> bool:
        """Whether it has a parameter of a tuning space."""
        # The first one tells, mostly: strategies ask for all trials again and again.
        return any(_OF_A_SPACE.search(name) for name in self.trial.params)

    @property
    def is_foreign(self) -> bool:
        """Whether it is of another search: it has parameters, and none of a tuning space."""
        return (
            bool(self.trial.params)
            and not self.in_space
            and not self.has_claimed
            and not self.is_building
        )

    # Who runs it, and for what.

    @property
    def claim(self) -> record.Claim | None:
        """What it has claimed; :obj:`None` if it has made no claim of its own."""
        stored = self.trial.system_attrs.get(record.CLAIM)
        if stored is None or stored["number"] != self.trial.number:
            return None
        return record.Claim.from_attr(stored)

    @property
    def has_claimed(self) -> bool:
        """Whether it has made a claim of its own."""
        stored = self.trial.system_attrs.get(record.CLAIM)
        return stored is not None and bool(stored["number"] == self.trial.number)

    @property
    def stage(self) -> str | None:
        """For which stage of a strategy it was evaluated; :obj:`None` if it claims nothing."""
        stored = self.trial.system_attrs.get(record.CLAIM)
        if stored is None or stored["number"] != self.trial.number:
            return None
        return str(stored["stage"])

    @property
    def is_baseline(self) -> bool:
        """Whether it evaluates the FP32 model as its study's baseline."""
        return self.stage == record.BASELINE_STAGE

    @property
    def fidelity(self) -> Fidelity:
        """How far it is evaluated, see :class:`~optuna_quant.study.record.Claim`."""
        claim = self.claim
        return FULL if claim is None else claim.fidelity

    @property
    def broken_promises(self) -> int:
        """How many promises of earlier trials were broken when it made its claim."""
        claim = self.claim
        return 0 if claim is None else claim.broken_promises

    @property
    def worker(self) -> str | None:
        """The process and thread that run it; :obj:`None` if it is not one of ours."""
        stored = self.trial.system_attrs.get(record.WORKER)
        if isinstance(stored, Mapping) and stored.get("number") == self.trial.number:
            return str(stored.get("worker"))
        claim = self.claim
        return None if claim is None else claim.worker

    @property
    def started_by(self) -> str | None:
        """The worker that started a trial which says nothing else of itself, if it is known.

        A trial that repeats a failed one has inherited the attributes of that one.
        """
        started = self.trial.system_attrs.get(STARTED_BY)
        if started is None or "failed_trial" in self.trial.system_attrs or self.trial.params:
            return None
        return str(started).rpartition("|")[0]

    @property
    def heartbeat(self) -> object:
        """What changes as long as its worker lives: a counter, and who that is."""
        return self.trial.system_attrs.get(record.HEARTBEAT), self.worker

    @property
    def is_building(self) -> bool:
        """Whether our objective has started with it."""
        return record.FALLBACK_OPS in self.trial.user_attrs
