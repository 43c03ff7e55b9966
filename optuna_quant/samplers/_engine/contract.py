"""What a search asks of a sampler besides Optuna's own interface.

Each protocol has one purpose, and the search tests for it with ``isinstance``. All samplers of
this package have all of them. A sampler that lacks one can be used as well; each protocol says
what then holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion


LAST_TRIALS_SECONDS = 180.0
"""How long a search waits for a trial of another machine that sends no heartbeat."""


@runtime_checkable
class HasCriterion(Protocol):
    """A sampler or a pruner that judges metrics; without it, no criterion is compared."""

    @property
    def criterion(self) -> AccuracyCriterion | None:
        """When a metric is good enough; :obj:`None` if that is not known yet."""
        ...


@runtime_checkable
class TellsExhaustion(Protocol):
    """A sampler that can run out of configurations; without it, only limits end a search."""

    def is_exhausted(
        self, study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
    ) -> bool:
        """Whether there is nothing left to evaluate, now and later.

        Args:
            study:
                The study.
            trials:
                All its trials, if they have just been read.
        """
        ...


@runtime_checkable
class TellsAnswers(Protocol):
    """A sampler that tells its conclusions from steps on the way.

    Without it, each trial that meets the criterion is an answer, unless its claim is provisional.
    """

    def is_answer(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that meets the criterion answers the search."""
        ...


@runtime_checkable
class TellsNewConfigs(Protocol):
    """A sampler that knows what was evaluated before; without it, each model is looked up."""

    def is_first(self, study: optuna.Study, number: int) -> bool:
        """Whether the running trial of this number is the first with its configuration."""
        ...


@runtime_checkable
class HasClaimTimeout(Protocol):
    """A sampler that says when a worker is lost; without it, that is after three minutes."""

    @property
    def claim_timeout(self) -> float | None:
        """After how many seconds without a heartbeat a trial is stale; :obj:`None` for never."""
        ...


def criterion_of(judge: object) -> AccuracyCriterion | None:
    """The criterion by which a sampler or a pruner judges, if it says so."""
    # As the protocol HasCriterion has it; each trial asks twice, and to check that takes longer.
    found: AccuracyCriterion | None = getattr(judge, "criterion", None)
    return found


def claim_timeout_of(sampler: object) -> float | None:
    """After how many seconds without a heartbeat a search gives a trial up."""
    return sampler.claim_timeout if isinstance(sampler, HasClaimTimeout) else LAST_TRIALS_SECONDS
