"""Check the limits of a search."""

from __future__ import annotations

from numbers import Integral

from optuna_quant._common.durations import check_seconds


def check_limits(
    timeout: float | None, max_trials: int | None, stop_at_first: bool | None
) -> None:
    """Refuse limits that make no sense.

    Args:
        timeout:
            Seconds, at least 0; :obj:`None` for no limit.
        max_trials:
            A number of trials, at least 1; :obj:`None` for no limit.
        stop_at_first:
            Whether to stop at the first success; :obj:`None` for the default.

    Raises:
        TypeError:
            If a limit has another type.
        ValueError:
            If a limit is out of its range, or the limits contradict each other.
    """
    check_seconds("timeout", timeout)
    if max_trials is not None:
        if isinstance(max_trials, bool) or not isinstance(max_trials, Integral):
            raise TypeError(f"max_trials must be an integer or None, but got {max_trials!r}.")
        if max_trials < 1:
            raise ValueError(f"max_trials must be at least 1, but got {max_trials}.")
    if timeout == 0 and stop_at_first is False:
        raise ValueError(
            "timeout=0 stops at the first configuration that meets the criterion, which "
            "contradicts stop_at_first=False; use timeout=None to continue without a time "
            "limit."
        )
