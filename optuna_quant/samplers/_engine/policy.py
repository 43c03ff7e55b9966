"""The policy of a sampler in one study: propose the next configuration from the record."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True)
class Proposal:
    """A configuration to evaluate, and its purpose.

    ``positions`` (see :meth:`TuningSpace.positions_of`) goes into the claim, for policies whose
    next proposal depends on what is claimed.
    """

    config: QuantConfig
    stage: str
    provisional: bool = False
    speculative: bool = False
    forced: bool = False
    """Whether the configuration was given, or is the last resort: no other claim can win it."""
    positions: tuple[int, ...] | None = None
    fidelity: Fidelity = FULL
    """How far to evaluate it, see :class:`optuna_quant.study.record.Claim`."""


class Policy(abc.ABC):
    """Decides what one sampler evaluates next in one study, given the record.

    It may keep what it derived from the record, but nothing else: another process that reads the
    same record makes the same proposal.
    """

    @abc.abstractmethod
    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        """The next configuration that is neither evaluated nor claimed.

        Returns:
            The proposal, or :obj:`None` if there is none now: either what is claimed has to end
            first, or the search is over.
        """

    @abc.abstractmethod
    def is_over(self, history: TrialHistory) -> bool:
        """Whether the search has nothing left to evaluate."""

    def is_blocked(self, history: TrialHistory) -> bool:
        """Whether :meth:`next` returns nothing only because another worker computes its input."""
        return False

    def should_wait(self, claimants: Iterable[int], history: TrialHistory) -> bool:
        """Whether to wait for claimed configurations rather than evaluate what is not asked for.

        Args:
            claimants:
                The numbers of the trials whose claims are respected.
            history:
                The record.
        """
        return history.others_run(claimants)

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        """Whether a configuration that meets the criterion answers the search."""
        return True

    def has_asked_for(self, history: TrialHistory, key: str) -> bool:
        """Whether the search has asked for a configuration, apart from guesses."""
        return True
