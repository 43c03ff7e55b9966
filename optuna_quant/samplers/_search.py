"""What a sampler does in one study: choose the next configuration from the record."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.study import record


if TYPE_CHECKING:
    from optuna_quant.samplers._ledger import Ledger
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True)
class Choice:
    """A configuration to evaluate, and what for.

    ``positions`` (see :meth:`TuningSpace.positions_of`) goes into the claim, for searches whose
    next choice depends on what is claimed.
    """

    config: QuantConfig
    stage: str
    provisional: bool = False
    speculative: bool = False
    forced: bool = False
    """Whether the configuration was given, or is the last resort: nobody can take it away."""
    positions: tuple[int, ...] | None = None
    goal: str | int = record.FULL
    """How far to evaluate it, see :class:`optuna_quant.study.record.Claim`."""


class Search(abc.ABC):
    """The search of one sampler in one study: what to evaluate next, given the record.

    It may keep what it derived from the record, but nothing else: another process that reads the
    same record makes the same choice.
    """

    @abc.abstractmethod
    def next(self, ledger: Ledger, claimed: Mapping[str, int]) -> Choice | None:
        """The next configuration that is neither evaluated nor claimed.

        Returns:
            The choice, or :obj:`None` if there is none now: either what is claimed has to end
            first, or the search is over.
        """

    @abc.abstractmethod
    def is_over(self, ledger: Ledger) -> bool:
        """Whether everything that the search wants has been evaluated."""

    def is_blocked(self, ledger: Ledger) -> bool:
        """Whether :meth:`next` has nothing only because another worker computes what it needs."""
        return False

    def is_answer(self, ledger: Ledger, key: str) -> bool:
        """Whether a configuration that meets the criterion answers the search."""
        return True

    def has_asked_for(self, ledger: Ledger, key: str) -> bool:
        """Whether a configuration was part of the search so far, and not only a guess."""
        return True
