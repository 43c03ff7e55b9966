"""How often a configuration is tried, and how long others are waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a sampler gives up: configurations that fail, and trials that are silent.

    Args:
        max_failures:
            After how many failed evaluations a configuration is abandoned.
        max_deaths:
            After how many trials that ended with their worker a configuration is abandoned.
        grace_period:
            How long, in seconds, a trial waits for an earlier one that does not say whose it is.
        claim_timeout:
            After how many seconds without a heartbeat a running trial is stale whose worker is on
            another machine; :obj:`None` if no trial is ever stale.

    Raises:
        ValueError:
            If one is out of its range.
    """

    max_failures: int
    max_deaths: int
    grace_period: float
    claim_timeout: float | None

    def __post_init__(self) -> None:
        for name in ("max_failures", "max_deaths"):
            count = getattr(self, name)
            if count < 1:
                raise ValueError(f"{name} must be at least 1, but got {count}.")
        for name in ("grace_period", "claim_timeout"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, but got {value}.")
